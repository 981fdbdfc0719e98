"""The export modules in PyTorch, against segment_anything and open_clip themselves."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import open_clip
import pytest
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from segment_anything import SamPredictor
from torch import nn
from torch.nn import functional

from zeroflaw_export.models.adapters import LinearAdapters
from zeroflaw_export.models.architectures import clip_architecture
from zeroflaw_export.models.clip_encoder import ClipEncoder, bilinear_matrix
from zeroflaw_export.models.random_weights import randomise_weights
from zeroflaw_export.models.sam_attention import AttentionForm
from zeroflaw_export.models.sam_decoder import SamDecoder
from zeroflaw_export.models.sam_encoder import SamEncoder
from zeroflaw_export.models.text_encoder import TextEncoder

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


# CLIP's image tower


@pytest.mark.parametrize(
    ("source", "target"), [(16, 224), (37, 518), (8, 112), (5, 5), (2, 7), (1, 10), (9, 4)]
)
def test_bilinear_matrix(source: int, target: int) -> None:
    matrix = bilinear_matrix(source, target)
    assert matrix.shape == (target, source)
    assert matrix.dtype == torch.float32
    torch.testing.assert_close(matrix.sum(1), torch.ones(target))
    grid = torch.randn(1, 1, source, source, dtype=torch.float64)
    want = functional.interpolate(grid, size=target, mode="bilinear", align_corners=True)
    got = matrix.double() @ grid @ matrix.double().T
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)


def unit_rows(seed: int) -> torch.Tensor:
    rows = torch.randn(2, 32, generator=torch.Generator().manual_seed(seed))
    return functional.normalize(rows, dim=-1)


def april_gan(clip, adapters, blocks, image, text):
    """algorithm.md 1.2: hooks on the blocks, resize both logits, then softmax, then the mean."""
    seen = {}
    hooks = [
        clip.visual.transformer.resblocks[block - 1].register_forward_hook(
            lambda _module, _inputs, output, block=block: seen.__setitem__(block, output)
        )
        for block in blocks
    ]
    mean = torch.tensor(OPENAI_DATASET_MEAN).view(1, 3, 1, 1)
    std = torch.tensor(OPENAI_DATASET_STD).view(1, 3, 1, 1)
    pixels = (image.permute(0, 3, 1, 2).float() / 255 - mean) / std
    cls = clip.encode_image(pixels, normalize=True)
    for hook in hooks:
        hook.remove()
    maps = []
    for layer, block in zip(adapters.fc, blocks, strict=True):
        tokens = functional.normalize(layer(seen[block][:, 1:]), dim=-1)
        logits = 100.0 * tokens @ text.T
        side = math.isqrt(logits.shape[1])
        grid = logits.permute(0, 2, 1).reshape(1, 2, side, side)
        grid = functional.interpolate(
            grid, size=image.shape[1], mode="bilinear", align_corners=True
        )
        maps.append(grid.softmax(dim=1)[:, 1])
    return sum(maps) / len(maps), (100.0 * cls @ text.T).softmax(dim=-1)[:, 1]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("size", "blocks"), [(224, (1, 2, 3, 4)), (112, (1, 2, 3, 4)), (126, (2, 4)), (224, (3,))]
)
def test_clip_encoder(size: int, blocks: tuple[int, ...], seed: int) -> None:
    clip = clip_architecture("tiny").build(size)
    randomise_weights(clip, seed)
    adapters = LinearAdapters(len(blocks), 64, 32)
    randomise_weights(adapters, seed + 1)
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8, generator=generator)
    encoder = ClipEncoder(clip, adapters, blocks, size).eval()
    got_map, got_score = encoder(image, unit_rows(seed))
    want_map, want_score = april_gan(clip, adapters, blocks, image, unit_rows(seed))
    assert got_map.shape == (1, size, size)
    torch.testing.assert_close(got_map, want_map, rtol=0, atol=1e-4)
    torch.testing.assert_close(got_score, want_score, rtol=0, atol=1e-4)
    assert float(got_map.std()) > 0.01
    assert 0 <= float(got_map.min()) <= float(got_map.max()) <= 1


def test_exchanged_sentences_give_the_complement(tiny_clip) -> None:
    adapters = LinearAdapters(4, 64, 32)
    randomise_weights(adapters, 1)
    encoder = ClipEncoder(tiny_clip, adapters, (1, 2, 3, 4), 224).eval()
    image = torch.randint(0, 256, (1, 224, 224, 3), dtype=torch.uint8)
    a, b = encoder(image, unit_rows(1)), encoder(image, unit_rows(1).flip(0))
    torch.testing.assert_close(a[0] + b[0], torch.ones_like(a[0]), rtol=0, atol=1e-5)
    torch.testing.assert_close(a[1] + b[1], torch.ones(1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [336, 518, 224])
def test_the_activation_is_that_of_the_reference(size: int) -> None:
    """algorithm.md 1.1: erf-GELU at every size but 336, where QuickGELU is used, in both towers."""
    architecture = clip_architecture("vit_l_14_336")
    name = "ViT-L-14-336-quickgelu" if size == 336 else "ViT-L-14-336"
    with torch.device("meta"):
        clip = architecture.build(size)
        want = open_clip.create_model(
            name, pretrained=None, force_image_size=size, device="meta", load_weights=False
        )
    kind = open_clip.transformer.QuickGELU if size == 336 else nn.GELU
    assert architecture.uses_quick_gelu(size) == (size == 336)
    for tower in ("visual.transformer", "transformer"):
        blocks = clip.get_submodule(tower).resblocks
        for mine, theirs in zip(blocks, want.get_submodule(tower).resblocks, strict=True):
            assert type(mine.mlp.gelu) is type(theirs.mlp.gelu) is kind
    gelu = [part for part in clip.modules() if isinstance(part, nn.GELU)]
    assert all(part.approximate == "none" for part in gelu)
    mine, theirs = clip.state_dict(), want.state_dict()
    assert {k: v.shape for k, v in mine.items()} == {k: v.shape for k, v in theirs.items()}
    assert not clip.training


def test_the_full_size_model_is_the_papers() -> None:
    architecture = clip_architecture("vit_l_14_336")
    assert architecture.tapped_blocks == (6, 12, 18, 24)
    assert architecture.image_size == 518
    with torch.device("meta"):
        clip = architecture.build(518)
    assert clip.visual.grid_size == (37, 37)
    assert clip.visual.positional_embedding.shape == (1370, 1024)
    assert len(clip.visual.transformer.resblocks) == 24
    assert clip.text_projection.shape == (768, 768)


# CLIP's text tower


@pytest.fixture(scope="module")
def text_encoder(tiny_clip) -> TextEncoder:
    return TextEncoder(tiny_clip).eval()


SENTENCES = [
    "a",
    "a photo of a metal_nut.",
    "a jpeg corrupted photo of the Schraube groß without damage.",
    "word " * 100,
    "",
]


@pytest.mark.parametrize("which", [*range(5), slice(0, 3), slice(0, 5)], ids=str)
def test_text_encoder(tiny_clip, text_encoder, which) -> None:
    texts = SENTENCES[which]
    tokens = open_clip.tokenizer.SimpleTokenizer(context_length=77)(texts)
    want = tiny_clip.encode_text(tokens, normalize=True)
    longest = int((tokens != 0).sum(dim=1).max())
    for length in {longest, (longest + 77) // 2, 77}:
        got = text_encoder(tokens[:, :length].int())
        assert got.shape == want.shape
        torch.testing.assert_close(got, want, rtol=0, atol=2e-6)
    torch.testing.assert_close(got.norm(dim=-1), torch.ones(len(want)))


def test_what_comes_after_the_end_changes_nothing(tiny_clip, text_encoder) -> None:
    tokens = open_clip.tokenizer.SimpleTokenizer(context_length=77)(SENTENCES[:3]).int()
    want = text_encoder(tokens)
    for row, line in enumerate(tokens):
        end = int(line.argmax())
        tokens[row, end + 1 :] = torch.randint(1, 49000, (76 - end,), dtype=torch.int32)
    torch.testing.assert_close(text_encoder(tokens), want, rtol=0, atol=2e-6)
    # and a second end-of-text token is not read out: argmax takes the first
    tokens[0, -1] = 49407
    torch.testing.assert_close(text_encoder(tokens), want, rtol=0, atol=2e-6)
    torch.testing.assert_close(
        tiny_clip.encode_text(tokens.long(), normalize=True), want, rtol=0, atol=2e-6
    )


def test_different_sentences_differ(text_encoder) -> None:
    tokens = open_clip.tokenizer.SimpleTokenizer(context_length=77)(SENTENCES[:3]).int()
    got = text_encoder(tokens)
    assert float((got @ got.T - torch.eye(3)).max()) < 0.999
