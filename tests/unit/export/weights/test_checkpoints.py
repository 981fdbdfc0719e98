"""Checkpoints: every published kind is read, and nothing in them is run."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from zeroflaw_engines.errors import WeightsError
from zeroflaw_export.weights.checkpoints import read_state_dict

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Detected pickle protocol"),
]
STATE = {"a.weight": torch.arange(12.0).reshape(3, 4), "a.bias": torch.ones(3).half()}


def save_torchscript(path: Path) -> dict[str, torch.Tensor]:
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    torch.jit.script(module).save(str(path))
    return module.state_dict()


def write(kind: str, path: Path) -> None:
    if kind == "zip":
        torch.save(STATE, path)
    elif kind == "legacy":
        torch.save(STATE, path, _use_new_zipfile_serialization=False)
    elif kind == "ordered":
        torch.save(OrderedDict(STATE), path)
    elif kind == "wrapped":
        torch.save({"state_dict": STATE, "epoch": 3, "name": "x"}, path)
    else:
        save_file(STATE, path)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("zip", "x.pth"),
        ("zip", "x.pt"),
        ("zip", "no_suffix"),
        ("legacy", "x.pth"),
        ("ordered", "x.pth"),
        ("wrapped", "x.pth"),
        ("safetensors", "x.safetensors"),
    ],
)
def test_every_kind_gives_the_same_tensors(tmp_path: Path, kind: str, name: str) -> None:
    write(kind, tmp_path / name)
    got = read_state_dict(tmp_path / name, unwrap="state_dict")
    assert got.keys() == STATE.keys()
    for key, want in STATE.items():
        assert got[key].dtype == want.dtype
        assert torch.equal(got[key], want)


def test_a_torchscript_archive_is_read(tmp_path: Path) -> None:
    want = save_torchscript(tmp_path / "x.pt")
    got = read_state_dict(tmp_path / "x.pt", unwrap="state_dict")
    assert got.keys() == want.keys()
    for key in want:
        assert torch.equal(got[key], want[key])


class RunsCode:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("way", ["pickle", "zip", "legacy", "inside a state dict", "wrapped"])
def test_pickled_code_is_not_run(tmp_path: Path, way: str) -> None:
    trap = tmp_path / "the code was run"
    path = tmp_path / "x.pth"
    if way == "pickle":
        path.write_bytes(pickle.dumps(RunsCode(trap)))
    elif way == "zip":
        torch.save(RunsCode(trap), path)
    elif way == "legacy":
        torch.save(RunsCode(trap), path, _use_new_zipfile_serialization=False)
    elif way == "inside a state dict":
        torch.save({**STATE, "x": RunsCode(trap)}, path)
    else:
        torch.save({"state_dict": STATE, "x": RunsCode(trap)}, path)
    with pytest.raises(WeightsError) as caught:
        read_state_dict(path, unwrap="state_dict")
    assert not trap.exists()
    assert str(path) in caught.value.cause
    assert "never runs pickled code" in caught.value.remedy
    # the trap works: an ordinary reader would have walked into it
    torch.load(path, weights_only=False) if way != "pickle" else pickle.loads(path.read_bytes())  # noqa: S301
    assert trap.exists()


def test_torchscript_code_is_not_run(tmp_path: Path) -> None:
    """TorchScript's `__setstate__` runs while an archive is loaded, and can write files."""
    program = tmp_path / "trap.py"
    trap = tmp_path / "trap"
    program.write_text(
        "import torch\n"
        "class Trap(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.w = torch.nn.Parameter(torch.ones(2))\n"
        "    def forward(self, x):\n"
        "        return x\n"
        "    @torch.jit.export\n"
        "    def __getstate__(self):\n"
        "        return (self.training, torch.ones(2))\n"
        "    @torch.jit.export\n"
        "    def __setstate__(self, state: tuple[bool, torch.Tensor]):\n"
        "        self.training = state[0]\n"
        "        self.w = state[1]\n"
        f"        torch.save(state[1], {str(trap)!r})\n"
    )
    scope: dict = {}
    code = compile(program.read_text(), str(program), "exec")
    import linecache  # TorchScript reads the source of the class

    linecache.checkcache(str(program))
    scope["__name__"] = "trap"
    exec(code, scope)  # noqa: S102 - the text above
    torch.jit.script(scope["Trap"]()).save(str(tmp_path / "x.pt"))
    trap.unlink(missing_ok=True)
    with contextlib.suppress(WeightsError):
        read_state_dict(tmp_path / "x.pt")
    assert not trap.exists()


@pytest.mark.parametrize(
    "content",
    [
        [torch.ones(2)],
        torch.ones(2),
        {},
        {"a": 1.0},
        {"a": "text"},
        {1: torch.ones(2)},
        {"a": {"b": torch.ones(2)}},
        {"state_dict": [torch.ones(2)]},
        {"model": STATE},
        "text",
        None,
        3,
    ],
    ids=str,
)
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "x.pth"
    torch.save(content, path)
    with pytest.raises(WeightsError) as caught:
        read_state_dict(path, unwrap="state_dict")
    assert f"{path} is not a state dict" in caught.value.cause
    assert caught.value.remedy


def test_a_pickled_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(pickle.dumps([1, 2, 3]))
    with pytest.raises(WeightsError, match=r"x\.pth"):
        read_state_dict(tmp_path / "x.pth")


def test_a_wrapping_is_only_taken_off_when_asked(tmp_path: Path) -> None:
    write("wrapped", tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="state_dict, epoch, name"):
        read_state_dict(tmp_path / "x.pth")


@pytest.mark.parametrize("name", ["x.pth", "x.pt", "x.safetensors"])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"hello, these are no weights\n" * 20,
        b"<!DOCTYPE html><html>404</html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
        b"\xff" * 1000,
        b"PK\x03\x04" + b"\0" * 100,
        bytes(range(256)) * 4,
    ],
    ids=["empty", "zero", "text", "html", "lfs", "ff", "zip head", "noise"],
)
def test_garbage_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(WeightsError) as caught:
        read_state_dict(tmp_path / name)
    assert str(tmp_path / name) in caught.value.cause
    assert caught.value.remedy


def test_a_zip_file_of_something_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(WeightsError, match=r"x\.pth"):
        read_state_dict(tmp_path / "x.pth")


def test_a_zip_file_that_only_looks_like_torchscript_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/code/__torch__.py", "hello")
    with pytest.raises(WeightsError, match=r"x\.pt"):
        read_state_dict(tmp_path / "x.pt")


@pytest.mark.parametrize("kind", ["missing", "directory"])
def test_no_file_is_told(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.pth"
    if kind == "directory":
        path.mkdir()
    with pytest.raises(WeightsError) as caught:
        read_state_dict(path)
    assert str(path) in caught.value.cause


DAMAGED: dict[str, Callable[[Path], object]] = {
    "zip": lambda path: write("zip", path),
    "legacy": lambda path: write("legacy", path),
    "torchscript": save_torchscript,
    "safetensors": lambda path: write("safetensors", path),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_truncated_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("x.safetensors" if kind == "safetensors" else "x.pth")
    DAMAGED[kind](path)
    data = path.read_bytes()
    strange = {}
    for length in range(0, len(data), max(1, len(data) // 150)):
        path.write_bytes(data[:length])
        try:
            read_state_dict(path)
        except WeightsError as error:
            assert str(path) in error.cause  # noqa: PT017
        except Exception as error:
            strange.setdefault(type(error).__name__, (length, str(error)))
        else:
            strange["accepted"] = length
    assert not strange


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_flipped_bit_gives_tensors_or_a_weights_error(tmp_path: Path, kind: str) -> None:
    """Formats without a digest may not notice; but nothing else than our error comes out."""
    path = tmp_path / ("x.safetensors" if kind == "safetensors" else "x.pth")
    DAMAGED[kind](path)
    data = path.read_bytes()
    dice = random.Random(1)  # noqa: S311
    strange = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(500):
            damaged = bytearray(data)
            place, bit = dice.randrange(len(data)), dice.randrange(8)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                read_state_dict(path)
            except WeightsError as error:
                assert str(path) in error.cause  # noqa: PT017
            except Exception as error:
                strange.setdefault(type(error).__name__, (place, bit, str(error)))
    assert not strange
