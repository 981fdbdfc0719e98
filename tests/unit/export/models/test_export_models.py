"""Loading CLIP and SAM: the position embedding, precisions, and what does not fit."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from zeroflaw_engines.errors import ExportError, WeightsError
from zeroflaw_export.models.architectures import (
    CLIP_MEAN,
    CLIP_STD,
    SAM_MEAN,
    SAM_STD,
    clip_architecture,
    sam_architecture,
)
from zeroflaw_export.models.load import WeightsSource, load_clip, load_sam
from zeroflaw_export.models.random_weights import randomise_weights


@pytest.fixture(scope="module")
def native() -> dict[str, torch.Tensor]:
    """The state of a tiny CLIP at its native 112 px."""
    clip = clip_architecture("tiny").build(112)
    randomise_weights(clip, 3)
    return clip.state_dict()


def saved(state: dict[str, torch.Tensor], path: Path) -> WeightsSource:
    torch.save(state, path)
    return WeightsSource(name=path.name, path=path)


def test_the_weights_of_a_checkpoint_are_loaded(native, tmp_path: Path) -> None:
    source = saved(native, tmp_path / "clip.pt")
    clip = load_clip(clip_architecture("tiny"), 112, source)
    for name, want in native.items():
        assert torch.equal(clip.state_dict()[name], want), name
    assert not clip.training


def test_a_checkpoint_of_training_on_several_gpus_is_loaded(native, tmp_path: Path) -> None:
    """open_clip's have `state_dict` and a first name `module` before each tensor's."""
    state = {f"module.{name}": value for name, value in native.items()}
    torch.save({"epoch": 31, "state_dict": state}, tmp_path / "clip.pt")
    source = WeightsSource(name="clip.pt", path=tmp_path / "clip.pt")
    clip = load_clip(clip_architecture("tiny"), 112, source)
    for name, want in native.items():
        assert torch.equal(clip.state_dict()[name], want), name


@pytest.mark.parametrize("size", [126, 224, 518, 56])
def test_the_position_embedding_is_resized_as_open_clip_does(
    native, tmp_path: Path, size: int
) -> None:
    source = saved(native, tmp_path / "clip.pt")
    clip = load_clip(clip_architecture("tiny"), size, source)
    old, side = native["visual.positional_embedding"], size // 14
    grid = old[1:].reshape(1, 8, 8, 64).permute(0, 3, 1, 2)
    grid = functional.interpolate(
        grid, size=(side, side), mode="bicubic", antialias=True, align_corners=False
    )
    want = torch.cat([old[:1], grid.permute(0, 2, 3, 1).reshape(side * side, 64)])
    got = clip.visual.positional_embedding.detach()
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)
    for name, value in native.items():
        if name != "visual.positional_embedding":
            assert torch.equal(clip.state_dict()[name], value), name


def test_halves_become_float32(native, tmp_path: Path) -> None:
    """OpenAI publishes half precision."""
    source = saved({k: v.half() for k, v in native.items()}, tmp_path / "clip.pt")
    clip = load_clip(clip_architecture("tiny"), 224, source)
    assert {value.dtype for value in clip.state_dict().values()} == {torch.float32}


def test_openais_extra_entries_are_left_out(native, tmp_path: Path) -> None:
    extras = {
        name: torch.tensor(77) for name in ("input_resolution", "context_length", "vocab_size")
    }
    source = saved({**native, **extras}, tmp_path / "clip.pt")
    clip = load_clip(clip_architecture("tiny"), 112, source)
    assert torch.equal(clip.text_projection, native["text_projection"])


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_a_torchscript_archive_as_openai_publishes_it(native, tmp_path: Path) -> None:
    class Holder(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    holder = Holder()
    for name, value in native.items():
        owner: nn.Module = holder
        *path, last = name.split(".")
        for part in path:
            if not hasattr(owner, part):
                owner.add_module(part, Holder())
            owner = getattr(owner, part)
        owner.register_buffer(last, value.half())
    torch.jit.trace(holder, torch.ones(1)).save(str(tmp_path / "clip.pt"))
    source = WeightsSource(name="clip.pt", path=tmp_path / "clip.pt")
    clip = load_clip(clip_architecture("tiny"), 112, source)
    for name, want in native.items():
        torch.testing.assert_close(clip.state_dict()[name], want.half().float(), rtol=0, atol=0)


def broken(state: dict[str, torch.Tensor], how: str) -> dict[str, torch.Tensor]:
    state = dict(state)
    name = next(name for name in sorted(state) if state[name].ndim == 2)
    if how == "missing":
        del state[name]
    elif how == "extra":
        state["surprise"] = torch.ones(2)
    elif how == "shape":
        state[name] = state[name][:-1].contiguous()
    else:
        state[name] = torch.full_like(state[name], float(how))
    return state


@pytest.mark.parametrize("how", ["missing", "extra", "shape", "nan", "inf"])
@pytest.mark.parametrize("model", ["clip", "sam"])
def test_what_does_not_fit_is_named(native, tiny_sam, tmp_path: Path, model: str, how: str) -> None:
    state = native if model == "clip" else tiny_sam.state_dict()
    source = saved(broken(state, how), tmp_path / "x.pth")
    load = partial(load_clip, clip_architecture("tiny"), 112)
    if model == "sam":
        load = partial(load_sam, sam_architecture("tiny"))
    with pytest.raises(WeightsError) as caught:
        load(source)
    assert str(tmp_path / "x.pth") in caught.value.cause
    assert "tiny" in caught.value.remedy or how in ("nan", "inf")


@pytest.mark.parametrize("shape", [(60, 64), (1, 64), (65, 63), (65, 8, 8)], ids=str)
def test_a_position_embedding_of_another_kind_is_a_weights_error(
    native, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    state = {**native, "visual.positional_embedding": torch.ones(shape)}
    source = saved(state, tmp_path / "clip.pt")
    with pytest.raises(WeightsError) as caught:
        load_clip(clip_architecture("tiny"), 224, source)
    assert str(tmp_path / "clip.pt") in caught.value.cause


def test_the_checkpoint_of_the_other_model_is_refused(native, tiny_sam, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not a checkpoint of tiny"):
        load_sam(sam_architecture("tiny"), saved(native, tmp_path / "a.pth"))
    with pytest.raises(WeightsError, match="not a checkpoint of tiny"):
        load_clip(clip_architecture("tiny"), 112, saved(tiny_sam.state_dict(), tmp_path / "b.pth"))


def test_a_sam_checkpoint_brings_its_random_frequencies(tiny_sam, tmp_path: Path) -> None:
    """The positional matrix is a buffer: part of the checkpoint though not a parameter."""
    sam = load_sam(sam_architecture("tiny"), saved(tiny_sam.state_dict(), tmp_path / "sam.pth"))
    name = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
    assert torch.equal(sam.state_dict()[name], tiny_sam.state_dict()[name])


def test_the_identity_has_the_files_digest(native, tmp_path: Path) -> None:
    import hashlib

    source = saved(native, tmp_path / "clip.pt")
    want = hashlib.sha256((tmp_path / "clip.pt").read_bytes()).hexdigest()
    assert (source.identity().name, source.identity().sha256) == ("clip.pt", want)
    assert WeightsSource(name="random", path=None, seed=1).identity().sha256 is None


@pytest.mark.parametrize("size", [0, -14, 1, 223, 225, 336 + 1])
def test_an_image_size_that_does_not_fit_is_refused(size: int) -> None:
    with pytest.raises(ExportError) as caught:
        clip_architecture("tiny").build(size)
    assert str(size) in caught.value.cause
    assert "14" in caught.value.remedy


@pytest.mark.parametrize("name", ["", "TINY", "vit_x", "ViT-L-14-336"])
@pytest.mark.parametrize("look_up", [clip_architecture, sam_architecture])
def test_an_unknown_architecture_is_told_with_the_known_ones(look_up, name: str) -> None:
    with pytest.raises(ExportError) as caught:
        look_up(name)
    assert repr(name) in caught.value.cause
    assert "tiny" in caught.value.remedy


def test_the_constants_are_the_originals(tiny_sam) -> None:
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    from segment_anything import sam_model_registry

    assert (CLIP_MEAN, CLIP_STD) == (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
    with torch.device("cpu"):
        original = sam_model_registry["vit_b"]()
    for mine, theirs in ((SAM_MEAN, original.pixel_mean), (SAM_STD, original.pixel_std)):
        torch.testing.assert_close(torch.tensor(mine), theirs.flatten())
    torch.testing.assert_close(tiny_sam.pixel_mean, original.pixel_mean)
