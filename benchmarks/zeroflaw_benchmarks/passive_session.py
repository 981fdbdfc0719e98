"""What sessions of benchmarks share that stand in the place of an engine."""

from __future__ import annotations

from zeroflaw_engines.contract import EngineContract


class PassiveSession:
    """A session with nothing to prepare, to record or to release; see `Session`."""

    def __init__(self, contract: EngineContract, backend: str) -> None:
        self.contract = contract
        self.backend = backend

    def prepare(self) -> None:
        """Do nothing."""

    def capture(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing: whoever loaded an engine releases it."""
