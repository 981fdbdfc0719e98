"""A bundle against the models in PyTorch, from frame to mask.

By default the tiny SAM and CLIP; with --full-size (and in CI) SAM ViT-B, and ViT-H with
ViT-L/14-336 at 518 px. Weights are random but not degenerate; the frames are photographs.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from segment_anything import SamPredictor
from skimage import data

from support.command_line import ZEROFLAW, run_measured
from support.exported_bundle import SEED, TINY_SEED, Exported, export
from zeroflaw import Inspector
from zeroflaw.pipeline.geometry import frame_geometry
from zeroflaw.pipeline.refining.cascade import decoder_prompts
from zeroflaw.pipeline.refining.prompt_points import PointPrompts
from zeroflaw_benchmarks.reference.reference_pipeline import ReferenceClip, reference_inspection
from zeroflaw_engines.builder.differences import mask_iou
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_export.models.architectures import clip_architecture, sam_architecture
from zeroflaw_export.models.load import WeightsSource, load_clip, load_linear_adapters, load_sam
from zeroflaw_export.parity.references import keep_freed_memory

FRAMES = {
    "square": lambda: np.ascontiguousarray(data.astronaut()),
    "wide": lambda: np.ascontiguousarray(data.coffee()[40:260]),
    "tall": lambda: np.ascontiguousarray(data.coffee()[:, 200:330]),
    "tiny": lambda: np.ascontiguousarray(data.astronaut()[100:117, 200:224]),
}


class Pair:
    """A bundle and the PyTorch models of the same weights."""

    def __init__(self, clip: str, sam: str, bundle: Path, *, seed: int = SEED) -> None:
        source = WeightsSource(name="random", path=None, seed=seed)
        self.bundle = open_bundle(bundle)
        architecture = clip_architecture(clip)
        size = architecture.image_size
        model = load_clip(architecture, size, source)
        adapters = load_linear_adapters(architecture, source)
        self.clip = ReferenceClip(model, adapters, architecture.tapped_blocks, size)
        self.sam = load_sam(sam_architecture(sam), source)
        self.inspector = Inspector.load(self.bundle.path)

    def check(self, frame: np.ndarray) -> None:
        want = reference_inspection(
            self.clip, self.sam, frame, self.bundle.text_embeddings("object")
        )
        got = self.inspector.inspect(frame, product="object", trace=True)
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


@pytest.fixture(scope="module", autouse=True)
def quick_pytorch() -> None:
    keep_freed_memory()


@pytest.fixture(scope="module")
def vit_b(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    exported = export(tmp_path_factory.mktemp("vit_b") / "bundle", "tiny", "vit_b")
    return Pair("tiny", "vit_b", exported.path)


@pytest.fixture(scope="module")
def vit_h(full_size: Exported) -> Pair:
    return Pair("vit_l_14_336", "vit_h", full_size.path)


@pytest.mark.parametrize("shape", FRAMES)
def test_tiny_models_reproduce_the_references(tiny_bundle: Bundle, shape: str) -> None:
    Pair("tiny", "tiny", tiny_bundle.path, seed=TINY_SEED).check(FRAMES[shape]())


# Two minutes of export, and PyTorch takes 20 s a frame.
@pytest.mark.full_size
@pytest.mark.parametrize("shape", FRAMES)
def test_vit_b_reproduces_the_references(vit_b: Pair, shape: str) -> None:
    vit_b.check(FRAMES[shape]())


def decoder_inputs(features: np.ndarray, count: int, boxes=(), low_res=None):
    """The decoder's inputs for some points on a 900 x 600 frame, as the cascade lays them out."""
    rng = np.random.default_rng(count)
    points = PointPrompts(
        coords=(rng.random((count, 2)) * [900, 600]).astype(np.float32),
        labels=rng.integers(0, 2, count).astype(np.int32),
        extreme_region=np.ones((1, 1), np.bool_),
        from_region=True,
    )
    geometry = frame_geometry(
        (600, 900), map_size=518, sam_size=1024, feature_size=64, squash_sam=False
    )
    prompts = decoder_prompts(points, boxes, low_res, geometry, max_prompts=27, low_res_size=256)
    return points, {"features": features, **dataclasses.asdict(prompts)}


BOX = (100, 50, 700, 500)


@pytest.mark.full_size
@pytest.mark.parametrize("count", range(1, 21))
def test_vit_b_decoder_is_exact_for_every_number_of_points(vit_b: Pair, count: int) -> None:
    """The fixed prompt rows against `SamPredictor`, without and with a box and a mask."""
    rng = np.random.default_rng(count)
    features = rng.standard_normal((1, 256, 64, 64), np.float32)
    mask = rng.normal(0, 3, (256, 256)).astype(np.float32)
    predictor = SamPredictor(vit_b.sam)
    predictor.features = torch.from_numpy(features)
    predictor.original_size, predictor.is_image_set = (600, 900), True
    predictor.input_size = predictor.transform.get_preprocess_shape(600, 900, 1024)
    for boxes, low_res in (((), None), ((BOX,), mask)):
        points, inputs = decoder_inputs(features, count, boxes, low_res)
        got = vit_b.inspector._sessions.sam_decoder.execute(inputs)
        _, iou, want = predictor.predict(
            points.coords.astype(np.float64),
            points.labels,
            box=np.array(boxes[0]) if boxes else None,
            mask_input=None if low_res is None else low_res[None],
        )
        difference = np.abs(got["low_res_logits"][0, 1:] - want).max()
        assert difference <= 1e-3 * np.abs(want).max()
        np.testing.assert_allclose(got["predicted_iou"][0, 1:], iou, rtol=1e-3, atol=1e-3)


@pytest.mark.full_size
def test_three_decoder_calls_cost_no_more_than_three(vit_b: Pair) -> None:
    """The cascade's three calls against its first one; all SAMs have the same decoder."""
    features = np.random.default_rng(0).standard_normal((1, 256, 64, 64), np.float32)
    mask = np.ones((256, 256), np.float32)
    calls = [
        decoder_inputs(features, 6)[1],
        decoder_inputs(features, 6, low_res=mask)[1],
        decoder_inputs(features, 6, boxes=(BOX,), low_res=mask)[1],
    ]
    session = vit_b.inspector._sessions.sam_decoder

    def seconds(inputs: list[dict[str, np.ndarray]]) -> float:
        start = time.perf_counter()
        for one in inputs:
            session.execute(one)
        return time.perf_counter() - start

    seconds(calls)
    ratios = []
    for _ in range(5):
        one = statistics.median(seconds(calls[:1]) for _ in range(5))
        three = statistics.median(seconds(calls) for _ in range(5))
        ratios.append(three / one)
    assert min(ratios) <= 3.1, ratios


@pytest.mark.full_size
@pytest.mark.parametrize("shape", ["wide", "tall"])
def test_vit_h_and_vit_l_reproduce_the_references(vit_h: Pair, shape: str) -> None:
    vit_h.check(FRAMES[shape]())


@pytest.mark.full_size
def test_vit_h_and_vit_l_export_within_14_gb(
    full_size: Exported, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        print(f"\nViT-H + ViT-L export: {full_size.cost}")
    assert full_size.cost.peak_gb <= 14


@pytest.mark.full_size
def test_vit_h_and_vit_l_inspect_within_8_gb(
    vit_h: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vit_h.inspector.close()
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(2):  # the second frame must not add to the first
        Image.fromarray(FRAMES["square"]()).save(photos / f"{number}.png")
    cost = run_measured(ZEROFLAW, "inspect", vit_h.bundle.path, photos, "-o", tmp_path / "out")
    with capsys.disabled():
        print(f"\nViT-H + ViT-L, two frames inspected: {cost}")
    assert cost.peak_gb <= 8
    assert (tmp_path / "out" / "1.mask.png").exists()
