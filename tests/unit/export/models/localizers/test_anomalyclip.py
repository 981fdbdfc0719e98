"""AnomalyCLIP: the import of its prompts, and the map against the order of its source.

That both give what the public code gives is in `test_golden_outputs`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip import tokenize
from open_clip.model import CLIP
from torch.nn import functional

from zeroflaw_engines.bundle.prompt_bank import no_text_embeddings
from zeroflaw_engines.errors import ExportError, WeightsError
from zeroflaw_export.export import localizer_identity
from zeroflaw_export.models.adapters import LinearAdapters, save_adapters
from zeroflaw_export.models.architectures import clip_architecture
from zeroflaw_export.models.load import WeightsSource
from zeroflaw_export.models.localizers.anomalyclip import ANOMALYCLIP, AnomalyClipParameters
from zeroflaw_export.models.localizers.anomalyclip_prompts import (
    STATES,
    PromptShape,
    load_prompts,
    prompt_embeddings,
)
from zeroflaw_export.models.localizers.localizer import Tower
from zeroflaw_export.parity.checks import parity_image

TINY = clip_architecture("tiny")
RANDOM = WeightsSource("random", None, seed=5)
SHAPE = PromptShape(context=12, depth=9, deep_tokens=4, width=32)


def tower(clip: CLIP, *, weights: WeightsSource = RANDOM, batched: bool = False) -> Tower:
    return Tower(clip=clip, architecture=TINY, image_size=224, weights=weights, batched=batched)


def published(path: Path, **changes: torch.Tensor | None) -> WeightsSource:
    """A checkpoint with everything that the class of the source stores; None leaves one out."""
    state: dict[str, torch.Tensor | None] = dict(load_prompts(RANDOM, SHAPE))
    for block in range(8):
        state[f"compound_prompt_projections.{block}.weight"] = torch.ones(896, 32)
        state[f"compound_prompt_projections.{block}.bias"] = torch.ones(896)
    for side in ("pos", "neg"):
        state[f"token_prefix_{side}"] = torch.ones(1, 1, 1, 32)
        state[f"token_suffix_{side}"] = torch.ones(1, 1, 64, 32)
        state[f"tokenized_prompts_{side}"] = torch.ones(1, 1, 77, dtype=torch.int32)
    kept = {name: value for name, value in (state | changes).items() if value is not None}
    torch.save({"prompt_learner": kept}, path)
    return WeightsSource(path.name, path)


@pytest.mark.parametrize(
    "parameters",
    [
        AnomalyClipParameters(),
        AnomalyClipParameters(features_list=(1, 2, 3, 4), value_blocks=2),
        AnomalyClipParameters(features_list=(2, -1), value_blocks=3, sigma=0, temperature=0.01),
    ],
)
@torch.inference_mode()
def test_the_encoder_gives_what_its_reference_gives(
    tiny_clip: CLIP, parameters: AnomalyClipParameters
) -> None:
    built = ANOMALYCLIP.build(tower(tiny_clip), parameters)
    image = parity_image("real", 224, 224)
    got_map, got_score, got_tokens = built.encoder(torch.from_numpy(image.copy())[None])
    want_map, want_score, want_tokens = built.reference(image, no_text_embeddings())
    assert got_map.shape == (1, 224, 224)
    assert np.ptp(want_map) > 1e-2
    np.testing.assert_allclose(got_map[0], want_map, atol=1e-5)
    np.testing.assert_allclose(got_score, [want_score], atol=1e-6)
    np.testing.assert_allclose(got_tokens, want_tokens, atol=1e-5)


@torch.inference_mode()
def test_every_value_changes_the_map(tiny_clip: CLIP) -> None:
    image = torch.from_numpy(parity_image("real", 224, 224).copy())[None]
    default = AnomalyClipParameters()
    first, *_ = ANOMALYCLIP.build(tower(tiny_clip), default).encoder(image)
    for change in (
        {"features_list": (1, 4)}, {"value_blocks": 2}, {"sigma": 2.0}, {"temperature": 0.05},
        {"n_ctx": 10}, {"t_n_ctx": 3},
    ):  # fmt: skip
        other = ANOMALYCLIP.build(tower(tiny_clip), replace(default, **change)).encoder(image)[0]
        assert (other - first).abs().max() > 1e-5, change


@torch.inference_mode()
def test_several_images_give_what_each_gives(tiny_clip: CLIP) -> None:
    images = torch.from_numpy(
        np.stack([parity_image("real", 224, 224), parity_image("noise", 224, 224)])
    )
    parameters = AnomalyClipParameters()
    together = ANOMALYCLIP.build(tower(tiny_clip, batched=True), parameters).encoder(images)
    single = ANOMALYCLIP.build(tower(tiny_clip), parameters).encoder
    for index, image in enumerate(images):
        alone = single(image[None])
        torch.testing.assert_close(together[0][index], alone[0][0])
        torch.testing.assert_close(together[1][index], alone[1][0])
        torch.testing.assert_close(together[2][index], alone[2])


def test_the_embeddings_of_plain_words_are_clips(tiny_clip: CLIP) -> None:
    """Words for the context and no deep tokens: what is left is CLIP's own sentence."""
    words = " ".join(["X"] * 12)
    sentences = tokenize([f"{words} {state}" for state in STATES])
    context = tiny_clip.token_embedding(sentences[:1, 1:13]).detach()[None]
    with torch.no_grad():
        want = functional.normalize(tiny_clip.encode_text(sentences), dim=-1)
    got = prompt_embeddings(tiny_clip, {"ctx_pos": context, "ctx_neg": context})
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


def test_a_published_checkpoint_is_read(tiny_clip: CLIP, tmp_path: Path) -> None:
    """The projections and buffers beside the prompts change nothing."""
    drawn = load_prompts(RANDOM, SHAPE)
    read = load_prompts(published(tmp_path / "epoch_15.pth"), SHAPE)
    assert list(read) == list(drawn)
    for name, value in drawn.items():
        assert torch.equal(read[name], value)
    deep = prompt_embeddings(tiny_clip, {**read, "compound_prompts_text.0": torch.ones(4, 32)})
    assert not torch.allclose(deep, prompt_embeddings(tiny_clip, read), atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"ctx_neg": None}, "ctx_neg"),
        ({"compound_prompts_text.7": None}, "compound_prompts_text.7"),
        ({"compound_prompts_text.8": torch.ones(4, 32)}, "compound_prompts_text.8"),
        ({"cross_attn.weight": torch.ones(1)}, "cross_attn.weight"),
        ({"ctx_pos": torch.ones(1, 1, 16, 32)}, "[1, 1, 16, 32]"),
        ({"compound_prompts_text.3": torch.ones(4, 33)}, "[4, 33]"),
        ({"ctx_pos": torch.full((1, 1, 12, 32), torch.nan)}, "not finite"),
    ],
)
def test_another_checkpoint_is_refused_by_name(
    tmp_path: Path, changes: dict[str, torch.Tensor | None], named: str
) -> None:
    source = published(tmp_path / "other.pth", **changes)
    with pytest.raises(WeightsError) as caught:
        load_prompts(source, SHAPE)
    assert named in caught.value.cause
    assert "other.pth" in caught.value.cause


def test_a_checkpoint_of_another_method_is_refused(tiny_clip: CLIP, tmp_path: Path) -> None:
    save_adapters(LinearAdapters(4, 64, 32), tmp_path / "april_gan.pth")
    weights = WeightsSource("april_gan.pth", tmp_path / "april_gan.pth")
    with pytest.raises(WeightsError, match="trainable_linearlayer"):
        ANOMALYCLIP.build(tower(tiny_clip, weights=weights), AnomalyClipParameters())


def test_towers_that_it_cannot_be_built_on_are_refused() -> None:
    default = AnomalyClipParameters()
    ANOMALYCLIP.check(TINY, 224, default)
    with pytest.raises(ExportError, match="no attention"):
        ANOMALYCLIP.check(clip_architecture("mini"), 448, default)
    with pytest.raises(ExportError, match="no block 24"):
        ANOMALYCLIP.check(TINY, 224, replace(default, features_list=(24,)))
    with pytest.raises(ExportError, match="choose n_ctx up to 72"):
        ANOMALYCLIP.check(TINY, 224, replace(default, n_ctx=73))
    ANOMALYCLIP.check(TINY, 224, replace(default, n_ctx=72))


def test_values_of_a_command_line() -> None:
    given = ANOMALYCLIP.parameters_from({"features_list": "6, 12,18,24", "sigma": 2})
    assert given == AnomalyClipParameters(features_list=(6, 12, 18, 24), sigma=2.0)
    assert ANOMALYCLIP.parameters_from({"features_list": -1}) == AnomalyClipParameters()


@pytest.mark.parametrize(
    "values",
    [
        {"features_list": "6,0"}, {"features_list": ""}, {"features_list": "six"},
        {"value_blocks": 0}, {"depth": 0}, {"t_n_ctx": 13}, {"n_ctx": 0}, {"temperature": 0},
        {"temperature": 0.005},
        {"sigma": -1}, {"sigma": "wide"}, {"dpam": 20},
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ExportError):
        ANOMALYCLIP.parameters_from(values)


def test_the_manifest_has_what_was_not_given_as_well() -> None:
    identity = localizer_identity(ANOMALYCLIP, ANOMALYCLIP.parameters_from({"sigma": 3}))
    assert identity is not None
    assert identity.parameters == {
        "features_list": [-1], "value_blocks": 19, "n_ctx": 12, "depth": 9, "t_n_ctx": 4,
        "temperature": 0.07, "sigma": 3.0,
    }  # fmt: skip
