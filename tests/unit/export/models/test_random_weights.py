"""Random weights: reproducible, and no part of a network is left where a mistake would hide."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zeroflaw_engines.errors import WeightsError
from zeroflaw_export.models.architectures import clip_architecture, sam_architecture
from zeroflaw_export.models.load import WeightsSource, load_clip, load_linear_adapters, load_sam
from zeroflaw_export.models.random_weights import randomise_weights


def source(seed: int) -> WeightsSource:
    return WeightsSource(name="random", path=None, seed=seed)


def models(seed: int) -> dict[str, nn.Module]:
    clip = load_clip(clip_architecture("tiny"), 224, source(seed))
    return {
        "clip": clip,
        "adapters": load_linear_adapters(clip_architecture("tiny"), source(seed)),
        "sam": load_sam(sam_architecture("tiny"), source(seed)),
    }


@pytest.mark.parametrize("name", ["clip", "adapters", "sam"])
def test_the_same_seed_gives_the_same_model(name: str) -> None:
    torch.manual_seed(1)
    first = models(7)[name].state_dict()
    torch.manual_seed(2)
    second = models(7)[name].state_dict()
    assert first.keys() == second.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


@pytest.mark.parametrize("name", ["clip", "adapters", "sam"])
def test_another_seed_gives_another_model(name: str) -> None:
    first, second = models(7)[name].state_dict(), models(8)[name].state_dict()
    assert [key for key in first if torch.equal(first[key], second[key])] == []


def test_the_seed_does_not_touch_the_global_one() -> None:
    torch.manual_seed(5)
    want = torch.rand(3)
    module = nn.Linear(3, 4)
    torch.manual_seed(5)
    randomise_weights(module, 1)
    assert torch.equal(torch.rand(3), want)


def test_neither_file_nor_seed_is_refused() -> None:
    with pytest.raises(WeightsError, match="neither"):
        load_sam(sam_architecture("tiny"), WeightsSource(name="x", path=None))


def test_adapters_do_not_repeat_clips_numbers() -> None:
    made = models(7)
    clip = {round(float(value.flatten()[0]), 6) for value in made["clip"].state_dict().values()}
    for value in made["adapters"].state_dict().values():
        assert round(float(value.flatten()[0]), 6) not in clip


@pytest.fixture(scope="module", params=["tiny", "vit_b"])
def sam(request: pytest.FixtureRequest):
    built = sam_architecture(request.param).build()
    randomise_weights(built, 1)
    return built


def spread(value: torch.Tensor) -> float:
    return float(value.detach().float().std())


def test_every_parameter_of_sam_is_finite_and_alive(sam) -> None:
    for name, parameter in sam.named_parameters():
        assert torch.isfinite(parameter).all(), name
        assert (parameter == 0).float().mean() < 1e-4, name
        if parameter.numel() > 1:
            assert spread(parameter) > 1e-3, name


def test_sams_position_tables_are_away_from_zero(sam) -> None:
    encoder = sam.image_encoder
    tables = [encoder.pos_embed]
    for block in encoder.blocks:
        tables += [block.attn.rel_pos_h, block.attn.rel_pos_w]
    assert len(tables) > 4
    for table in tables:
        assert spread(table) == pytest.approx(0.2, rel=0.25)


def test_sams_tokens_and_embeddings_are_away_from_zero(sam) -> None:
    encoder, decoder = sam.prompt_encoder, sam.mask_decoder
    tables = [
        decoder.iou_token.weight,
        decoder.mask_tokens.weight,
        encoder.not_a_point_embed.weight,
        encoder.no_mask_embed.weight,
        *(table.weight for table in encoder.point_embeddings),
    ]
    for table in tables:
        assert spread(table) == pytest.approx(0.2, rel=0.5)
        assert (table.abs() > 0.01).float().mean() > 0.8


def norms(module: nn.Module) -> list[nn.Module]:
    return [
        part
        for part in module.modules()
        if "norm" in type(part).__name__.lower() and hasattr(part, "weight")
    ]


def test_no_norm_of_sam_is_the_identity(sam) -> None:
    found = norms(sam)
    assert {type(part).__name__ for part in found} == {"LayerNorm", "LayerNorm2d"}
    for norm in found:
        assert 0.02 < spread(norm.weight) < 0.3
        assert float(norm.weight.detach().mean()) == pytest.approx(1, abs=0.15)
        assert 0.02 < spread(norm.bias) < 0.3


def test_no_part_of_clip_is_idle() -> None:
    clip = load_clip(clip_architecture("tiny"), 224, source(1))
    for name, parameter in clip.named_parameters():
        assert torch.isfinite(parameter).all(), name
        assert (parameter == 0).sum() == 0, name
    for table in (clip.visual.positional_embedding, clip.positional_embedding):
        assert spread(table) == pytest.approx(0.2, rel=0.2)
    assert spread(clip.visual.class_embedding) == pytest.approx(0.2, rel=0.5)
    for norm in norms(clip):
        assert 0.02 < spread(norm.weight) < 0.3
        assert 0.02 < spread(norm.bias) < 0.3


def test_signals_keep_their_size_through_the_towers(tiny_clip, tiny_sam) -> None:
    """Neither vanishing nor exploding: a parity check needs figures of ordinary size."""
    with torch.inference_mode():
        features = tiny_sam.image_encoder(torch.randn(1, 3, 256, 256))
        embedding = tiny_clip.encode_image(torch.randn(1, 3, 224, 224))
    assert 0.05 < spread(features) < 20
    assert 0.05 < spread(embedding) < 50
