"""Linear adapters: APRIL-GAN's layout, safetensors, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from zeroflaw_engines.errors import WeightsError
from zeroflaw_export.models.adapters import LinearAdapters, load_adapters, save_adapters
from zeroflaw_export.models.architectures import clip_architecture
from zeroflaw_export.models.load import WeightsSource, load_linear_adapters
from zeroflaw_export.models.random_weights import randomise_weights

NAMES = [f"fc.{i}.{part}" for i in range(4) for part in ("weight", "bias")]


@pytest.fixture
def adapters() -> LinearAdapters:
    made = LinearAdapters(4, 64, 32)
    randomise_weights(made, 5)
    return made


def empty() -> LinearAdapters:
    made = LinearAdapters(4, 64, 32)
    for parameter in made.parameters():
        parameter.data.zero_()
    return made


def state_of(adapters: LinearAdapters) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in adapters.state_dict().items()}


def write(state: dict[str, torch.Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"trainable_linearlayer": state}, path)
    return path


def test_the_layout_is_april_gans(adapters: LinearAdapters, tmp_path: Path) -> None:
    save_adapters(adapters, tmp_path / "a.pth")
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    assert list(content) == ["trainable_linearlayer"]
    state = content["trainable_linearlayer"]
    assert sorted(state) == sorted(NAMES)
    for i in range(4):
        assert state[f"fc.{i}.weight"].shape == (32, 64)
        assert state[f"fc.{i}.bias"].shape == (32,)
        assert state[f"fc.{i}.weight"].dtype == torch.float32


def test_the_full_size_has_april_gans_count() -> None:
    """algorithm.md 1.2: 3,148,800 parameters."""
    with torch.device("meta"):
        made = LinearAdapters(4, 1024, 768)
    assert sum(parameter.numel() for parameter in made.parameters()) == 3_148_800


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_round_trip(adapters: LinearAdapters, tmp_path: Path, name: str) -> None:
    save_adapters(adapters, tmp_path / name)
    read = empty()
    load_adapters(read, tmp_path / name)
    for key, want in adapters.state_dict().items():
        assert torch.equal(read.state_dict()[key], want)


def test_safetensors_hold_the_same_names(adapters: LinearAdapters, tmp_path: Path) -> None:
    save_adapters(adapters, tmp_path / "a.safetensors")
    assert sorted(load_file(tmp_path / "a.safetensors")) == sorted(NAMES)


def test_a_bare_state_dict_is_read_too(adapters: LinearAdapters, tmp_path: Path) -> None:
    torch.save(adapters.state_dict(), tmp_path / "a.pth")
    read = empty()
    load_adapters(read, tmp_path / "a.pth")
    assert torch.equal(read.fc[3].weight, adapters.fc[3].weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.bfloat16])
def test_other_precisions_become_float32(
    adapters: LinearAdapters, tmp_path: Path, dtype: torch.dtype
) -> None:
    path = write({k: v.to(dtype) for k, v in state_of(adapters).items()}, tmp_path / "a.pth")
    read = empty()
    load_adapters(read, path)
    assert {value.dtype for value in read.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(read.fc[0].weight, adapters.fc[0].weight, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", NAMES)
def test_a_missing_tensor_is_named(
    adapters: LinearAdapters, tmp_path: Path, name: str, suffix: str
) -> None:
    state = state_of(adapters)
    del state[name]
    path = write(state, tmp_path / f"a{suffix}")
    read = empty()
    with pytest.raises(WeightsError) as caught:
        load_adapters(read, path)
    assert str(path) in caught.value.cause
    assert name in caught.value.cause
    assert "fc.3.bias" in caught.value.remedy
    assert not any(value.any() for value in read.state_dict().values())


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("fc.0.weight", (64, 32)),
        ("fc.1.weight", (32, 63)),
        ("fc.2.bias", (31,)),
        ("fc.3.bias", (1, 32)),
        ("fc.3.weight", (768, 1024)),
    ],
)
def test_a_wrong_shape_is_named(
    adapters: LinearAdapters, tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    path = write({**state_of(adapters), name: torch.zeros(shape)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError) as caught:
        load_adapters(empty(), path)
    assert str(path) in caught.value.cause
    assert name in caught.value.cause
    assert str(list(shape)) in caught.value.cause


@pytest.mark.parametrize("extra", ["fc.4.weight", "visual.proj"])
def test_a_tensor_too_many_is_named(adapters: LinearAdapters, tmp_path: Path, extra: str) -> None:
    path = write({**state_of(adapters), extra: torch.zeros(3)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError) as caught:
        load_adapters(empty(), path)
    assert str(path) in caught.value.cause
    assert extra in caught.value.cause


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(
    adapters: LinearAdapters, tmp_path: Path, value: float
) -> None:
    """As CLIP's and SAM's are."""
    state = state_of(adapters)
    state["fc.2.weight"][3, 4] = value
    path = write(state, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"fc\.2\.weight"):
        load_adapters(empty(), path)


def test_each_block_has_its_own_layer(adapters: LinearAdapters) -> None:
    tokens = [torch.randn(2, 9, 64) for _ in range(4)]
    state = adapters.state_dict()
    for i, (got, given) in enumerate(zip(adapters(tokens), tokens, strict=True)):
        want = given @ state[f"fc.{i}.weight"].T + state[f"fc.{i}.bias"]
        torch.testing.assert_close(got, want)


def test_another_number_of_blocks_is_refused(adapters: LinearAdapters) -> None:
    with pytest.raises(ValueError, match="zip"):
        adapters([torch.randn(1, 9, 64)] * 3)


def test_adapters_of_another_clip_are_refused(tiny_clip, tmp_path: Path) -> None:
    save_adapters(LinearAdapters(4, 65, 32), tmp_path / "a.pth")
    source = WeightsSource(name="a.pth", path=tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="trained for this CLIP") as caught:
        load_linear_adapters(clip_architecture("tiny"), source)
    assert "[32, 65]" in caught.value.cause
