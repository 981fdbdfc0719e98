"""WinCLIP at the size of the paper, ViT-B/16+ at 240 px, beside anomalib; random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from anomalib_winclip import anomalib_winclip, pixels, telling_texts
from torch.nn import functional

from zeroflaw_export.models.architectures import clip_architecture
from zeroflaw_export.models.localizers.winclip import WINCLIP, WinClipEncoder, WinClipParameters
from zeroflaw_export.models.localizers.window_matcher import WindowMatcher
from zeroflaw_export.models.random_weights import randomise_weights
from zeroflaw_export.parity.checks import parity_image

pytestmark = pytest.mark.full_size

SIZE = 240


@torch.inference_mode()
def test_maps_and_scores_are_those_of_anomalib() -> None:
    architecture, parameters = clip_architecture("vit_b_16_plus_240"), WinClipParameters()
    clip = architecture.build(SIZE)
    randomise_weights(clip, 3)
    large = parity_image("real", SIZE + 40, SIZE + 40)
    seen, *photos = (large[at : at + SIZE, at : at + SIZE] for at in (20, 0, 40))
    texts = telling_texts(clip, seen)
    encoder = WinClipEncoder(clip, SIZE, parameters).eval()

    def encoded(image: np.ndarray):
        return encoder(torch.from_numpy(image[None].copy()), torch.from_numpy(texts))

    model = anomalib_winclip(clip, texts)
    want = model(pixels(seen))
    zero_shot, score, tokens = encoded(seen)
    assert float(want.anomaly_map.max() - want.anomaly_map.min()) > 0.03
    assert float((zero_shot - want.anomaly_map).abs().max()) <= 1e-5
    assert float((score - want.pred_score).abs().max()) <= 1e-5
    assert tokens.shape == (3, 225, 896)

    model.setup(reference_images=torch.cat([pixels(photo) for photo in photos]))
    want = model(pixels(seen))
    _, windows, patches = model.encode_image(pixels(seen))
    grid = model._compute_few_shot_scores(patches, windows)
    few_shot = functional.interpolate(grid[None], size=SIZE, mode="bilinear")[0, 0]
    bank = torch.cat([encoded(photo)[2] for photo in photos], dim=1)
    sizes = WINCLIP.reference_sizes(architecture, SIZE, 16_000_000)
    padded = functional.pad(bank, (0, 0, 0, sizes.rows - bank.shape[1]))
    matcher = WindowMatcher(sizes, SIZE, parameters)
    valid = torch.tensor([bank.shape[1]], dtype=torch.int32)
    for rows, tolerance in ((padded, 1e-5), (padded.half(), 1e-4)):
        found = matcher(tokens, rows, valid)[0] / 2
        assert float((found - few_shot).abs().max()) <= tolerance
        fused = (zero_shot[0] + found) / 2
        assert float((fused - want.anomaly_map[0]).abs().max()) <= tolerance
    assert float(few_shot.max() - few_shot.min()) > 0.01
