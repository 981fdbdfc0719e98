"""SAM's encoder and decoder as export modules, against segment_anything itself."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor

from zeroflaw_export.models.sam_attention import AttentionForm
from zeroflaw_export.models.sam_decoder import SamDecoder
from zeroflaw_export.models.sam_encoder import SamEncoder

ROWS = 27


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.inference_mode():
        yield


def close(got: torch.Tensor, want: torch.Tensor, tolerance: float = 2e-5) -> None:
    """Largest difference over largest value."""
    assert got.shape == want.shape
    assert torch.isfinite(got).all()
    assert float((got - want).abs().max() / want.abs().max()) < tolerance


# SAM's image encoder


@pytest.fixture(scope="module", params=get_args(AttentionForm))
def sam_encoder(tiny_sam, request) -> SamEncoder:
    return SamEncoder(tiny_sam, request.param).eval()


SIZES = [(256, 256), (171, 256), (256, 100), (256, 1), (1, 256), (1, 1), (17, 250), (224, 224)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_sam_encoder(tiny_sam, sam_encoder, height: int, width: int) -> None:
    rng = np.random.default_rng(height)
    content = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    planes = torch.from_numpy(content).permute(2, 0, 1)[None]
    want = tiny_sam.image_encoder(tiny_sam.preprocess(planes.float()))
    size = torch.tensor([height, width], dtype=torch.int32)
    for seed in range(2):  # whatever is in the padding
        frame = np.random.default_rng(seed).integers(0, 256, (1, 256, 256, 3), dtype=np.uint8)
        frame[0, :height, :width] = content
        close(sam_encoder(torch.from_numpy(frame), size), want)


def test_the_size_of_the_content_matters(sam_encoder) -> None:
    frame = torch.randint(0, 256, (1, 256, 256, 3), dtype=torch.uint8)
    a = sam_encoder(frame, torch.tensor([256, 200], dtype=torch.int32))
    b = sam_encoder(frame, torch.tensor([200, 256], dtype=torch.int32))
    assert (a - b).abs().max() > 0.1


# SAM's prompt encoder and mask decoder


@pytest.fixture(scope="module")
def decoder(tiny_sam) -> SamDecoder:
    return SamDecoder(tiny_sam).eval()


@pytest.fixture(scope="module")
def features() -> torch.Tensor:
    return torch.randn(1, 32, 16, 16, generator=torch.Generator().manual_seed(0))


def official(tiny_sam, features, points, labels, boxes, masks):
    """All four masks and IoUs of `SamPredictor.predict_torch` on these features."""
    predictor = SamPredictor(tiny_sam)
    predictor.features = features
    predictor.is_image_set = True
    predictor.original_size = predictor.input_size = (256, 256)
    iou, logits = [], []
    for multimask in (False, True):
        _, scores, low_res = predictor.predict_torch(
            points, labels, boxes, masks, multimask_output=multimask, return_logits=True
        )
        iou.append(scores)
        logits.append(low_res)
    return torch.cat(logits, dim=1), torch.cat(iou, dim=1)


def rows(points, labels, boxes, batch: int, generator, rows_in_all: int = ROWS):
    """The contract's rows: points, then box corners or SAM's not-a-point row, then unused."""
    coords = torch.rand(batch, rows_in_all, 2, generator=generator) * 256
    marks = torch.full((batch, rows_in_all), -2, dtype=torch.int32)
    used = 0
    if points is not None:
        used = points.shape[1]
        coords[:, :used] = points
        marks[:, :used] = labels.int()
    if boxes is not None:
        coords[:, used : used + 2] = boxes.reshape(batch, 2, 2)
        marks[:, used : used + 2] = torch.tensor([2, 3], dtype=torch.int32)
        used += 2
    else:
        marks[:, used] = -1
        used += 1
    return coords, marks, used


def some_prompt(count: int, box: bool, mask: bool, batch: int = 1):
    generator = torch.Generator().manual_seed(100 * count + 10 * batch + box)
    points = labels = boxes = masks = None
    if count:
        points = torch.rand(batch, count, 2, generator=generator) * 255
        labels = torch.randint(0, 2, (batch, count), generator=generator)
    if box:
        corners = torch.rand(batch, 2, 2, generator=generator) * 255
        boxes = torch.cat([corners.amin(1), corners.amax(1)], dim=1)
    if mask:
        masks = 5 * torch.randn(batch, 1, 64, 64, generator=generator)
    return points, labels, boxes, masks, generator


def decode(decoder, features, coords, marks, masks, generator):
    batch = len(coords)
    noise = torch.randn(batch, 1, 64, 64, generator=generator)
    has = torch.full((batch,), float(masks is not None))
    return decoder(features, coords, marks, noise if masks is None else masks, has)


@pytest.mark.parametrize("mask", [False, True], ids=["no mask", "mask"])
@pytest.mark.parametrize(
    ("count", "box"), [(0, True), *((n, box) for n in range(1, 21) for box in (False, True))]
)
def test_sam_decoder(tiny_sam, decoder, features, count: int, box: bool, mask: bool) -> None:
    points, labels, boxes, masks, generator = some_prompt(count, box, mask)
    want_logits, want_iou = official(tiny_sam, features, points, labels, boxes, masks)
    coords, marks, _ = rows(points, labels, boxes, 1, generator)
    logits, iou = decode(decoder, features, coords, marks, masks, generator)
    close(logits, want_logits)
    close(iou, want_iou)


@pytest.mark.parametrize("mask", [False, True], ids=["no mask", "mask"])
@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("batch", [2, 5])
def test_sam_decoder_with_several_boxes(
    tiny_sam, decoder, features, batch: int, count: int, mask: bool
) -> None:
    points, labels, boxes, masks, generator = some_prompt(count, True, mask, batch)
    want_logits, want_iou = official(tiny_sam, features, points, labels, boxes, masks)
    coords, marks, _ = rows(points, labels, boxes, batch, generator)
    logits, iou = decode(decoder, features, coords, marks, masks, generator)
    assert logits.shape == (batch, 4, 64, 64)
    close(logits, want_logits)
    close(iou, want_iou)


def test_each_of_a_batch_has_its_own_mask_and_rows(tiny_sam, decoder, features) -> None:
    """One with points alone, one with a box, one with a mask: as three calls give them."""
    prompts = [
        some_prompt(2, False, False),
        some_prompt(5, True, False),
        some_prompt(1, True, True),
    ]
    made = [rows(*prompt[:3], 1, prompt[4])[:2] for prompt in prompts]
    coords, marks = (torch.cat(parts) for parts in zip(*made, strict=True))
    masks = torch.cat([p[3] if p[3] is not None else torch.randn(1, 1, 64, 64) for p in prompts])
    has = torch.tensor([0.0, 0.0, 1.0])
    logits, iou = decoder(features, coords, marks, masks, has)
    for i, prompt in enumerate(prompts):
        want_logits, want_iou = official(tiny_sam, features, *prompt[:4])
        close(logits[i : i + 1], want_logits)
        close(iou[i : i + 1], want_iou)


@pytest.mark.parametrize("box", [False, True], ids=["no box", "box"])
@pytest.mark.parametrize("count", [1, 7])
def test_unused_rows_change_nothing(decoder, features, count: int, box: bool) -> None:
    points, labels, boxes, _, generator = some_prompt(count, box, False)
    coords, marks, used = rows(points, labels, boxes, 1, generator)
    want = decode(decoder, features, coords, marks, None, generator)
    moved = coords.clone()
    moved[:, used:] = torch.tensor([1e4, -1e4])
    for changed in (moved, coords.clone().index_fill_(1, torch.arange(used, ROWS), 0.0)):
        got = decode(decoder, features, changed, marks, None, generator)
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    # without them, and scattered among them
    short = decode(decoder, features, coords[:, :used], marks[:, :used], None, generator)
    order = torch.randperm(ROWS, generator=generator)
    mixed = decode(decoder, features, coords[:, order], marks[:, order], None, generator)
    for got in (short, mixed):
        close(got[0], want[0])
        close(got[1], want[1])


def test_sams_own_padding_row_does_change_the_result(decoder, features) -> None:
    """Why a label of our own is needed (algorithm.md 3.2)."""
    points, labels, _, _, generator = some_prompt(3, False, False)
    coords, marks, used = rows(points, labels, None, 1, generator)
    want, _ = decode(decoder, features, coords, marks, None, generator)
    marks[:, used] = -1
    got, _ = decode(decoder, features, coords, marks, None, generator)
    assert (got - want).abs().max() / want.abs().max() > 1e-3


@pytest.mark.parametrize("label", [0, 1, 2, 3, -1])
def test_every_label_counts(decoder, features, label: int) -> None:
    points, labels, _, _, generator = some_prompt(2, False, False)
    coords, marks, _ = rows(points, labels, None, 1, generator)
    seen = []
    for value in (label, -2):
        marks[:, 5] = value
        seen.append(decode(decoder, features, coords, marks, None, generator)[0])
    assert (seen[0] - seen[1]).abs().max() / seen[1].abs().max() > 1e-3


def test_the_mask_counts_only_if_it_is_said_to(decoder, features) -> None:
    points, labels, _, masks, generator = some_prompt(2, False, True)
    coords, marks, _ = rows(points, labels, None, 1, generator)
    off = [decoder(features, coords, marks, m, torch.zeros(1))[0] for m in (masks, masks * 0)]
    on = decoder(features, coords, marks, masks, torch.ones(1))[0]
    assert torch.equal(off[0], off[1])
    assert (on - off[0]).abs().max() / on.abs().max() > 1e-2
