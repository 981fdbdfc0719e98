"""What sessions of benchmarks share that stand in the place of an engine."""

from __future__ import annotations

from typing import Self

from zeroflaw_engines.contract import EngineContract
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, Tensor


class PassiveSession:
    """A session with nothing to prepare, to record or to release; see `Session`."""

    def __init__(self, contract: EngineContract, backend: str) -> None:
        self.contract = contract
        self.backend = backend

    def prepare(self) -> None:
        """Do nothing."""

    def capture(self) -> None:
        """Do nothing."""

    def upload(self, name: str, array: Tensor) -> Tensor | DeviceTensor:  # noqa: ARG002
        """Leave the array where it is."""
        return array

    def clone(self) -> Self:
        """Return itself: its calls do not wait for each other."""
        return self

    def close(self) -> None:
        """Do nothing: whoever loaded an engine releases it."""
