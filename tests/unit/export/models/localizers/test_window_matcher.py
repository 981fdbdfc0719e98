"""The matcher of WinCLIP+ against anomalib's few-shot mode, and as a graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorrt_rtx
import torch
from anomalib_winclip import anomalib_winclip, pixels, telling_texts
from torch.nn import functional

from zeroflaw_engines.builder.compiler import compile_engine
from zeroflaw_engines.built_engines.options import BuildOptions
from zeroflaw_engines.contract import (
    REFERENCE_MATCHER,
    EngineSizes,
    ReferenceSizes,
    engine_contract,
)
from zeroflaw_export.engine_writer import EngineWriter
from zeroflaw_export.models.architectures import clip_architecture
from zeroflaw_export.models.localizers.winclip import WinClipEncoder, WinClipParameters
from zeroflaw_export.models.localizers.window_matcher import plain_window_map, window_matcher
from zeroflaw_export.models.random_weights import randomise_weights
from zeroflaw_export.parity.checks import check_reference_matcher, parity_image

SIZE = 126
PARAMETERS = WinClipParameters()
# What FP16 rounding of a bank moves of a map, at most.
FP16_BANK = 1e-4


def photos() -> list[np.ndarray]:
    """Two photos to learn, and one that is unlike them in places."""
    image = parity_image("real", SIZE + 20, SIZE + 20)
    learned = [image[:SIZE, :SIZE], image[20:, 8 : SIZE + 8] // 2 + 40]
    seen = image[9 : SIZE + 9, 4 : SIZE + 4].copy()
    seen[30:60, 50:90] = 255 - seen[30:60, 50:90]
    return [*learned, seen]


@pytest.fixture(scope="module")
def matched():
    """Ours and anomalib's: tokens of a photo, a bank of two others, and what comes of them."""
    clip = clip_architecture("tiny").build(SIZE)
    randomise_weights(clip, 7)
    *learned, seen = photos()
    texts = telling_texts(clip, seen)
    encoder = WinClipEncoder(clip, SIZE, PARAMETERS).eval()

    @torch.inference_mode()
    def encoded(image: np.ndarray):
        return encoder(torch.from_numpy(image[None].copy()), torch.from_numpy(texts))

    bank = torch.cat([encoded(image)[2] for image in learned], dim=1)
    model = anomalib_winclip(clip, texts)
    model.setup(reference_images=torch.cat([pixels(image) for image in learned]))
    want = model(pixels(seen))
    _, windows, patches = model.encode_image(pixels(seen))
    grid = model._compute_few_shot_scores(patches, windows)
    few_shot = functional.interpolate(grid[None], size=SIZE, mode="bilinear")[0, 0].detach()
    return encoded(seen), bank, want, few_shot


def matcher_of_rows(rows: int):
    sizes = EngineSizes(SIZE, 32, 256, 16, 32, 27, ReferenceSizes(3, 81, 64, rows))
    return window_matcher(sizes, PARAMETERS)


@pytest.mark.parametrize(("half", "tolerance"), [(False, 1e-5), (True, FP16_BANK)])
@torch.inference_mode()
def test_the_map_with_reference_photos_is_anomalib_s(matched, half, tolerance) -> None:
    (zero_shot, score, tokens), bank, want, few_shot = matched
    valid = bank.shape[1]
    # Padding that would be the nearest, were it matched.
    padded = torch.cat([bank, tokens[:, :9]], dim=1)
    matcher = matcher_of_rows(valid + 9)
    number = torch.tensor([valid], dtype=torch.int32)
    found = matcher(tokens, padded.half() if half else padded, number)[0]
    assert float(few_shot.max() - few_shot.min()) > 0.05
    # WinCLIP+ halves distances: `reference_distance = half_cosine` does.
    assert float((found / 2 - few_shot).abs().max()) <= tolerance
    fused = (zero_shot[0] + found / 2) / 2
    assert float((fused - want.anomaly_map[0]).abs().max()) <= tolerance
    # The image score, with the peak of the map as ours: anomalib's is that of the patches.
    mine = (float(score) + float(found.max()) / 2) / 2
    by_pixels = (float(score) + float(few_shot.max())) / 2
    assert mine == pytest.approx(by_pixels, abs=tolerance)
    assert 0 <= float(want.pred_score) - mine < 0.01


@torch.inference_mode()
def test_a_photo_of_the_bank_is_at_no_distance(matched) -> None:
    (_, _, tokens), bank, _, _ = matched
    matcher = matcher_of_rows(2 * 81)
    together = torch.cat([bank[:, :81], tokens], dim=1)
    number = torch.tensor([2 * 81], dtype=torch.int32)
    assert float(matcher(tokens, together, number).abs().max()) < 1e-5
    assert float(matcher(tokens, together.half(), number).abs().max()) < 1e-4


def test_the_graphs_compute_it_and_tensorrt_rtx_compiles_one(tmp_path: Path) -> None:
    sizes = EngineSizes(SIZE, 32, 256, 16, 32, 27, ReferenceSizes(3, 81, 64, 40))
    writer = EngineWriter(tmp_path, sizes, "fp16", lambda _: None)
    written = writer.write(
        REFERENCE_MATCHER,
        window_matcher(sizes, PARAMETERS),
        lambda session, accepted: check_reference_matcher(
            session, lambda inputs, side: plain_window_map(inputs, side, PARAMETERS), accepted
        ),
    )
    assert len(written.parity) == 4
    plan = compile_engine(
        tensorrt_rtx,
        tmp_path / f"{REFERENCE_MATCHER}.fp16.onnx",
        engine_contract(REFERENCE_MATCHER, sizes),
        BuildOptions(backend="tensorrt-rtx", architectures=("sm86",), precision="fp16"),
        version=tensorrt_rtx.__version__,
    )
    report = plan.network_precision
    # The cosines with the bank of each block; upsampling is FP32. The builder asks for half.
    assert report.count("gemm", "float16") == 3
    assert report.count("gemm", "float32") == 2
    assert report.half_share >= 0.5
