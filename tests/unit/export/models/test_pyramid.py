"""The pyramid towers, against timm's trunk, open_clip's calls and segment_anything's neck."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from segment_anything.modeling.image_encoder import ImageEncoderViT
from torch.nn import functional

from zeroflaw_export.models.adapters import LinearAdapters
from zeroflaw_export.models.architectures import clip_architecture, sam_architecture
from zeroflaw_export.models.clip_encoder import ClipEncoder
from zeroflaw_export.models.pyramid import (
    TRUNK_CHANNELS,
    TRUNK_STRIDES,
    Pyramid,
    PyramidTower,
    doubled,
    fold_batch_norms,
    joined_tokens,
    new_trunk,
)
from zeroflaw_export.models.random_weights import randomise_weights
from zeroflaw_export.models.reference_matcher import reference_sizes
from zeroflaw_export.models.sam_encoder import PyramidSamEncoder
from zeroflaw_export.parity.references import reference_clip, reference_sam_encoder


@pytest.fixture
def trunk():
    torch.manual_seed(0)
    trunk = new_trunk()
    for module in trunk.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    return trunk


@pytest.fixture
def pixels():
    return torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))


def test_folded_batch_norms_change_nothing(trunk, pixels):
    with torch.no_grad():
        want = trunk(pixels)
        fold_batch_norms(trunk)
        got = trunk(pixels)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in trunk.modules())
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4 * float(other.abs().max()), rtol=0)


def test_the_trunk_gives_the_stages_that_are_written_down(trunk, pixels):
    with torch.no_grad():
        stages = trunk(pixels)
    assert [tuple(stage.shape[1:]) for stage in stages] == [
        (channels, 96 // stride, 96 // stride)
        for channels, stride in zip(TRUNK_CHANNELS, TRUNK_STRIDES, strict=True)
    ]


def test_doubling_is_nearest_neighbour():
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(doubled(x), functional.interpolate(x, scale_factor=2, mode="nearest"))


def standardised(x, dim):
    spread = (x.var(dim=dim, keepdim=True, unbiased=False) + 0.05**2).sqrt()
    return (x - x.mean(dim=dim, keepdim=True)) / spread


def test_the_pyramid_sees_a_normed_stage_beside_its_deviation_from_the_picture():
    pyramid = Pyramid((4,), 8)
    randomise_weights(pyramid, 2)
    stage = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(3))
    seen = torch.cat([standardised(stage, 1), standardised(stage, (2, 3))], dim=1)
    with torch.no_grad():
        own = standardised(pyramid.lateral[0](seen), 1)
        (got,) = pyramid([stage])
        torch.testing.assert_close(got, own + pyramid.mix[0](own), atol=1e-5, rtol=1e-5)


def test_no_magnitude_of_the_trunk_passes_the_pyramid():
    pyramid = Pyramid((4, 6), 8)
    randomise_weights(pyramid, 2)
    generator = torch.Generator().manual_seed(3)
    stages = [100 * torch.randn(1, c, s, s, generator=generator) for c, s in ((4, 8), (6, 4))]
    with torch.no_grad():
        want = pyramid(stages)
        got = pyramid([300 * stage for stage in stages])
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
        assert 0.1 < other.abs().max() < 100


def test_an_even_picture_has_no_deviation():
    pyramid = Pyramid((4,), 8)
    even = torch.tensor([1.0, 2.0, 3.0, 6.0])[None, :, None, None].expand(1, 4, 6, 6)
    seen = torch.cat([standardised(even, 1), torch.zeros_like(even)], dim=1)
    with torch.no_grad():
        own = standardised(pyramid.lateral[0](seen), 1)
        (got,) = pyramid([even])
        torch.testing.assert_close(got, own + pyramid.mix[0](own), atol=1e-4, rtol=0)


def test_reference_tokens_average_neighbours_and_count_both_stages_alike():
    fine, coarse = torch.randn(1, 4, 4, 4), 100 * torch.randn(1, 6, 2, 2)
    tokens = joined_tokens(fine, coarse)
    assert tokens.shape == (1, 16, 10)
    corner = torch.cat([
        functional.normalize(fine[0, :, :2, :2].mean(dim=(1, 2)), dim=0),
        functional.normalize(coarse[0].mean(dim=(1, 2)), dim=0),
    ])  # fmt: skip
    torch.testing.assert_close(tokens[0, 0], corner, atol=1e-5, rtol=1e-5)
    inner = functional.normalize(fine[0, :, 1:4, 0:3].mean(dim=(1, 2)), dim=0)
    torch.testing.assert_close(tokens[0, 2 * 4 + 1, :4], inner, atol=1e-5, rtol=1e-5)


@pytest.fixture
def tower():
    architecture = clip_architecture("mini")
    clip = architecture.build(128)
    adapters = LinearAdapters(3, architecture.token_width, architecture.embedding_size).eval()
    randomise_weights(clip, 4)
    randomise_weights(adapters, 5)
    return clip, adapters


def test_the_tower_answers_as_open_clips_do(tower):
    clip, _ = tower
    image = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        seen = clip.visual.forward_intermediates(image, indices=[0, 2])
        assert [tuple(level.shape) for level in seen["image_intermediates"]] == [
            (1, 32 * 32, 64), (1, 8 * 8, 64),
        ]  # fmt: skip
        assert torch.equal(clip.encode_image(image), seen["image_features"])
    assert isinstance(clip.visual, PyramidTower)


def test_the_exported_map_upsamples_each_level_before_the_softmax(tower):
    clip, adapters = tower
    rng = np.random.default_rng(6)
    image = rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)
    embeddings = functional.normalize(torch.randn(2, 96), dim=-1)
    want = reference_clip(clip, adapters, (1, 2, 3), image, embeddings.numpy())
    with torch.no_grad():
        got = ClipEncoder(clip, adapters, (1, 2, 3), 128).eval()(
            torch.from_numpy(image)[None], embeddings
        )
    np.testing.assert_allclose(got[0][0].numpy(), want[0], atol=1e-4)
    assert float(got[1][0]) == pytest.approx(want[1], abs=1e-4)
    np.testing.assert_allclose(got[2].numpy(), want[2], atol=1e-5)
    assert want[0].std() > 0.01, "a map that says nothing would agree with any other"


def test_a_bank_of_a_pyramid_has_one_layer_of_the_finer_stages_grid(tower):
    clip, _ = tower
    sizes = reference_sizes(clip_architecture("mini"), 128, bank_bytes=2**20)
    assert (sizes.blocks, sizes.tokens, sizes.width) == (1, 16 * 16, 152)
    with torch.no_grad():
        seen = clip.visual.forward_intermediates(torch.randn(1, 3, 128, 128), indices=[0])
    assert seen["reference_tokens"].shape == (1, sizes.tokens, sizes.width)


def test_reference_tokens_are_those_of_the_trunk_before_it_was_fine_tuned(trunk, pixels):
    fold_batch_norms(trunk)
    tower = PyramidTower(64, 96).eval()
    tower.load_trunk(trunk)
    with torch.no_grad():
        stages = trunk(pixels)
        want = joined_tokens(stages[2], stages[3])
        for name, parameter in tower.trunk.named_parameters():
            if name.startswith(("blocks.2", "blocks.3", "blocks.4", "blocks.5", "blocks.6")):
                parameter.mul_(1.5)
        got = tower.forward_intermediates(pixels, indices=[0])["reference_tokens"]
        changed = tower.trunk(pixels)[3]
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(changed, stages[3], rtol=0.1)


@pytest.fixture
def sam():
    sam = sam_architecture("mini").build()
    randomise_weights(sam, 7)
    return sam


def test_sam_features_are_those_of_preprocess_and_encoder(sam):
    content = np.random.default_rng(8).integers(0, 256, (400, 512, 3), dtype=np.uint8)
    want = reference_sam_encoder(sam)(content)
    padded = np.full((1, 512, 512, 3), 255, np.uint8)
    padded[0, :400] = content
    with torch.no_grad():
        got = PyramidSamEncoder(sam).eval()(
            torch.from_numpy(padded), torch.tensor([400, 512], dtype=torch.int32)
        )
    assert got.shape == (1, 64, 64, 64)
    np.testing.assert_allclose(got.numpy(), want, atol=1e-4)
    assert want.std() > 0.1


def test_the_neck_is_segment_anythings(sam):
    theirs = ImageEncoderViT(img_size=64, embed_dim=sam.image_encoder.neck[0].in_channels,
                             depth=1, num_heads=1, out_chans=64).neck  # fmt: skip
    theirs.load_state_dict(sam.image_encoder.neck.state_dict())
    x = torch.randn(1, sam.image_encoder.neck[0].in_channels, 8, 8)
    with torch.no_grad():
        assert torch.equal(sam.image_encoder.neck(x), theirs(x))
