"""Products with settings, learned and calibrated with the engines of mini, on drawn parts."""

from __future__ import annotations

from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from PIL import Image

from zeroflaw import Inspector, MethodParameters
from zeroflaw.pipeline.encoding.clip import encode_clip
from zeroflaw.pipeline.view.alignment import reference_template
from zeroflaw.pipeline.view.product_view import product_view
from zeroflaw.station import learning
from zeroflaw.station.calibration import calibrate_product
from zeroflaw.station.learning import LearnedProduct, forget_product, learn_product
from zeroflaw.station.reference.photos import PhotoReader, survey_photos
from zeroflaw.station.reference.view_learner import judged_patches
from zeroflaw.station.reference.view_scorer import ViewScorer
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.products.settings import (
    Alignment,
    ProductSettings,
    Rule,
    Tiles,
    Zone,
)
from zeroflaw_engines.bundle.products.writer import set_reference, set_settings
from zeroflaw_engines.bundle.reference_bank import ReferenceBank
from zeroflaw_engines.bundle.writer import copy_bundle
from zeroflaw_engines.errors import ProductError, ReferenceBankError
from zeroflaw_engines.sessions.device_tensor import on_host

H, W = 180, 300
BODY = Zone(name="body", polygon=((30, 30), (270, 30), (270, 150), (30, 150)))
ALIGNMENT = Alignment(template="", photo="0" * 64, max_shift=20, max_rotation=3)
PER_TILE = ProductSettings(
    frame_width=W,
    frame_height=H,
    tiles=Tiles(rows=1, columns=2, banks="per_tile"),
    zones=(BODY,),
    alignment=ALIGNMENT,
)
BY_REGIONS = ProductSettings(
    frame_width=W,
    frame_height=H,
    tiles=Tiles(rows=1, columns=2),
    zones=(BODY,),
    rules=(Rule(name="spots", zones=("body",), min_area_px=4),),
)


def part(seed: int, *, shift: tuple[float, float] = (0, 0), degrees: float = 0, scratch: int = 0):
    """A part with holes in it, of a noise of its own, and a scratch at one of several places."""
    rng = np.random.default_rng(seed)
    image = np.full((H, W, 3), 60, np.uint8)
    cv2.rectangle(image, (40, 36), (260, 144), (190, 180, 170), -1)
    for k in range(5):
        cv2.circle(image, (75 + 36 * k, 63 + 14 * (k % 3)), 7, (40, 40, 50), -1, cv2.LINE_AA)
    if scratch:
        ends = (100, 60 + 15 * scratch), (170, 90 + 9 * scratch)
        cv2.line(image, *ends, (250, 30 * scratch, 10), 1, cv2.LINE_AA)
    matrix = cv2.getRotationMatrix2D(((W - 1) / 2, (H - 1) / 2), degrees, 1)
    matrix[:, 2] += shift
    image = cv2.warpAffine(image, matrix, (W, H), borderMode=cv2.BORDER_REPLICATE)
    return (image + rng.normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8)


def written(folder: Path, frames: list[np.ndarray]) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{i}.png" for i in range(len(frames))]
    for path, frame in zip(paths, frames, strict=True):
        Image.fromarray(frame).save(path)
    return paths


@pytest.fixture
def mini_copy(tmp_path: Path) -> Bundle:
    return copy_bundle(open_bundle("mini"), tmp_path / "bundle")


SHIFTED = [
    part(1, shift=(5, -3)),
    part(2, shift=(-7.5, 4), degrees=1.5),
    part(3, shift=(0, 9), degrees=-2),
]


def cells_of(judged: np.ndarray, side: int) -> np.ndarray:
    """Which of side x side equal cells hold a judged pixel, by asking each pixel."""
    height, width = judged.shape
    found = np.zeros((side, side), np.bool_)
    for y, x in np.argwhere(judged):
        # The cells that a pixel overlaps.
        rows = slice(y * side // height, -(-(y + 1) * side // height))
        columns = slice(x * side // width, -(-(x + 1) * side // width))
        found[rows, columns] = True
    return found


@pytest.mark.parametrize("shape", [(180, 167), (40, 300), (3, 5), (56, 56)])
def test_patches_count_that_hold_anything_judged(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(shape[0])
    for share in (0.002, 0.3):
        judged = rng.random(shape) < share
        judged[1, 2] = True
        expected = cells_of(judged, 14)
        assert np.array_equal(judged_patches(judged, 14 * 14), expected.ravel())


def renumbered(bank: ReferenceBank, without: int) -> ReferenceBank:
    others = bank.without_photo(without)
    photos = (others.photos - (others.photos > without)).astype(np.int32)
    return ReferenceBank(others.tokens, photos, others.tower, others.tiles)


@pytest.fixture
def learned(mini_copy: Bundle, tmp_path: Path) -> LearnedProduct:
    """Per-tile banks of an aligned part whose photos are shifted and turned."""
    bundle = set_settings(mini_copy, "object", PER_TILE, template=reference_template(part(0)))
    paths = written(tmp_path / "photos", SHIFTED)
    return learn_product(bundle, "object", paths, false_reject_rate=0.3)


def test_each_tile_of_an_aligned_part_has_a_bank_of_its_own_patches(
    learned: LearnedProduct, tmp_path: Path
) -> None:
    bundle = open_bundle(learned.bundle.path)
    bank = bundle.reference_bank("object")
    entry = bundle.manifest.products["object"]
    assert bank.tile_numbers == entry.reference.tiles == (0, 1)
    each = bundle.manifest.sizes.reference.rows // 2 // len(SHIFTED)
    assert bank.rows == entry.reference.rows == 2 * len(SHIFTED) * each
    view = product_view(entry.settings, bundle)
    scores = []
    with Inspector.load(bundle.path) as inspector:
        for photo, frame in enumerate(SHIFTED):
            seen = view.look(frame)
            for tile, window in enumerate(seen.grid.windows):
                tokens = encode_clip(
                    np.ascontiguousarray(seen.seen[window]),
                    bundle.manifest.clip.image_size,
                    bundle.text_embeddings("object"),
                    inspector.sessions.clip_encoder,
                ).patch_tokens
                of_tile = bank.of_tile(tile)
                rows = of_tile.tokens[0, of_tile.photos == photo].astype(np.float32)
                nearest = (rows @ on_host(tokens)[0].T).max(axis=1)
                assert nearest.min() > 0.999  # each row is a patch of that tile
                assert len(rows) == each
                # ... and none of what is blanked, which no other patch looks like.
                patches = round(on_host(tokens).shape[1] ** 0.5)
                judged = cells_of(seen.zones.judged[window], patches)
                nearest_to = (rows @ on_host(tokens)[0].T).argmax(axis=1)
                assert judged.ravel()[nearest_to].all()
                assert not judged.all()
        fresh = inspector.inspect(part(9, shift=(-4, 6), degrees=1), product="object")
        assert fresh.reference == learned.digest
        assert fresh.decision != "hold"
        # Where the part lies is found, and the zones with it.
        assert np.allclose((fresh.alignment.x, fresh.alignment.y), (-4, 6), atol=0.5)
        defect = part(9, shift=(-4, 6), degrees=1, scratch=1)
        assert inspector.inspect(defect, product="object").image_score > fresh.image_score
    # A photo's score is what an Inspector of the others' bank gives, not of a bank of its own rows.
    for photo, frame in enumerate(SHIFTED):
        other = copy_bundle(bundle, tmp_path / f"without-{photo}")
        photos = tuple(one for i, one in enumerate(entry.reference.photos) if i != photo)
        others = renumbered(bank, photo)
        set_reference(
            other,
            "object",
            others,
            msgspec.structs.replace(entry.reference, rows=others.rows, photos=photos),
            None,
            None,
            embeddings=bundle.text_embeddings("object"),
            before=learned.digest,
            settings=entry.settings,
        )
        with Inspector.load(other.path, encoder_schedule="clip_first") as inspector:
            scores.append(inspector.inspect(frame, product="object").decision_score)
    assert learned.fit.threshold == np.nextafter(max(scores), 1)
    assert entry.calibration.statistic == "image_score"
    assert forget_product(bundle, "object").manifest.products["object"].settings == entry.settings


def test_an_interrupted_learning_goes_on_and_gives_the_same(
    mini_copy: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = set_settings(mini_copy, "object", BY_REGIONS)
    other = copy_bundle(bundle, tmp_path / "other")
    paths = written(tmp_path / "photos", [part(seed) for seed in (1, 2, 3)])
    done: list[Path] = []

    def interrupted(path: Path, _: object) -> None:
        done.append(path)
        if len(done) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn_product(bundle, "object", paths, progress=interrupted)
    encoded = []
    tokens = ViewScorer.tokens
    monkeypatch.setattr(
        ViewScorer, "tokens", lambda *given: (encoded.append(given), tokens(*given))[1]
    )
    learned = learn_product(bundle, "object", paths, false_reject_rate=0.3)
    # Two tiles, and the one in the middle once more to compare photos by, of one photo.
    assert len(encoded) == 3
    assert learned.digest == learn_product(other, "object", paths).digest
    bank = learned.bundle.reference_bank("object")
    assert bank.tiles is None
    assert bank.rows == 3 * (bundle.manifest.sizes.reference.rows // 3)
    assert learned.statistic == "decision_score"
    assert any("not proven" in text for text in learned.warnings)


def test_the_share_that_is_printed_is_the_share_that_is_rejected(
    mini_copy: Bundle, tmp_path: Path
) -> None:
    """Good photos with scratches here and there, and photos that an inspection would hold."""
    bundle = set_settings(mini_copy, "object", BY_REGIONS)
    good = [part(10 + i, scratch=at) for i, at in enumerate((0, 0, 1, 2, 3, 4))]
    other_size = part(30)[:-2]
    blind = np.full((H, W, 3), 90, np.uint8)
    paths = written(tmp_path / "photos", [*good, other_size, blind])
    done = calibrate_product(bundle, "object", paths, false_reject_rate=0.5)
    assert [path.name for path in done.good.failed] == ["6.png", "7.png"]
    assert done.statistic == "decision_score"
    calibration = open_bundle(bundle.path).manifest.products["object"].calibration
    assert calibration.statistic == "decision_score"
    assert calibration.images == len(good)
    with Inspector.load(bundle.path) as inspector:
        seen = [inspector.inspect(frame, product="object") for frame in good]
        held = [
            inspector.inspect(frame, product="object").decision for frame in (other_size, blind)
        ]
    assert held == ["hold", "hold"]
    assert [one.decision_score for one in seen] == done.good.scores.tolist()
    assert [one.decision_score for one in seen] != [one.image_score for one in seen]
    rejected = np.mean([one.decision == "reject" for one in seen])
    assert rejected == done.fit.observed_rate
    assert rejected > 0


def test_photos_are_unlike_the_others_by_their_image_scores(
    mini_copy: Bundle, tmp_path: Path, monkeypatch
) -> None:
    """Of rules by regions most good photos score 0: any other score would be far from the rest."""
    rules = (Rule(name="never", min_peak=1.0),)
    bundle = set_settings(mini_copy, "object", msgspec.structs.replace(BY_REGIONS, rules=rules))
    paths = written(tmp_path / "photos", [part(1), part(2)])
    compared = []
    monkeypatch.setattr(learning, "require_usual", lambda *given: compared.append(given[1]))
    learned = learn_product(bundle, "object", paths, false_reject_rate=0.4)
    assert learned.fit.threshold < 1e-6
    (scores,) = compared
    assert (scores > 0.01).all()


def test_misaligned_photos_are_left_out(mini_copy: Bundle, tmp_path: Path) -> None:
    bundle = set_settings(mini_copy, "object", PER_TILE, template=reference_template(part(0)))
    far = part(4, shift=(28, 0))
    noise = np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)
    paths = written(tmp_path / "photos", [*SHIFTED[:2], far, noise])
    told = {}
    survey = survey_photos(
        paths,
        PhotoReader(),
        MethodParameters(),
        lambda path, error: told.update({path.name: error}),
        product_view(bundle.manifest.products["object"].settings, bundle),
    )
    assert [photo.path for photo in survey.photos] == paths[:2]
    assert [path.name for path in survey.failed] == ["2.png", "3.png"]
    assert "shifted by 28" in told["2.png"].cause
    assert "correlation" in told["3.png"].cause


def test_a_bank_needs_a_row_for_each_photo_and_tile(mini_copy: Bundle, tmp_path: Path) -> None:
    bundle = set_settings(mini_copy, "object", PER_TILE, template=reference_template(part(0)))
    paths = written(tmp_path / "photos", SHIFTED)
    sizes = bundle.manifest.sizes.reference
    five = 5 * sizes.bank_bytes // sizes.rows
    with pytest.raises(ReferenceBankError, match="which 2 tiles share: 2 each"):
        learn_product(bundle, "object", paths, bank_bytes=five)


def test_settings_that_change_meanwhile_are_not_calibrated(
    mini_copy: Bundle, tmp_path: Path
) -> None:
    bundle = set_settings(mini_copy, "object", BY_REGIONS)
    paths = written(tmp_path / "photos", [part(1), part(2)])

    def change(*_: object) -> None:
        set_settings(bundle, "object", None)

    with pytest.raises(ProductError, match="settings of product 'object' were changed"):
        calibrate_product(bundle, "object", paths, false_reject_rate=0.5, progress=change)
    assert open_bundle(bundle.path).manifest.products["object"].calibration is None
