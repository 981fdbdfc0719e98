"""A bundle against the PyTorch originals, from frame to mask.

By default SAM ViT-B with the small CLIP; with --full-size (and in CI) ViT-H with ViT-L/14-336 at
518 px. Weights are random but not degenerate; the frames are photographs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from skimage import data

from support.reference_pipeline import mask_iou, reference_inspection
from zeroflaw import Inspector
from zeroflaw_engines.bundle import open_bundle
from zeroflaw_export.architectures import clip_architecture, sam_architecture
from zeroflaw_export.bundle_export import ExportPlan, export_bundle
from zeroflaw_export.models import WeightsSource, load_clip, load_linear_adapters, load_sam

SEED = 3

FRAMES = {
    "square": lambda: np.ascontiguousarray(data.astronaut()),
    "wide": lambda: np.ascontiguousarray(data.coffee()[40:260]),
    "tall": lambda: np.ascontiguousarray(data.coffee()[:, 200:330]),
    "tiny": lambda: np.ascontiguousarray(data.astronaut()[100:117, 200:224]),
}


class Pair:
    """A bundle and the PyTorch models of the same weights."""

    def __init__(self, clip: str, sam: str, directory: Path) -> None:
        source = WeightsSource(name="random", path=None, seed=SEED)
        plan = ExportPlan(
            clip_architecture=clip,
            sam_architecture=sam,
            clip_weights=source,
            adapters=source,
            sam_weights=source,
            text_encoder=False,
        )
        export_bundle(plan, directory / "bundle")
        self.bundle = open_bundle(directory / "bundle")
        self.architecture = clip_architecture(clip)
        self.size = self.architecture.image_size
        self.clip = load_clip(self.architecture, self.size, source)
        self.adapters = load_linear_adapters(self.architecture, self.clip, source)
        self.sam = load_sam(sam_architecture(sam), source)
        self.inspector = Inspector.load(self.bundle.path)

    def check(self, frame: np.ndarray) -> None:
        want = reference_inspection(
            self.clip,
            self.adapters,
            self.architecture.tapped_blocks,
            self.sam,
            frame,
            self.bundle.text_embeddings("object"),
            self.size,
        )
        got = self.inspector.inspect(frame, trace=True)
        assert got.trace is not None
        assert got.status == "ok"
        np.testing.assert_allclose(got.anomaly_map, want.anomaly_map, rtol=0, atol=1e-4)
        assert got.image_score == pytest.approx(want.image_score, abs=1e-4)
        assert got.trace.points is not None
        np.testing.assert_allclose(got.trace.points.coords, want.points, atol=1e-3)
        np.testing.assert_array_equal(got.trace.points.labels, want.labels)
        assert {0, 1} == set(want.labels.tolist()), "the frame must exercise both signs"
        assert len(got.trace.stages) == 3
        for stage, low_res, iou in zip(
            got.trace.stages, want.low_res, want.predicted_iou, strict=True
        ):
            scale = np.abs(low_res).max()
            assert np.abs(stage.low_res_logits - low_res).max() <= 1e-3 * scale
            np.testing.assert_allclose(stage.predicted_iou[0, 1:], iou, rtol=1e-3, atol=1e-3)
        assert 0 < want.mask.mean() < 1, "the mask must be neither empty nor full"
        assert mask_iou(got.mask, want.mask) >= 0.999
        assert got.mask.shape == frame.shape[:2]


@pytest.fixture(scope="module")
def vit_b(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair("tiny", "vit_b", tmp_path_factory.mktemp("vit_b"))


@pytest.fixture(scope="module")
def vit_h(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair("vit_l_14_336", "vit_h", tmp_path_factory.mktemp("vit_h"))


@pytest.mark.parametrize("shape", FRAMES)
def test_vit_b_reproduces_the_originals(vit_b: Pair, shape: str) -> None:
    vit_b.check(FRAMES[shape]())


@pytest.mark.full_size
@pytest.mark.parametrize("shape", ["wide", "tall"])
def test_vit_h_and_vit_l_reproduce_the_originals(vit_h: Pair, shape: str) -> None:
    vit_h.check(FRAMES[shape]())
