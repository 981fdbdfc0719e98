"""WinCLIP against anomalib's, on the same weights and the same text embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from anomalib_winclip import anomalib_winclip, pixels, telling_texts

from zeroflaw_engines.errors import ExportError
from zeroflaw_export.models.architectures import clip_architecture
from zeroflaw_export.models.localizers.registry import localizer
from zeroflaw_export.models.localizers.winclip import (
    WINCLIP,
    WinClipEncoder,
    WinClipParameters,
    check,
    reference_winclip,
)
from zeroflaw_export.models.random_weights import randomise_weights
from zeroflaw_export.parity.checks import parity_image

SIZE = 126
PARAMETERS = WinClipParameters()


@pytest.fixture(scope="module")
def clip():
    built = clip_architecture("tiny").build(SIZE)
    randomise_weights(built, 7)
    return built


@pytest.fixture(scope="module")
def texts(clip) -> np.ndarray:
    return telling_texts(clip, parity_image("real", SIZE, SIZE))


@torch.inference_mode()
def run(clip, texts: np.ndarray, images: np.ndarray, *, batched: bool = False):
    encoder = WinClipEncoder(clip, SIZE, PARAMETERS, batched=batched).eval()
    return [
        out.numpy() for out in encoder(torch.from_numpy(images.copy()), torch.from_numpy(texts))
    ]


@pytest.mark.parametrize("kind", ["real", "noise"])
def test_map_score_and_embeddings_are_those_of_anomalib(clip, texts, kind) -> None:
    image = parity_image(kind, SIZE, SIZE)
    model = anomalib_winclip(clip, texts)
    want = model(pixels(image))
    got_map, got_score, tokens = run(clip, texts, image[None])
    wanted = want.anomaly_map[0].numpy()
    assert np.ptp(wanted) > 0.05
    assert got_map.shape == (1, SIZE, SIZE)
    assert np.abs(got_map[0] - wanted).max() <= 1e-5
    assert np.abs(got_score - want.pred_score.numpy()).max() <= 1e-5
    _, windows, patches = model.encode_image(pixels(image))
    assert tokens.shape == (3, 81, 64)
    unit = torch.nn.functional.normalize
    assert np.abs(tokens[0] - unit(patches[0], dim=-1).detach().numpy()).max() <= 1e-5
    # Windows lie at the patch in their middle: of 2 x 2 at their first, of 3 x 3 at their second.
    for block, first, side in ((1, 0, 8), (2, 1, 7)):
        grid = tokens[block].reshape(9, 9, 64)[first : first + side, first : first + side]
        wanted = unit(windows[block - 1][0], dim=-1).detach().numpy().reshape(side, side, 32)
        assert np.abs(grid[..., :32] - wanted).max() <= 1e-5
        assert (tokens[block][:, 32:] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(tokens, axis=-1), 1, atol=1e-5)


def test_windows_that_attend_to_each_other_are_another_method(clip, texts) -> None:
    """What anomalib gives with an open_clip later than it asks for: none of it is in the paper."""
    image = parity_image("real", SIZE, SIZE)
    mixed = anomalib_winclip(clip, texts, sequence_first=False)(pixels(image))
    got = run(clip, texts, image[None])[0]
    assert np.abs(got - mixed.anomaly_map.numpy()).max() > 0.01


def test_the_reference_of_the_export_and_a_batch_give_the_same(clip, texts) -> None:
    images = np.stack([parity_image("real", SIZE, SIZE), parity_image("noise", SIZE, SIZE)])
    maps, scores, tokens = run(clip, texts, images, batched=True)
    assert tokens.shape == (2, 3, 81, 64)
    for number, image in enumerate(images):
        want_map, want_score, want_tokens = reference_winclip(clip, PARAMETERS, image, texts)
        assert np.abs(maps[number] - want_map).max() <= 1e-5
        assert abs(scores[number] - want_score) <= 1e-5
        assert np.abs(tokens[number] - want_tokens).max() <= 1e-5


def test_texts_far_apart_at_a_low_temperature_give_a_map_that_is_finite(clip) -> None:
    embedding = telling_texts(clip, parity_image("real", SIZE, SIZE))[:1]
    encoder = WinClipEncoder(clip, SIZE, WinClipParameters(temperature=0.01)).eval()
    image = torch.from_numpy(parity_image("real", SIZE, SIZE)[None])
    for texts in (np.concatenate([embedding, -embedding]), np.concatenate([-embedding, embedding])):
        with torch.inference_mode():
            found, score, _ = encoder(image, torch.from_numpy(texts))
        assert torch.isfinite(found).all()
        assert float(found.min()) >= 0
        assert float(found.max()) <= 1
        assert float(score) > 0


@pytest.mark.parametrize(
    ("name", "size", "values", "match"),
    [
        ("mini", 448, {}, "pyramid"),
        ("tiny", 28, {}, "2 x 2 patches at 28 px"),
        ("tiny", 112, {"mid_window": 9}, "8 x 8 patches at 112 px"),
        ("tiny", 112, {"small_window": 3}, "3 and 3 patches"),
        ("tiny", 112, {"small_window": 0}, "0 and 3 patches"),
        ("tiny", 112, {"temperature": 0}, "temperature"),
        ("tiny", 112, {"temperature": float("nan")}, "temperature"),
    ],
)
def test_what_winclip_cannot_run_on_is_refused(name, size, values, match) -> None:
    parameters = WINCLIP.parameters_from(values)
    with pytest.raises(ExportError, match=match):
        check(clip_architecture(name), size, parameters)


@pytest.mark.parametrize(
    ("values", "match"),
    [({"windows": "2,3"}, "no parameter windows"), ({"mid_window": "wide"}, "not acceptable")],
)
def test_parameters_that_winclip_does_not_have_are_refused(values, match) -> None:
    with pytest.raises(ExportError, match=match):
        localizer("winclip").parameters_from(values)


def test_an_export_records_how_winclip_fuses_unless_it_is_told_otherwise() -> None:
    own = WINCLIP.recorded_parameters({})
    assert (own.reference_distance, own.reference_fusion) == ("half_cosine", "mean")
    assert WINCLIP.recorded_parameters({"reference_fusion": "max"}).reference_fusion == "max"
    assert localizer("april_gan").recorded_parameters({}).reference_fusion == "sum"


def test_the_activation_is_that_of_the_weights_at_every_size() -> None:
    """APRIL-GAN's quirk of another one goes with its adapters, which WinCLIP has none of."""
    for size in (112, SIZE):
        assert WINCLIP.runs_quick_gelu(clip_architecture("tiny"), size)
        assert not WINCLIP.runs_quick_gelu(clip_architecture("vit_b_16_plus_240"), size)
    assert not localizer("april_gan").runs_quick_gelu(clip_architecture("tiny"), SIZE)
    assert localizer("april_gan").runs_quick_gelu(clip_architecture("tiny"), 112)


def test_the_full_size_is_that_of_open_clip() -> None:
    architecture = clip_architecture("vit_b_16_plus_240")
    check(architecture, 240, PARAMETERS)
    assert not architecture.uses_quick_gelu(240)
    sizes = WINCLIP.reference_sizes(architecture, 240, 16_000_000)
    assert (sizes.blocks, sizes.tokens, sizes.width) == (3, 225, 896)
    assert 0.99 * 16_000_000 < sizes.bank_bytes <= 16_000_000
