"""CLIP's image and text tower as export modules, against open_clip itself."""

from __future__ import annotations

import math

import open_clip
import pytest
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import nn
from torch.nn import functional

from zeroflaw_export.models.adapters import LinearAdapters
from zeroflaw_export.models.architectures import clip_architecture
from zeroflaw_export.models.clip_encoder import ClipEncoder, bilinear_matrix
from zeroflaw_export.models.random_weights import randomise_weights
from zeroflaw_export.models.text_encoder import TextEncoder


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.inference_mode():
        yield


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
    tokens = torch.cat([functional.normalize(seen[block][:, 1:], dim=-1) for block in blocks])
    return sum(maps) / len(maps), (100.0 * cls @ text.T).softmax(dim=-1)[:, 1], tokens


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
    got_map, got_score, got_tokens = encoder(image, unit_rows(seed))
    want_map, want_score, want_tokens = april_gan(clip, adapters, blocks, image, unit_rows(seed))
    torch.testing.assert_close(got_tokens, want_tokens, rtol=0, atol=1e-5)
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
