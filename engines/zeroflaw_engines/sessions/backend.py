"""What a backend is: one row of the ranking, and the module that probes and loads for it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.contract import EngineName
from zeroflaw_engines.errors import BackendUnavailableError
from zeroflaw_engines.sessions.session import Session
from zeroflaw_engines.tensorrt_bindings import BuildBackend


@dataclass(frozen=True)
class Backend:
    """One backend.

    Attributes:
        name: How the user names it.
        module: The `BackendModule` that probes and loads for it, imported when it is needed.
        precisions: What it may compute in; the first is its default.
        why: What makes it as fast as its rank says.
        verified: Whether zeroflaw's own tests run it, or it passed the acceptance on a GPU as it
            is now (docs/gpu.md).
        builds: Whose built engines it runs; None where it runs the bundle's graphs.
        on_gpu: Whether it runs on a GPU, of which a machine may have several.
    """

    name: str
    module: str
    precisions: tuple[str, ...]
    why: str
    verified: bool = False
    builds: BuildBackend | None = None
    on_gpu: bool = False

    def imported(self) -> BackendModule:
        """Import the backend's module.

        Raises:
            BackendUnavailableError: A library that it cannot do without is missing.
        """
        try:
            return cast("BackendModule", importlib.import_module(self.module))
        except ImportError as error:
            raise BackendUnavailableError(
                f"the backend {self.name} cannot be imported: {error}",
                "install what zeroflaw depends on: pip install zeroflaw",
            ) from error


@dataclass(frozen=True, kw_only=True)
class SessionRequest:
    """What is to be loaded, in words that every backend understands.

    Attributes:
        bundle: Where the engine is.
        precision: What it computes in; None takes the backend's default, and of built engines
            the one that is there.
        threads: CPU threads of the engine; 0 takes every core.
        model_cache: Directory in which backends that compile at load keep what they compiled;
            None keeps nothing.
        device: Number of the GPU, as CUDA counts; 0 on CPU backends.
    """

    bundle: Bundle
    engine: EngineName
    precision: str | None = None
    threads: int = 0
    model_cache: Path | None = None
    device: int = 0


class BackendModule(Protocol):
    """What the module of a backend has. One module may serve several rows."""

    def probe(self, backend: Backend, device: int) -> tuple[str, tuple[str, ...]]:
        """Look for the backend's libraries and its device.

        Args:
            device: Number of the GPU, as CUDA counts; 0 on CPU backends.

        Returns:
            The version of its library, and the precisions that this machine computes in.

        Raises:
            BackendUnavailableError: Something is missing.
        """

    def require(
        self,
        backend: Backend,
        bundle: Bundle,
        engines: Sequence[EngineName],
        precision: str,
        device: int,
    ) -> None:
        """Check that a bundle has what the backend runs, before `auto` chooses it.

        Args:
            device: Number of the GPU that is to run it, as CUDA counts; 0 on CPU backends.

        Raises:
            EngineError: It lacks a graph or a built engine.
        """

    def load(self, backend: Backend, request: SessionRequest) -> Session:
        """Load one engine.

        Raises:
            BackendUnavailableError: A library, a driver or the precision is missing.
            EngineError: The graph or the built engine cannot be loaded.
            EngineContractError: Its tensors are not those of the contract.
        """
