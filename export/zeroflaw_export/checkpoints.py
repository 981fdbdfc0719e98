"""Reading checkpoints without running what is in them."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from zeroflaw_engines.errors import WeightsError

StateDict = dict[str, torch.Tensor]


def read_state_dict(path: Path, *, unwrap: str | None = None) -> StateDict:
    """Reads tensors by name from a checkpoint.

    Safetensors files, PyTorch files (with `weights_only`, so that no pickled code runs) and
    TorchScript archives, as OpenAI publishes CLIP, are understood.

    Args:
        path: The checkpoint.
        unwrap: Name under which the state dict lies, if it does not lie at the top.

    Raises:
        WeightsError: The file is missing, damaged, or not a state dict.
    """
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}", "check the path")
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise WeightsError(
                f"{path} is not a readable safetensors file ({error})", "fetch the file anew"
            ) from error
    if _is_torchscript(path):
        try:
            archive: torch.nn.Module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
            return dict(archive.state_dict())
        except RuntimeError as error:
            raise WeightsError(
                f"{path} is a damaged TorchScript archive ({error})", "fetch the file anew"
            ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{path} cannot be read as plain tensors ({reason})",
            "give a checkpoint that holds tensors only; zeroflaw never runs pickled code",
        ) from error
    if unwrap is not None and isinstance(content, dict) and unwrap in content:
        content = content[unwrap]
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


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _describe(content: object) -> str:
    if isinstance(content, dict):
        return f"a dict with the keys {', '.join(map(str, list(content)[:5]))}"
    return f"a {type(content).__name__}"
