"""Tensors of a TorchScript archive, read without running the code in it.

`torch.jit.load` interprets an archive's own methods while it loads, and those may write files.
An archive is a zip file with the object graph in `data.pkl` and the tensors' bytes in `data/`;
here the graph is unpickled into plain stubs and only tensors are rebuilt.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

import torch

_DTYPES: Final = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def is_torchscript(path: Path) -> bool:
    """Return whether a file is a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def read_torchscript_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of an archive by their dotted names, as `state_dict` names them.

    Raises:
        Exception: Of many kinds, if the archive is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        graph = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        with archive.open(graph) as file:
            module = _StubUnpickler(file, archive, graph.removesuffix("data.pkl") + "data/").load()
    return dict(_tensors(module, ""))


class _Stub:
    """An object of the archive: its attributes and nothing else."""

    attributes: dict[str, Any]

    def __new__(cls, *_: object) -> Self:
        stub = super().__new__(cls)  # the pickle makes objects without calling __init__
        stub.attributes = {}
        return stub

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.attributes = state


class _StubUnpickler(pickle.Unpickler):
    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str) -> None:  # noqa: ANN401
        super().__init__(file)
        self._archive = archive
        self._folder = folder

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        if module.startswith("__torch__"):
            return _Stub
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch.jit._pickle":
            return _first  # type tags and typed lists: the value comes first
        raise pickle.UnpicklingError(f"it uses {module}.{name}")

    def persistent_load(self, reference: Any) -> torch.Tensor:  # noqa: ANN401
        _, dtype, key, _, _ = reference
        return torch.frombuffer(bytearray(self._archive.read(self._folder + key)), dtype=dtype)


def _rebuild_tensor(
    storage: torch.Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> torch.Tensor:
    return storage.as_strided(size, stride, offset)


def _first(value: object, *_: object) -> object:
    return value


def _tensors(value: object, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, _Stub):
        for attribute, inner in value.attributes.items():
            yield from _tensors(inner, f"{name}.{attribute}" if name else str(attribute))
