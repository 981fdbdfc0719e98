"""SDP and SDP+ against a plain implementation in NumPy, written from the paper's equations.

That both give what the public code gives is in `test_golden_outputs`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from zeroflaw_engines.errors import ExportError, WeightsError
from zeroflaw_export.models.adapters import LinearAdapters, load_adapters, save_adapters
from zeroflaw_export.models.architectures import clip_architecture
from zeroflaw_export.models.load import WeightsSource, load_linear_adapters
from zeroflaw_export.models.localizers.localizer import Localizer, Tower
from zeroflaw_export.models.localizers.sdp import (
    SDP,
    SDP_PLUS,
    SdpParameters,
    SdpPlusParameters,
)
from zeroflaw_export.models.random_weights import randomise_weights
from zeroflaw_export.parity.checks import parity_image

TINY = clip_architecture("tiny")
# Two blocks in each stage, so that a stage is a sum.
LONG = replace(
    TINY,
    config={**TINY.config, "vision_cfg": {**TINY.config["vision_cfg"], "layers": 8}},
    tapped_blocks=(2, 4, 6, 8),
    image_size=112,
)
PUBLISHED = "vit_b_16_plus_240"
RANDOM = WeightsSource("random", None, seed=5)
Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def clip() -> CLIP:
    built = LONG.build(112)
    randomise_weights(built, 31)
    return built


def tower(clip: CLIP, *, batched: bool = False) -> Tower:
    return Tower(clip=clip, architecture=LONG, image_size=112, weights=RANDOM, batched=batched)


def text() -> torch.Tensor:
    rows = torch.randn(2, 32, generator=torch.Generator().manual_seed(2))
    return functional.normalize(rows, dim=-1)


def array(parameter: torch.Tensor) -> Floats:
    return parameter.detach().double().numpy()


def softmax(scores: Floats) -> Floats:
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def unit(vectors: Floats) -> Floats:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def resized(grid: Floats, size: int, *, corners: bool) -> Floats:
    cells = torch.from_numpy(grid.reshape(1, 1, round(grid.size**0.5), -1))
    large = functional.interpolate(cells, (size, size), mode="bilinear", align_corners=corners)
    return large[0, 0].numpy()


@torch.inference_mode()
def plain_maps(
    clip: CLIP, image: NDArray[np.uint8], texts: Floats, adapters: LinearAdapters, tap: str
) -> tuple[Floats, Floats, float]:
    """Sum over the stages of SDP's similarity and of the layers' P(abnormal), and the score.

    The original path is open_clip's own, seen through hooks on attention and blocks.
    """
    visual, blocks = clip.visual, clip.visual.transformer.resblocks
    seen: dict[tuple[str, int], Floats] = {}
    hooks = []
    for number, block in enumerate(blocks):
        hooks.append(
            block.register_forward_hook(
                lambda _m, inputs, out, n=number: seen.update(
                    {("in", n): array(inputs[0][0]), ("out", n): array(out[0])}
                )
            )
        )
        hooks.append(
            block.ln_1.register_forward_hook(
                lambda _m, _i, out, n=number: seen.update({("normed", n): array(out[0])})
            )
        )
        hooks.append(
            block.attn.register_forward_hook(
                lambda _m, _i, out, n=number: seen.update({("attention", n): array(out[0][0])})
            )
        )
    mean, std = torch.tensor(visual.image_mean or [0.0]), torch.tensor(visual.image_std or [1.0])
    assert len(mean) == len(std) == 3
    visual(((torch.from_numpy(image.copy()).float() / 255 - mean) / std).permute(2, 0, 1)[None])
    for hook in hooks:
        hook.remove()

    def values_with_values(number: int) -> Floats:
        attention = blocks[number].attn
        weight, bias = array(attention.in_proj_weight)[128:], array(attention.in_proj_bias)[128:]
        heads = np.split(seen["normed", number] @ weight.T + bias, 4, axis=1)
        mixed = [softmax(head @ head.T / 16**0.5) @ head for head in heads]
        out = attention.out_proj
        return np.concatenate(mixed, axis=1) @ array(out.weight).T + array(out.bias)

    def shared(tokens: Floats) -> Floats:
        centred = tokens - tokens.mean(axis=1, keepdims=True)
        normed = centred / np.sqrt(tokens.var(axis=1, keepdims=True) + 1e-5)
        normed = normed * array(visual.ln_post.weight) + array(visual.ln_post.bias)
        return unit(normed @ array(visual.proj))

    similarity, learned = np.zeros((112, 112)), np.zeros((112, 112))
    score = 0.0
    for stage, last in enumerate((1, 3, 5, 7)):
        original = seen["out", last]
        if tap == "next_attention" and last < 7:
            original = seen["in", last + 1] + seen["attention", last + 1]
        second = values_with_values(last - 1) + values_with_values(last)
        second[0] = original[0]
        tokens = shared(second)
        cosines = tokens @ texts.T
        weights = softmax(cosines[0])
        weights /= weights.mean()
        weighed = cosines[1:] * weights
        similarity += resized((weighed[:, 1] - weighed.mean(axis=1)), 112, corners=False)
        layer = adapters.fc[stage]
        own = 100 * unit(original[1:] @ array(layer.weight).T + array(layer.bias)) @ texts.T
        two = np.stack([resized(own[:, side], 112, corners=True) for side in (0, 1)], axis=-1)
        learned += softmax(two)[..., 1]
        score = softmax(100 * cosines[0])[1]
    return similarity, learned, score


@pytest.mark.parametrize("tap", ["next_attention", "block"])
@torch.inference_mode()
def test_the_maps_are_those_of_the_equations(clip: CLIP, tap: str) -> None:
    clip.visual.image_mean = (0.48145466, 0.4578275, 0.40821073)
    clip.visual.image_std = (0.26862954, 0.26130258, 0.27577711)
    image, texts = parity_image("real", 112, 112), text()
    adapters = load_linear_adapters(LONG, RANDOM)
    similarity, learned, score = plain_maps(clip, image, array(texts), adapters, tap)
    given = (torch.from_numpy(image.copy())[None], texts)

    sdp = SDP.build(tower(clip), SdpParameters(stream_tap=tap, map_scale=20.0))
    smooth = gaussian_filter(similarity, sigma=8) / 4
    want = 1 / (1 + np.exp(-2 * 20 * smooth))
    assert np.ptp(want) > 0.02
    got_map, got_score, _ = sdp.encoder(*given)
    np.testing.assert_allclose(got_map[0], want, atol=1e-5)
    np.testing.assert_allclose(got_score, [score], atol=1e-5)

    plus = SDP_PLUS.build(tower(clip), SdpPlusParameters(stream_tap=tap, similarity_weight=0.5))
    want = np.clip(gaussian_filter(learned + 0.5 * similarity, sigma=8) / 4, 0, 1)
    assert np.ptp(want) > 0.02
    got_map, got_score, _ = plus.encoder(*given)
    np.testing.assert_allclose(got_map[0], want, atol=1e-5)
    np.testing.assert_allclose(got_score, [score], atol=1e-5)


@pytest.mark.parametrize("method", [SDP, SDP_PLUS], ids=lambda method: method.name)
@torch.inference_mode()
def test_the_references_and_several_images(clip: CLIP, method: Localizer) -> None:
    parameters = method.parameters_from({})
    built = method.build(tower(clip), parameters)
    together = method.build(tower(clip, batched=True), parameters).encoder
    images = np.stack([parity_image(kind, 112, 112) for kind in ("real", "noise")])
    texts = text()
    maps, scores, tokens = together(torch.from_numpy(images), texts)
    for index, image in enumerate(images):
        want_map, want_score, want_tokens = built.reference(image, texts.numpy())
        alone = built.encoder(torch.from_numpy(image)[None], texts)
        for got in (maps[index], alone[0][0]):
            np.testing.assert_allclose(got, want_map, atol=1e-5)
        np.testing.assert_allclose([scores[index], alone[1][0]], [want_score] * 2, atol=1e-5)
        for got in (tokens[index], alone[2]):
            np.testing.assert_allclose(got, want_tokens, atol=1e-5)


def test_the_layout_of_the_public_linear_layers_is_read(tmp_path: Path) -> None:
    drawn = load_linear_adapters(TINY, RANDOM)
    torch.save({"linear_layers": drawn.state_dict()}, tmp_path / "sdp_plus.pth")
    save_adapters(drawn, tmp_path / "april_gan.pth")
    for name in ("sdp_plus.pth", "april_gan.pth"):
        read = LinearAdapters(4, 64, 32)
        load_adapters(read, tmp_path / name)
        assert torch.equal(read.fc[3].weight, drawn.fc[3].weight)
    torch.save({"prompt_learner": drawn.state_dict()}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="prompt_learner"):
        load_adapters(LinearAdapters(4, 64, 32), tmp_path / "other.pth")


def test_towers_that_stages_cannot_be_built_on_are_refused() -> None:
    for architecture in (TINY, LONG, *map(clip_architecture, ("vit_l_14_336", PUBLISHED))):
        SDP.check(architecture, architecture.image_size, SdpParameters())
    with pytest.raises(ExportError, match="no attention"):
        SDP_PLUS.check(clip_architecture("mini"), 448, SdpPlusParameters())
    for blocks in ((1, 2, 3, 8), (3, 6), (2, 4, 6)):
        with pytest.raises(ExportError, match="equal stages"):
            SDP.check(replace(LONG, tapped_blocks=blocks), 112, SdpParameters())


@pytest.mark.parametrize(
    ("method", "values"),
    [
        (SDP, {"sigma": 65}), (SDP, {"map_scale": 0}), (SDP, {"similarity_weight": 1}),
        (SDP, {"stream_tap": "middle"}), (SDP_PLUS, {"similarity_weight": -1}),
        (SDP_PLUS, {"sigma": -1}), (SDP_PLUS, {"map_scale": 100}),
    ],
    ids=lambda value: value.name if isinstance(value, Localizer) else str(value),
)  # fmt: skip
def test_parameters_of_the_other_are_refused(method: Localizer, values: dict[str, object]) -> None:
    with pytest.raises(ExportError):
        method.parameters_from(values)
