"""UMCI against a second implementation, written from the paper's equations with loops."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from zeroflaw_engines.errors import ExportError, WeightsError
from zeroflaw_export.models.architectures import clip_architecture
from zeroflaw_export.models.load import WeightsSource, load_clip
from zeroflaw_export.models.localizers.clipsam import (
    build,
    load_stages,
    new_stages,
    save_stages,
)
from zeroflaw_export.models.localizers.localizer import Tower
from zeroflaw_export.models.localizers.registry import localizer
from zeroflaw_export.models.localizers.umci import ClipSamParameters, Umci
from zeroflaw_export.models.random_weights import randomise_weights

SMALL = ClipSamParameters(hidden_channels=5, pool_sizes=(2, 3), head_channels=4)
READINGS = {
    "defaults": SMALL,
    "partial": replace(SMALL, pool_border="partial"),
    "stacked": replace(SMALL, strip_attention="stacked"),
    "text_kernel": replace(SMALL, text_kernel=3),
    "half_pixels": replace(SMALL, align_corners=False),
}


def convolved(x, weight, bias):
    """Correlate planes [C, H, W] with a kernel [D, C, h, w], zeros around them."""
    (height, width), (kh, kw) = x.shape[1:], weight.shape[2:]
    out = np.zeros((len(weight), height, width))
    for d in range(len(weight)):
        for y in range(height):
            for u in range(width):
                total = bias[d]
                for i in range(kh):
                    for j in range(kw):
                        row, column = y + i - kh // 2, u + j - kw // 2
                        if 0 <= row < height and 0 <= column < width:
                            total += weight[d, :, i, j] @ x[:, row, column]
                out[d, y, u] = total
    return out


def pooled(x, rows, columns, partial):
    """Average cells of rows x columns places of planes [C, H, W]."""
    _, height, width = x.shape
    count = math.ceil if partial else math.floor
    out = np.zeros((len(x), count(height / rows), count(width / columns)))
    for y in range(out.shape[1]):
        for u in range(out.shape[2]):
            cell = x[:, y * rows : (y + 1) * rows, u * columns : (u + 1) * columns]
            out[:, y, u] = cell.reshape(len(x), -1).mean(axis=1)
    return out


def bilinear(x, side, align_corners):
    """Interpolate planes [C, H, W] to side x side."""
    out = np.zeros((len(x), side, side))
    for y in range(side):
        for u in range(side):
            for row, share in corners(y, x.shape[1], side, align_corners):
                for column, other in corners(u, x.shape[2], side, align_corners):
                    out[:, y, u] += share * other * x[:, row, column]
    return out


def corners(place, source, target, align_corners):
    if align_corners:
        at = place * (source - 1) / (target - 1)
    else:
        at = max(0.0, (place + 0.5) * source / target - 0.5)
    low = min(int(at), source - 1)
    return (low, 1 - (at - low)), (min(low + 1, source - 1), at - low)


def attention(queries, keys, values):
    """Scaled dot-product attention of [N, c] on [M, c]."""
    out = np.zeros((len(queries), values.shape[1]))
    for n, query in enumerate(queries):
        weights = [math.exp(query @ key / math.sqrt(len(key))) for key in keys]
        for weight, value in zip(weights, values, strict=True):
            out[n] += weight / sum(weights) * value
    return out


def second_umci(weights, tokens, text, grid, p):
    """Equations 1 to 6: tokens [L, C], text [2, C_t] -> logits [L, 2]."""
    projected = (tokens @ weights["project.weight"].T + weights["project.bias"]).T
    projected = projected.reshape(-1, grid, grid)

    def convolution(name, x):
        return convolved(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def of_text(name):
        weight = weights[f"{name}.weight"][:, :, None]
        return convolved(text.T[:, None], weight, weights[f"{name}.bias"])[:, 0].T

    def strip(name, cells, lengthwise):
        kernel = weights[f"{name}.visual.weight"]
        kernel = kernel[:, :, :, None] if lengthwise else kernel[:, :, None]
        seen = convolved(cells, kernel, weights[f"{name}.visual.bias"])
        places = seen.reshape(len(seen), -1).T
        first, second = of_text(f"{name}.text_1"), of_text(f"{name}.text_2")
        if p.strip_attention == "stacked":
            out = attention(attention(places, first, first), second, second)
        else:
            out = attention(places, second, attention(first, places, places))
        return bilinear(out.T.reshape(seen.shape), grid, p.align_corners)

    rows = strip("row", pooled(projected, 1, grid, partial=False), lengthwise=True)
    columns = strip("column", pooled(projected, grid, 1, partial=False), lengthwise=False)
    strips = convolution("strip", rows + columns)
    scales = 0
    for i, size in enumerate(p.pool_sizes):
        cells = pooled(projected, size, size, p.pool_border == "partial")
        seen = convolution(f"scales.{i}.visual", cells)
        keys, values = of_text(f"scales.{i}.key"), of_text(f"scales.{i}.value")
        out = attention(seen.reshape(len(seen), -1).T, keys, values)
        scales = scales + bilinear(out.T.reshape(seen.shape), grid, p.align_corners)
    paths = [convolution("original", projected), strips, convolution("scale", scales)]
    fused = np.maximum(convolution("fusion", np.concatenate(paths)) + projected, 0)
    places = fused.reshape(len(fused), -1).T
    hidden = np.maximum(places @ weights["head.0.weight"].T + weights["head.0.bias"], 0)
    return hidden @ weights["head.2.weight"].T + weights["head.2.bias"]


def in_float64(module):
    return {name: value.double().numpy() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("reading", READINGS)
def test_umci_equals_its_equations(reading):
    parameters, grid = READINGS[reading], 8
    module = Umci(6, 7, grid, parameters).eval()
    randomise_weights(module, 4)
    torch.manual_seed(5)
    tokens, text = torch.randn(2, grid**2, 6), torch.randn(1, 2, 7)
    with torch.inference_mode():
        got = module(tokens, text)
    for i in range(2):
        want = second_umci(
            in_float64(module), tokens[i].double().numpy(), text[0].double().numpy(), grid,
            parameters,
        )  # fmt: skip
        assert want.std(axis=0).min() > 0.05  # both logits vary over the places
        np.testing.assert_allclose(got[i], want, atol=2e-5)


def test_texts_of_a_batch_go_to_their_own_images():
    module = Umci(6, 7, 9, SMALL).eval()
    randomise_weights(module, 4)
    torch.manual_seed(6)
    tokens, texts = torch.randn(2, 81, 6), torch.randn(2, 2, 7)
    with torch.inference_mode():
        together = module(tokens, texts)
        alone = torch.cat([module(tokens[i : i + 1], texts[i : i + 1]) for i in range(2)])
        exchanged = module(tokens, texts.flip(0))
    assert torch.allclose(together, alone, atol=1e-5)
    assert (together - exchanged).abs().max() > 1e-2


@pytest.mark.parametrize("combination", ["probabilities", "logits"])
@pytest.mark.parametrize("name", ["tiny", "mini"])
def test_the_map_is_the_mean_of_the_stages(name, combination):
    architecture, size = clip_architecture(name), 224 if name == "tiny" else 320
    source = WeightsSource(name="random", path=None, seed=3)
    clip = load_clip(architecture, size, source)
    parameters = replace(SMALL, combination=combination)
    built = build(
        Tower(clip=clip, architecture=architecture, image_size=size, weights=source, batched=True),
        parameters,
    )
    images = np.random.default_rng(1).integers(0, 256, (2, size, size, 3), np.uint8)
    text = torch.nn.functional.normalize(torch.randn(2, architecture.embedding_size), dim=-1)
    with torch.inference_mode():
        maps, scores, tokens = built.encoder(torch.from_numpy(images), text)
    for i in range(2):
        anomaly_map, score, unit = built.reference(images[i], text.numpy())
        assert anomaly_map.std() > 0.01
        np.testing.assert_allclose(maps[i], anomaly_map, atol=1e-5)
        assert scores[i] == pytest.approx(score, abs=1e-5)
        np.testing.assert_allclose(tokens[i], unit, atol=1e-5)


def stages_of(parameters):
    architecture = clip_architecture("tiny")
    return new_stages(architecture.build(224), architecture, 224, parameters)


def test_weights_come_back_as_they_were(tmp_path):
    stages, again = stages_of(SMALL), stages_of(SMALL)
    randomise_weights(stages, 1)
    path = tmp_path / "umci.safetensors"
    save_stages(stages, path)
    load_stages(again, WeightsSource(name="w", path=path))
    for name, value in stages.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


@pytest.mark.parametrize(
    ("trained", "said"),
    [
        ({"hidden_channels": 6}, "hidden_channels=6"),
        ({"pool_sizes": (2, 4)}, "pool_sizes=2,4"),
        ({"strip_attention": "stacked"}, "strip_attention=stacked"),
        ({"align_corners": False}, "align_corners=false"),
    ],
)
def test_weights_of_other_parameters_are_refused_by_name(tmp_path, trained, said):
    path = tmp_path / "umci.safetensors"
    save_stages(stages_of(replace(SMALL, **trained)), path)
    with pytest.raises(WeightsError, match=next(iter(trained))) as caught:
        load_stages(stages_of(SMALL), WeightsSource(name="w", path=path))
    assert f"--localizer-set {said}," in caught.value.remedy


def test_what_is_combined_is_chosen_after_the_training(tmp_path):
    path = tmp_path / "umci.safetensors"
    save_stages(stages_of(replace(SMALL, combination="logits")), path)
    load_stages(stages_of(SMALL), WeightsSource(name="w", path=path))


def test_weights_of_another_method_are_refused(tmp_path):
    path = tmp_path / "adapters.safetensors"
    save_file({"fc.0.weight": torch.zeros(2, 3)}, path)
    with pytest.raises(WeightsError, match=r"does not hold weights of clipsam: it has fc\.0"):
        load_stages(stages_of(SMALL), WeightsSource(name="w", path=path))


def test_weights_without_their_parameters_are_refused(tmp_path):
    path = tmp_path / "umci.safetensors"
    save_file(stages_of(SMALL).state_dict(), path)
    with pytest.raises(WeightsError, match="does not say with which parameters"):
        load_stages(stages_of(SMALL), WeightsSource(name="w", path=path))


def test_weights_that_lack_a_tensor_are_refused(tmp_path):
    stages, path = stages_of(SMALL), tmp_path / "umci.safetensors"
    save_stages(stages, path)
    state = {name: v for name, v in stages.state_dict().items() if "fusion" not in name}
    record = {"parameters": json.dumps({**stages.parameters_of_method.__dict__})}
    save_file(state, path, metadata=record)
    with pytest.raises(WeightsError, match=r"lacks 8 tensors \(stages\.0\.fusion\.bias"):
        load_stages(stages_of(SMALL), WeightsSource(name="w", path=path))


def test_an_image_too_small_for_the_scales_is_refused():
    method, architecture = localizer("clipsam"), clip_architecture("tiny")
    method.check(architecture, 126, ClipSamParameters())  # nine tokens, one cell of nine
    with pytest.raises(ExportError, match="cannot pool a grid of 8 tokens into cells of 9"):
        method.check(architecture, 112, ClipSamParameters())


def test_parameters_of_a_command_line():
    got = localizer("clipsam").parameters_from(
        {"pool_sizes": "2,4", "align_corners": "false", "hidden_channels": 12, "text_kernel": 3}
    )
    want = ClipSamParameters(
        pool_sizes=(2, 4), align_corners=False, hidden_channels=12, text_kernel=3
    )
    assert got == want


@pytest.mark.parametrize(
    "values",
    [{"pool_sizes": "3"}, {"pool_sizes": "3,x"}, {"pool_sizes": [3]}, {"pool_sizes": [1, 9]},
     {"hidden_channels": 0}, {"text_kernel": 2}, {"strip_attention": "once"}, {"colour": 1}],
)  # fmt: skip
def test_parameters_that_are_none_are_refused(values):
    with pytest.raises(ExportError, match=next(iter(values))):
        localizer("clipsam").parameters_from(values)
