"""The Python bindings of TensorRT and TensorRT-RTX, which mirror each other, loaded when needed."""

from __future__ import annotations

import importlib
from importlib import metadata
from types import ModuleType
from typing import Final, Literal

from zeroflaw_engines.errors import BackendUnavailableError

# The backends that run engines which were built before.
BuildBackend = Literal["tensorrt", "tensorrt-rtx"]

MODULES: Final[dict[BuildBackend, str]] = {
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt_rtx",
}
# Whose compiler builds for the GPU of its machine alone, and takes no name of an architecture.
FOR_THE_GPU_AT_HAND: Final[tuple[BuildBackend, ...]] = ("tensorrt",)
_DISTRIBUTIONS: Final[dict[BuildBackend, tuple[str, ...]]] = {
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt-rtx": ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
}


def load_bindings(backend: BuildBackend) -> ModuleType:
    """Load the module of a backend.

    Raises:
        BackendUnavailableError: It is not installed, or its libraries cannot be loaded.
    """
    name = MODULES[backend]
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        cause, remedy = _not_installed(backend)
        if error.name is not None and not error.name.startswith(name):
            cause = f"the backend {backend} needs {error.name}, which is not installed"
        raise BackendUnavailableError(cause, remedy) from error
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendUnavailableError(
            f"the libraries of the backend {backend} cannot be loaded: {error}",
            f"install NVIDIA's {backend} libraries of the version of the Python module {name},"
            " and put them where the loader finds them (LD_LIBRARY_PATH)",
        ) from error
    if getattr(module, "__file__", None) is None:  # a mere folder of that name, as in `engines`
        raise BackendUnavailableError(*_not_installed(backend))
    return module


def installed_version(backend: BuildBackend) -> str:
    """Return the full version of a backend, from its installed package where there is one.

    Raises:
        BackendUnavailableError: It is not installed.
    """
    for distribution in _DISTRIBUTIONS[backend]:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return str(load_bindings(backend).__version__)


def _not_installed(backend: BuildBackend) -> tuple[str, str]:
    """Return cause and remedy."""
    return (
        f"the backend {backend} is not installed: there is no Python module {MODULES[backend]}",
        f"pip install 'zeroflaw[{backend}]'",
    )
