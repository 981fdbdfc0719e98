"""Reading checkpoints without running what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from zeroflaw_engines.errors import WeightsError
from zeroflaw_export.weights.torchscript import is_torchscript, read_torchscript_tensors

StateDict = dict[str, torch.Tensor]


def read_state_dict(path: Path, *, unwrap: str | tuple[str, ...] = ()) -> StateDict:
    """Read tensors by name from a checkpoint.

    Safetensors files, PyTorch files (with `weights_only`, so that no pickled code runs) and
    TorchScript archives, as OpenAI publishes CLIP, are understood.

    Args:
        unwrap: Names under one of which the state dict lies, if it does not lie at the top.

    Raises:
        WeightsError: The file is missing, damaged, or not a state dict.
    """
    content = read_plain(path)
    for name in (unwrap,) if isinstance(unwrap, str) else unwrap:
        if isinstance(content, dict) and name in content:
            content = content[name]
            break
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in content.items())
    ):
        raise WeightsError(
            f"{path} is not a state dict: it holds {_describe(content)}",
            "give a checkpoint of tensors by name",
        )
    return content


def read_plain(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    """Read a checkpoint's tensors and plain values, however they are nested.

    Raises:
        WeightsError: The file is missing, damaged, or holds more than that.
    """
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}", "check the path")
    try:
        return _read(path)
    except Exception as error:  # a damaged file makes the readers raise almost anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{path} cannot be read as plain tensors ({reason})",
            "give a whole checkpoint that holds tensors only; zeroflaw never runs pickled code",
        ) from error


def _read(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    if path.suffix == ".safetensors":
        return dict(load_file(path))
    if is_torchscript(path):
        return read_torchscript_tensors(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _describe(content: object) -> str:
    if isinstance(content, dict):
        return f"a dict with the keys {', '.join(map(str, list(content)[:5]))}"
    return f"a {type(content).__name__}"
