"""VisualAD's map and score, against a plain second writing of its equations."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from open_clip.model import CLIP
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from zeroflaw_engines.bundle.prompt_bank import no_text_embeddings
from zeroflaw_engines.errors import ExportError
from zeroflaw_export.models.architectures import clip_architecture
from zeroflaw_export.models.load import WeightsSource, load_clip
from zeroflaw_export.models.localizers.localizer import BuiltLocalizer, Tower
from zeroflaw_export.models.localizers.registry import localizer
from zeroflaw_export.models.localizers.visualad.parts import VisualAdParts
from zeroflaw_export.parity.checks import MAP_TOLERANCE, parity_image

SIZE = 112
TINY = clip_architecture("tiny")
SOURCE = WeightsSource("random", None, 7)


@cache
def tower(size: int = SIZE, *, batched: bool = False) -> Tower:
    clip = load_clip(TINY, size, SOURCE, quick_gelu=True, positions="bilinear")
    return Tower(clip=clip, architecture=TINY, image_size=size, weights=SOURCE, batched=batched)


def build(*, batched: bool = False, **parameters) -> BuiltLocalizer:
    method = localizer("visualad")
    return method.build(tower(batched=batched), method.parameters_from(parameters))


def image(kind: str = "real", size: int = SIZE) -> np.ndarray:
    return parity_image(kind, size, size).copy()


@torch.inference_mode()
def run(built: BuiltLocalizer, frame: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    found, score, tokens = built.encoder(torch.from_numpy(frame)[None])
    return found[0].numpy(), float(score), tokens.numpy()


@torch.inference_mode()
def plain_sum(clip: CLIP, parts: VisualAdParts, frame: np.ndarray) -> np.ndarray:
    """algorithm.md 2.8 and the equations of docs/method.md, one patch and one anchor at a time."""
    visual = clip.visual
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    pixels = ((torch.from_numpy(frame) / 255 - mean) / std).permute(2, 0, 1)[None].float()
    patches = visual.conv1(pixels).flatten(2)[0].T
    cls = visual.class_embedding + visual.positional_embedding[0]
    shift = cls - visual.class_embedding
    first = torch.stack([parts.anomaly_token + shift, parts.normal_token + shift, cls])
    stream = visual.ln_pre(torch.cat([first, patches + visual.positional_embedding[1:]]))[None]
    taps = []
    for block in visual.transformer.resblocks:
        inner = block.ln_1(stream)
        stream = stream + block.attn(inner, inner, inner, need_weights=False)[0]
        hidden = block.mlp.c_fc(block.ln_2(stream))
        stream = stream + block.mlp.c_proj(hidden * torch.sigmoid(1.702 * hidden))
        taps.append(stream[0])
    two = parts.ln_post(stream[0, :2])
    total = np.zeros((len(frame), len(frame)))
    for tap, sca, saf in zip(taps, parts.attentions, parts.alignments, strict=True):
        seen = parts.ln_post(tap[3:])
        width, places = seen.shape[1], sca.positions[0, : len(seen)]
        keys = functional.layer_norm(
            (seen + places) @ sca.key.weight.T, (width,), sca.key_norm.weight, sca.key_norm.bias
        )
        enhanced = []
        for token in two:
            gathered = torch.zeros(width)
            for number, anchor in enumerate(sca.anchors):
                query = functional.layer_norm(
                    anchor @ sca.query.weight.T, (width,), sca.query_norm.weight,
                    sca.query_norm.bias,
                )  # fmt: skip
                shares = (keys @ query / math.sqrt(width)).softmax(0)
                gate = torch.sigmoid(token @ sca.gate.weight[number] + sca.gate.bias[number])
                gathered = gathered + gate * (shares @ (seen @ sca.value.weight.T))
            enhanced.append(token + sca.residual_scale * sca.output(gathered))
        hidden = saf.inner(seen)
        gelu = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
        aligned = functional.normalize(saf.outer(gelu), dim=-1)
        cosines = aligned @ functional.normalize(torch.stack(enhanced), dim=-1).T
        side = math.isqrt(len(seen))
        grid = (cosines[:, 0] - cosines[:, 1]).reshape(1, 1, side, side).double()
        size = (len(frame), len(frame))
        total += functional.interpolate(grid, size, mode="bilinear")[0, 0].numpy()
    return gaussian_filter(total, 4)


@pytest.mark.parametrize("kind", ["real", "noise"])
def test_the_map_is_that_of_the_equations(kind: str) -> None:
    built, frame = build(), image(kind)
    total = plain_sum(tower().clip, built.encoder.parts, frame)
    found, score, _ = run(built, frame)
    assert np.ptp(found) > 0.01
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-total)), atol=1e-5)
    top = np.sort(total.ravel())[-math.ceil(SIZE * SIZE / 100) :].mean()
    assert score == pytest.approx(1 / (1 + np.exp(-top)), abs=1e-5)


@pytest.mark.parametrize(
    "parameters",
    [{}, {"sigma": 0, "top_share": 1}, {"mapping": "affine"}, {"logistic_scale": 3, "sigma": 1.5},
     {"ln_post": "checkpoint"}],
)  # fmt: skip
def test_the_reference_of_the_parity_check_computes_the_same(parameters: dict) -> None:
    built = build(**parameters)
    found, score, tokens = run(built, image())
    want, want_score, want_tokens = built.reference(image(), no_text_embeddings())
    np.testing.assert_allclose(found, want, atol=1e-5)
    assert score == pytest.approx(want_score, abs=1e-5)
    np.testing.assert_allclose(tokens, want_tokens, atol=1e-5)


@torch.inference_mode()
def test_every_part_shows_in_the_map() -> None:
    """What a comparison cannot see in random weights, an export could leave out."""
    encoder, frame = build().encoder, torch.from_numpy(image())[None]
    before = encoder.differences(frame)[0]
    state = {name: value.clone() for name, value in encoder.parts.state_dict().items()}
    for name, value in state.items():
        # Scores of one anchor that all move by the same leave its softmax as it is; whose ln_post
        # it is, the next test shows.
        if name.startswith("ln_post") or name.endswith("key_norm.bias"):
            continue
        encoder.parts.get_parameter(name).copy_(value.flip(0).roll(1, -1) * 1.1)
        after = encoder.differences(frame)[0]
        encoder.parts.get_parameter(name).copy_(value)
        assert (after - before).abs().max() > MAP_TOLERANCE, name


def test_whose_ln_post_shows_in_the_map() -> None:
    clips, own = run(build(), image())[0], run(build(ln_post="checkpoint"), image())[0]
    assert np.abs(clips - own).max() > 1e-3


def test_the_two_mappings_order_alike_and_have_the_same_middle() -> None:
    maps = {name: run(build(mapping=name), image("noise"))[0] for name in ("logistic", "affine")}
    total = np.log(maps["logistic"] / (1 - maps["logistic"]))
    np.testing.assert_allclose(maps["affine"], total / 16 + 0.5, atol=1e-6)
    parameters = localizer("visualad").parameters()
    for value, want in ((0.0, 0.5), (8.0, 1.0), (-8.0, 0.0)):
        assert float(parameters.mapped(torch.tensor(value), 4)) == pytest.approx(want, abs=1e-3)
    affine = localizer("visualad").parameters_from({"mapping": "affine"})
    ends = affine.mapped(torch.tensor([-8.0, 0.0, 8.0]), 4)
    assert ends.tolist() == [0.0, 0.5, 1.0]


def test_several_images_in_one_call_are_those_one_by_one() -> None:
    built, one = build(batched=True), build()
    frames = [image("real"), image("noise"), image("real")[::-1].copy()]
    with torch.inference_mode():
        found, scores, tokens = built.encoder(torch.from_numpy(np.stack(frames)))
    for number, frame in enumerate(frames):
        want = run(one, frame)
        np.testing.assert_allclose(found[number], want[0], atol=1e-6)
        assert float(scores[number]) == pytest.approx(want[1], abs=1e-6)
        np.testing.assert_allclose(tokens[number], want[2], atol=1e-6)


def test_patch_tokens_are_the_residual_stream_of_the_image() -> None:
    """One hook a block, on open_clip's own; the two tokens and CLS are the first three."""
    built, seen = build(), []
    hooks = [
        block.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        for block in built.encoder.visual.transformer.resblocks
    ]
    tokens = run(built, image())[2]
    for hook in hooks:
        hook.remove()
    assert tokens.shape == (4, 64, 64)
    for block, row in zip(seen, tokens, strict=True):
        np.testing.assert_allclose(row, functional.normalize(block[0, 3:], dim=-1), atol=1e-6)


@pytest.mark.parametrize(
    ("architecture", "size", "parameters", "text"),
    [
        ("mini", 448, {}, "mini has none"),
        ("vit_l_14_336", 560, {}, "1600 patches"),
        ("tiny", 224, {"mapping": "affine", "logistic_scale": 2}, "logistic_scale"),
    ],
)
def test_what_visualad_cannot_take(
    architecture: str, size: int, parameters: dict, text: str
) -> None:
    method = localizer("visualad")
    with pytest.raises(ExportError, match=text):
        method.check(clip_architecture(architecture), size, method.parameters_from(parameters))


def test_the_largest_size_is_taken() -> None:
    method = localizer("visualad")
    method.check(clip_architecture("vit_l_14_336"), 546, method.parameters())


@pytest.mark.parametrize(
    "values",
    [{"top_share": 0}, {"top_share": 1.1}, {"sigma": -1}, {"mapping": "min_max"},
     {"logistic_scale": 0}, {"logistic_scale": 11}, {"n_ctx": 12}],
)  # fmt: skip
def test_parameters_that_are_not_acceptable(values: dict) -> None:
    with pytest.raises(ExportError):
        localizer("visualad").parameters_from(values)


def test_the_surest_good_frame_has_a_score_above_0() -> None:
    """The runtime refuses a score of 0 as that of a dead engine."""
    steepest = localizer("visualad").parameters_from({"logistic_scale": 10})
    least = torch.tensor(-2.0 * 4)
    assert float(steepest.mapped(least, 4)) > 0
