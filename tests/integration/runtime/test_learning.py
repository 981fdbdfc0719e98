"""Learning a product with the engines of mini: bank, threshold, and what may come between."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image
from skimage import data

from support.small_bundle import left_overs, snapshot
from zeroflaw import Inspector
from zeroflaw.station.calibration import calibrate_product
from zeroflaw.station.learning import LearnedProduct, forget_product, learn_product
from zeroflaw.station.reference.learner import nearest_photo, view_of
from zeroflaw.station.reference.scorer import photo_scorer
from zeroflaw.station.thinning import bank_of_photos, thinned
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.errors import (
    ArgumentError,
    BundleError,
    CalibrationError,
    ProductError,
    ReferenceBankError,
)
from zeroflaw_engines.image_files.frame import Frame

PHOTOS = 6


def frame(path: Path) -> Frame:
    return np.asarray(Image.open(path))


def brute_force(bundle: Bundle, paths: list[Path]) -> np.ndarray:
    """Leave-one-out scores in NumPy, from the tokens alone."""
    parameters = bundle.manifest.method_parameters
    rows = bundle.manifest.sizes.reference.rows // len(paths)
    with photo_scorer(
        bundle,
        bundle.text_embeddings("object"),
        parameters,
        with_bank=True,
        backend="onnxruntime",
        precision=None,
        threads=1,
    ) as scorer:
        seen = [scorer.encode(frame(path)) for path in paths]
    banks = [thinned(one.tokens, rows).astype(np.float32) for one in seen]
    side = round(seen[0].tokens.shape[1] ** 0.5)
    # Bilinear with aligned corners, one axis at a time.
    places = np.linspace(0, side - 1, bundle.manifest.clip.image_size)
    upsample = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(side)))
    scores = []
    for i, one in enumerate(seen):
        others = np.concatenate([bank for j, bank in enumerate(banks) if j != i], axis=1)
        cosines = np.einsum("lnd,lrd->lnr", one.tokens, others).max(axis=-1)
        grid = (1 - cosines).mean(axis=0).reshape(side, side)
        scores.append(0.5 * (one.zero_shot + (upsample @ grid @ upsample.T).max()))
    return np.array(scores)


def test_the_threshold_lies_above_the_scores_of_photos_without_their_own_rows(
    mini_copy: Bundle, good_photos: list[Path], encoded: list[Frame]
) -> None:
    reported = []
    learned = learn_product(
        mini_copy,
        "object",
        good_photos[:PHOTOS],
        false_reject_rate=0.2,
        progress=lambda *what: reported.append(what),
    )
    assert len(encoded) == PHOTOS  # one call of the CLIP encoder a photo
    assert reported == [(path, None) for path in good_photos[:PHOTOS]]
    scores = np.sort(brute_force(mini_copy, good_photos[:PHOTOS]))
    assert learned.fit.threshold == pytest.approx(scores[-1], abs=1e-5)
    assert (learned.fit.rank, learned.fit.images, learned.fit.interval) == (PHOTOS, PHOTOS, None)
    (few,) = [text for text in learned.warnings if "few" in text]
    assert "8 or more show better" in few
    assert "no false-reject rate below 0.14 can be claimed" in few
    entry = open_bundle(mini_copy.path).manifest.products["object"]
    assert entry.threshold == learned.fit.threshold
    assert (entry.calibration.scheme, entry.calibration.reference) == (
        "leave_one_out",
        learned.digest,
    )
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in good_photos[:PHOTOS]]
    assert [(one.name, one.sha256) for one in entry.reference.photos] == [
        (path.name, digest) for path, digest in zip(good_photos, digests, strict=False)
    ]
    lines = "".join(f"{digest}\n" for digest in sorted(digests))
    assert entry.calibration.data_digest == hashlib.sha256(lines.encode()).hexdigest()
    bank = learned.bundle.reference_bank("object")
    assert bank.rows == PHOTOS * (mini_copy.manifest.sizes.reference.rows // PHOTOS)
    assert left_overs(mini_copy.path) == []


def test_an_inspector_scores_as_the_learning_did(
    mini_copy: Bundle, good_photos: list[Path]
) -> None:
    learned = learn_product(mini_copy, "object", good_photos[:3], calibration="leave_one_out")
    opened = learned.bundle
    bank = opened.reference_bank("object")
    with (
        Inspector.load(mini_copy.path) as inspector,
        photo_scorer(
            opened,
            opened.text_embeddings("object"),
            opened.manifest.method_parameters,
            with_bank=True,
            backend="onnxruntime",
            precision=None,
            threads=0,
        ) as scorer,
    ):
        loaded = scorer.load(bank)
        for path in good_photos[2:6]:
            inspection = inspector.inspect(frame(path), product="object")
            score = scorer.score(scorer.encode(frame(path)), loaded)
            assert inspection.image_score == score.score
            assert inspection.threshold == learned.fit.threshold
            assert inspection.reference == learned.digest
            assert not any("calibrated" in text for text in inspection.warnings)


def test_a_split_calibrates_on_photos_that_the_bank_has_not(
    mini_copy: Bundle, good_photos: list[Path], encoded: list[Frame]
) -> None:
    learned = learn_product(
        mini_copy, "object", good_photos, false_reject_rate=0.2, calibration="split"
    )
    assert len(encoded) == len(good_photos)
    calibration = learned.bundle.manifest.products["object"].calibration
    assert (calibration.scheme, calibration.images) == ("split", 6)
    assert calibration.interval is not None
    names = {photo.name for photo in learned.reference.photos}
    others = [path for path in good_photos if path.name not in names]
    assert (len(names), len(others)) == (6, 6)
    # `calibrate` on the same photos gives the same threshold, bit for bit.
    done = calibrate_product(learned.bundle, "object", others, false_reject_rate=0.2)
    assert done.fit.threshold == learned.fit.threshold
    assert done.fit.interval == learned.fit.interval
    again = open_bundle(mini_copy.path).manifest.products["object"].calibration
    assert (again.scheme, again.reference) == ("split", learned.digest)
    assert again.data_digest == calibration.data_digest
    with pytest.raises(CalibrationError, match="6 of the images are in the reference bank"):
        calibrate_product(learned.bundle, "object", good_photos)


@pytest.mark.long
def test_other_views_join_the_rows_and_the_draw_is_repeatable(
    mini_copy: Bundle, good_photos: list[Path], encoded: list[Frame]
) -> None:
    def learned(**options) -> LearnedProduct:
        return learn_product(open_bundle(mini_copy.path), "object", good_photos[:4], **options)

    views = ("rotate_90", "flip_horizontal")
    first = learned(augmentations=views)
    assert len(encoded) == 4 * 3
    np.testing.assert_array_equal(encoded[1], np.rot90(encoded[0]))
    np.testing.assert_array_equal(encoded[2], np.fliplr(encoded[0]))
    assert first.reference.augmentations == views
    assert learned().digest != first.digest
    assert learned(augmentations=views).digest == first.digest
    drawn = [learned(shots=2, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0].digest == drawn[1].digest != drawn[2].digest
    assert all(one.bank_photos == 2 for one in drawn)
    small = learned(bank_bytes=64 * 1024)
    assert small.reference.rows == 4 * (64 * 1024 // (2 * 152) // 4)
    assert 63 * 1024 < small.bank_bytes < 67 * 1024


@pytest.mark.parametrize("view", ["rotate_90", "rotate_180", "rotate_270", "flip_horizontal",
                                  "flip_vertical"])  # fmt: skip
def test_views_are_those_of_pillow(rng, view: str) -> None:
    turned = {
        "rotate_90": Image.Transpose.ROTATE_90,
        "rotate_180": Image.Transpose.ROTATE_180,
        "rotate_270": Image.Transpose.ROTATE_270,
        "flip_horizontal": Image.Transpose.FLIP_LEFT_RIGHT,
        "flip_vertical": Image.Transpose.FLIP_TOP_BOTTOM,
    }
    picture = rng.integers(0, 255, (5, 7, 3), dtype=np.uint8)
    want = np.asarray(Image.fromarray(picture).transpose(turned[view]))
    np.testing.assert_array_equal(view_of(picture, view), want)


def test_the_nearest_photo_is_found(rng) -> None:
    tokens = rng.normal(size=(3, 2, 100, 16)).astype(np.float32)
    tokens /= np.linalg.norm(tokens, axis=-1, keepdims=True)
    bank = bank_of_photos([thinned(photo, 20) for photo in tokens], "0" * 64)
    for number, photo in enumerate(tokens):
        nearest, apart = nearest_photo(photo, bank)
        assert nearest == number
        assert abs(apart) < 1e-3
    nearest, apart = nearest_photo(tokens[1], bank.without_photo(1))
    assert nearest in (0, 2)
    assert apart > 0.1


# What is not learned


def test_a_photo_that_is_not_a_good_one_is_named(
    mini_copy: Bundle, good_photos: list[Path], tmp_path: Path
) -> None:
    other = tmp_path / "other_part.png"
    Image.fromarray(data.brick()).convert("RGB").save(other)
    before = snapshot(mini_copy.path)
    with pytest.raises(ReferenceBankError) as caught:
        learn_product(mini_copy, "object", [*good_photos[:5], other])
    assert "1 of 6 photos look unlike the others" in caught.value.cause
    assert str(other) in caught.value.cause
    assert (mini_copy.path / "bundle.json").read_bytes() == before["bundle.json"]
    learned = learn_product(mini_copy, "object", [*good_photos[:5], other], keep_unusual=True)
    assert "other_part.png" in {photo.name for photo in learned.reference.photos}
    assert left_overs(mini_copy.path) == []


def test_photos_left_out_are_named_and_near_copies_too(
    mini_copy: Bundle, good_photos: list[Path], tmp_path: Path
) -> None:
    copy, blind, near = (tmp_path / f"{name}.png" for name in ("copy", "blind", "near"))
    shutil.copyfile(good_photos[0], copy)
    Image.fromarray(np.full((160, 200, 3), 128, np.uint8)).save(blind)
    pixels = frame(good_photos[2]).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(near)
    learned = learn_product(mini_copy, "object", [*good_photos[:6], copy, blind, near])
    assert learned.copies == (copy,)
    assert learned.failed == (blind,)
    assert learned.photos == (*good_photos[:6], near)
    (text,) = [text for text in learned.warnings if "nearly the same" in text]
    assert text.startswith(" and ".join(sorted((str(good_photos[2]), str(near)))))


@pytest.mark.parametrize(
    ("count", "options", "error", "text"),
    [
        (0, {}, ReferenceBankError, "there is no photo"),
        (1, {}, ReferenceBankError, "one photo alone"),
        (3, {"bank_bytes": 608}, ReferenceBankError, "3 photos do not fit into a bank of 2 rows"),
        (3, {"bank_bytes": 1 << 30}, ReferenceBankError, "this bundle takes banks of"),
        (3, {"false_reject_rate": 0}, CalibrationError, "not inside"),
        (3, {"augmentations": ["mirror"]}, ArgumentError, "augmentations"),
        (3, {"shots": 4}, ReferenceBankError, "4 photos were to be drawn of 3"),
    ],
)
def test_what_cannot_be_learned_changes_nothing(
    mini_copy: Bundle, good_photos: list[Path], count: int, options: dict, error: type, text: str
) -> None:
    before = snapshot(mini_copy.path)
    with pytest.raises(error, match=text):
        learn_product(mini_copy, "object", good_photos[:count], **options)
    assert snapshot(mini_copy.path) == before
    assert left_overs(mini_copy.path) == []


def test_a_bundle_without_a_matcher_says_so(mini_copy: Bundle, good_photos: list[Path]) -> None:
    old = Bundle(
        path=mini_copy.path, manifest=msgspec.structs.replace(mini_copy.manifest, reference=None)
    )
    with pytest.raises(ReferenceBankError, match="has no reference_matcher"):
        learn_product(old, "object", good_photos)


def test_the_bundle_that_ships_is_not_changed(good_photos: list[Path]) -> None:
    with pytest.raises(BundleError, match="part of the installation"):
        learn_product(open_bundle("mini"), "object", good_photos[:2])


def test_a_product_that_the_bundle_lacks_is_added(
    mini_copy: Bundle, good_photos: list[Path]
) -> None:
    with pytest.raises(ReferenceBankError):
        learn_product(mini_copy, "coffee cup", good_photos[:1])
    assert "coffee cup" not in open_bundle(mini_copy.path).manifest.products
    learned = learn_product(mini_copy, "coffee cup", good_photos[:3])
    assert learned.product == "coffee cup"
    assert learned.bundle.reference_digest("coffee cup") == learned.digest
    with pytest.raises(ProductError):
        learn_product(learned.bundle, "coffee/cup", good_photos[:3])


def test_what_was_learned_is_forgotten(mini_copy: Bundle, good_photos: list[Path]) -> None:
    learned = learn_product(mini_copy, "object", good_photos[:3])
    forgotten = forget_product(learned.bundle, "object")
    entry = forgotten.manifest.products["object"]
    assert (entry.reference, entry.threshold, entry.calibration) == (None, None, None)
    assert left_overs(mini_copy.path) == []
    with pytest.raises(ProductError, match="no reference bank"):
        forget_product(forgotten, "object")
