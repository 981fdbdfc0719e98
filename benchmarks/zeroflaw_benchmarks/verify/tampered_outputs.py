"""Engines whose outputs are tampered with: what failing kernels, drivers and weights return."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

import numpy as np

from zeroflaw.inspector import Inspector
from zeroflaw.sessions import Sessions
from zeroflaw_benchmarks.passive_session import PassiveSession
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, Tensor, on_host
from zeroflaw_engines.sessions.session import Outputs, Session

Tampering = Callable[[Tensor, np.random.Generator], Any]


def _one(value: float) -> Tampering:
    """Set one element, anywhere, to a value."""

    def tamper(values: Tensor, rng: np.random.Generator) -> Tensor:
        values.flat[int(rng.integers(values.size))] = value
        return values

    return tamper


def _all(value: float) -> Tampering:
    return lambda values, _: np.full_like(values, value)


# What each does to an output, float32 of the contract's shape.
TAMPERINGS: Final[dict[str, Tampering]] = {
    "NaN in one element": _one(np.nan),
    "NaN everywhere": _all(np.nan),
    "infinity in one element": _one(np.inf),
    "negative infinity in one element": _one(-np.inf),
    "negative infinity everywhere": _all(-np.inf),
    "past 3e38 everywhere": lambda values, _: values * 0 + np.float32(3.2e38),
    "negative": lambda values, _: -np.abs(values) - 1,
    "above 1": lambda values, _: np.abs(values) + 2,
    "zero everywhere": _all(0.0),
    "FP64": lambda values, _: values.astype(np.float64),
    "FP16": lambda values, _: values.astype(np.float16),
    "one axis more": lambda values, _: values[None],
    "cut to half": lambda values, _: values.reshape(-1)[: values.size // 2],
    "missing": lambda *_: None,
}


class TamperedSession(PassiveSession):
    """A session that tampers with one output of another, or with none."""

    def __init__(
        self,
        session: Session,
        rng: np.random.Generator,
        output: str | None = None,
        tamper: Tampering = lambda values, _: values,
    ) -> None:
        """Stand in front of a session.

        Args:
            session: Runs the engine; it is not closed with this one.
            output: Name of the output; None leaves all as they are.
        """
        super().__init__(session.contract, session.backend)
        self._session = session
        self._output = output
        self._tamper = tamper
        self._rng = rng

    def execute(
        self, inputs: Mapping[str, Tensor | DeviceTensor], *, keep: Collection[str] = ()
    ) -> Outputs:
        """Run the engine and tamper with the output."""
        outputs = dict(self._session.execute(inputs, keep=keep))
        if self._output is None:
            return outputs
        whole = np.array(on_host(outputs.pop(self._output)), np.float32)
        tampered = self._tamper(whole, self._rng)
        if tampered is not None:
            outputs[self._output] = tampered
        return outputs


def tampered_inspectors(
    inspector: Inspector, rng: np.random.Generator
) -> Iterator[tuple[str, Inspector]]:
    """Give an Inspector for every output of its engines and every tampering.

    Yields:
        What is done to which output, and an Inspector with that output tampered with.
    """
    loaded = {session.contract.name: session for session in inspector.sessions}
    for name, session in loaded.items():
        for spec in session.contract.outputs:
            for kind, tamper in TAMPERINGS.items():
                engines = {other: TamperedSession(one, rng) for other, one in loaded.items()}
                engines[name] = TamperedSession(session, rng, spec.name, tamper)
                sessions = Sessions(**engines)
                with Inspector(
                    inspector.bundle, sessions, parameters=inspector.parameters
                ) as tampered:
                    yield f"{spec.name}: {kind}", tampered
