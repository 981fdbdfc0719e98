"""Inspections with a reference bank against plain NumPy, and distances against anomalib's."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from support.products.learned_product import bank_of, store, tokens_of
from zeroflaw import Inspector, MethodParameters
from zeroflaw.pictures.images import read_image
from zeroflaw.pipeline.geometry import squash
from zeroflaw.pipeline.reference import load_bank, match
from zeroflaw.station.thinning import bank_of_photos, thinned
from zeroflaw_engines.backends import availability
from zeroflaw_engines.bundle.shipped import bundle_path
from zeroflaw_engines.image_files.frame import rgb_frame

FRAMES = Path(__file__).parents[3] / "examples" / "frames"
# Bilinear resizing and sums of 128 products in float32, in another order.
TOLERANCE = 1e-5


def crop(row: int, column: int = 40) -> np.ndarray:
    return np.ascontiguousarray(data.gravel()[row : row + 300, column : column + 300])


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def learned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """An Inspector of mini whose `gravel` has a bank of three photos, and that bank."""
    assert not availability(request.param).missing
    path = tmp_path_factory.mktemp("learned") / "b"
    shutil.copytree(bundle_path("mini"), path)
    with Inspector.load(path, request.param) as inspector:
        bank = bank_of(inspector, [crop(0), crop(90), crop(200)], 100)
        assert store(path, "gravel", bank)
        inspector.reload()
        yield inspector, bank


def upsampled(grid: np.ndarray, size: int) -> np.ndarray:
    """Bilinear, corners on corners: written out, in float64."""
    at = np.arange(size) * (len(grid) - 1) / (size - 1)
    low = np.minimum(at.astype(int), len(grid) - 2)
    rest = at - low
    rows = grid[low] * (1 - rest)[:, None] + grid[low + 1] * rest[:, None]
    return rows[:, low] * (1 - rest) + rows[:, low + 1] * rest


def nearest(tokens: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """1 - the highest cosine of each patch, mean over the blocks, in float64."""
    cosines = np.einsum("lnd,lrd->lnr", tokens.astype(np.float64), bank.astype(np.float64))
    return (1 - cosines.max(axis=2)).mean(axis=0)


def test_map_and_score_are_those_of_plain_numpy(learned) -> None:
    inspector, bank = learned
    size = inspector.bundle.manifest.clip.image_size
    for frame in (crop(45), read_image(FRAMES / "casting_dent.jpg")):
        inspection = inspector.inspect(frame, product="gravel", trace=True)
        distances = nearest(tokens_of(inspector, frame), bank.tokens)
        grid = distances.reshape(round(len(distances) ** 0.5), -1)
        wanted = np.minimum(upsampled(grid, size), 1)
        zero_shot = inspection.trace.zero_shot_map.astype(np.float64)
        assert wanted.max() > 0.05
        np.testing.assert_allclose(inspection.trace.reference_map, wanted, atol=TOLERANCE)
        np.testing.assert_allclose(
            inspection.anomaly_map, np.minimum(zero_shot + wanted, 1), atol=TOLERANCE
        )
        without = inspector.inspect(frame, product="object").image_score
        assert without != inspection.image_score
        out = inspector.sessions.clip_encoder.execute(
            {
                "image": inspected(inspector, frame),
                "text_embeddings": inspector.bundle.text_embeddings("gravel"),
            }
        )
        score = (float(out["image_score"][0]) + wanted.max()) / 2
        assert inspection.image_score == pytest.approx(score, abs=TOLERANCE)
        trace = inspection.record().trace
        assert trace.zero_shot_map_max == inspection.trace.zero_shot_map.max()
        assert trace.reference_map_max == inspection.trace.reference_map.max()
        assert "reference_matcher" in inspection.timings_ms


def inspected(inspector: Inspector, frame: np.ndarray) -> np.ndarray:
    """The frame as the CLIP encoder sees it."""
    return squash(rgb_frame(frame), inspector.bundle.manifest.clip.image_size)[None]


def test_a_photo_whose_tokens_are_all_in_the_bank_is_at_no_distance(learned) -> None:
    inspector, _ = learned
    tokens, matcher = tokens_of(inspector, crop(90)), inspector.sessions.reference_matcher
    # A bank of mini has room for all tokens of one photo, and some of another.
    photos = [thinned(tokens_of(inspector, crop(0)), 300), thinned(tokens, tokens.shape[1])]
    whole = bank_of_photos(photos, inspector.bundle.tower)
    assert whole.rows == 300 + tokens.shape[1]
    # FP16 rounds each value by up to 2^-11 of itself.
    np.testing.assert_allclose(match(tokens, load_bank(whole, "", matcher), matcher), 0, atol=5e-4)
    without = whole.without_photo(1)
    assert match(tokens, load_bank(without, "", matcher), matcher).mean() > 0.01


def test_a_product_without_a_bank_is_as_in_a_bundle_without_any(learned) -> None:
    inspector, _ = learned
    inspection = inspector.inspect(crop(90), product="object", trace=True)
    assert inspection.reference is None
    assert inspection.trace.reference_map is None
    np.testing.assert_array_equal(inspection.trace.zero_shot_map, inspection.anomaly_map)
    assert "reference_matcher" not in inspection.timings_ms
    with Inspector.load("mini", inspector.choice.backend) as shipped:
        plain = shipped.inspect(crop(90), product="object")
    np.testing.assert_array_equal(plain.anomaly_map, inspection.anomaly_map)
    assert plain.image_score == inspection.image_score


def test_distances_are_those_of_anomalib_s_winclip_and_patchcore(learned) -> None:
    import torch
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    from anomalib.models.image.winclip.utils import visual_association_score

    inspector, bank = learned
    tokens = tokens_of(inspector, crop(45))
    found = match(
        tokens,
        load_bank(bank, "", inspector.sessions.reference_matcher),
        inspector.sessions.reference_matcher,
    )
    side = round(tokens.shape[1] ** 0.5)
    winclip, patchcore = [], []
    for ours, theirs in zip(tokens, bank.tokens.astype(np.float32), strict=True):
        patches, rows = torch.from_numpy(ours), torch.from_numpy(theirs)
        # Equation 4 of WinCLIP has half the cosine distance.
        winclip.append(2 * visual_association_score(patches[None], rows[None])[0])
        # Between unit vectors the squared Euclidean distance is twice the cosine distance.
        far = PatchcoreModel.euclidean_dist(patches, rows).min(dim=1).values
        patchcore.append(far**2 / 2)
    for distances in (winclip, patchcore):
        grid = torch.stack(distances).mean(dim=0).reshape(1, 1, side, side)
        wanted = torch.nn.functional.interpolate(
            grid, size=found.shape, mode="bilinear", align_corners=True
        )[0, 0]
        # They normalise the bank's rows anew, which FP16 has rounded by up to 2^-11.
        np.testing.assert_allclose(found, wanted, atol=5e-4)
    brute = nearest(tokens, bank.tokens).reshape(side, side)
    np.testing.assert_allclose(found, upsampled(brute, len(found)), atol=TOLERANCE)


@pytest.mark.parametrize("learned", ["onnxruntime"], indirect=True)
def test_every_fusion_reaches_the_decision(learned) -> None:
    inspector, _ = learned
    seen = {}
    for fusion in ("sum", "mean", "max", "reference", "zero_shot"):
        parameters = MethodParameters.from_mapping(inspector.bundle.manifest.parameters).replace(
            reference_fusion=fusion, image_scoring="map_max"
        )
        with Inspector.load(
            inspector.bundle.path, inspector.choice.backend, parameters=parameters
        ) as other:
            seen[fusion] = other.inspect(crop(45), product="gravel", trace=True)
    zero_shot, reference = (seen["sum"].trace.zero_shot_map, seen["sum"].trace.reference_map)
    np.testing.assert_array_equal(seen["zero_shot"].anomaly_map, zero_shot)
    np.testing.assert_array_equal(seen["reference"].anomaly_map, reference)
    np.testing.assert_array_equal(seen["max"].anomaly_map, np.maximum(zero_shot, reference))
    # The score's zero-shot part is of the zero-shot map, however the maps are fused.
    for inspection in seen.values():
        wanted = (float(zero_shot.max()) + float(reference.max())) / 2
        assert inspection.image_score == pytest.approx(wanted, abs=1e-7)
