"""An engine that is asked the same again and again, for several parameters, and runs once."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from zeroflaw_benchmarks.passive_session import PassiveSession
from zeroflaw_engines.errors import EngineError
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, Tensor, on_host
from zeroflaw_engines.sessions.session import Outputs, Session


class RememberingSession(PassiveSession):
    """An engine whose calls are remembered: rewound, it gives the same answers again."""

    def __init__(self, session: Session) -> None:
        super().__init__(session.contract, session.backend)
        self._session = session
        self._calls: list[tuple[dict[str, Tensor | DeviceTensor], Outputs]] = []
        self._next = 0

    def rewind(self) -> None:
        """Begin with the first call again."""
        self._next = 0

    def forget(self) -> None:
        """Let go of all calls: the next frame comes."""
        self._calls.clear()
        self._next = 0

    def execute(
        self, inputs: Mapping[str, Tensor | DeviceTensor], *, keep: Collection[str] = ()
    ) -> Outputs:
        """Run the engine, or give the answer of the same call before `rewind`.

        Raises:
            EngineError: The engine failed, or the call is another one than before.
        """
        self._next += 1
        if self._next > len(self._calls):
            self._calls.append((dict(inputs), self._session.execute(inputs, keep=keep)))
        known, outputs = self._calls[self._next - 1]
        if any(not np.array_equal(on_host(known[name]), on_host(inputs[name])) for name in known):
            raise EngineError(
                f"call {self._next} of the {self.contract.name} differs between parameters that"
                " ask for the same",
                "report this: the engine would have run for one of them and not for the other",
            )
        return outputs
