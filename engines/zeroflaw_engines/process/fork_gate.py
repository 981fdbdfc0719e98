"""Forks wait for the calls that are under way, and calls wait for forks.

OpenBLAS, which multiplies NumPy's matrices, ends its threads in `fork()` before the process is
copied, and waits for ever where another thread multiplies at that moment: the parent hangs. So a
fork begins only when no inspection runs, and inspections that begin meanwhile wait for its end.
"""

from __future__ import annotations

import functools
import os
from contextlib import AbstractContextManager
from typing import Final

from zeroflaw_engines.process.calls_under_way import CallsUnderWay

# A call that takes longer than any inspection must not keep a process from forking for ever.
_MOST_SECONDS: Final = 60.0


class ForkGate:
    """Lets calls or forks through, never both."""

    def __init__(self) -> None:
        self._calls = CallsUnderWay()
        self._forks = 0

    def call(self) -> AbstractContextManager[None]:
        """Count a call that is under way; one within another of the same thread does not wait."""
        return self._calls.call(self._wait_for_forks)

    def hold(self) -> None:
        """Wait, before a fork, for the calls of other threads, and let no new ones begin."""
        with self._calls.changed:
            self._forks += 1
            self._calls.changed.wait_for(lambda: not self._calls.of_others, _MOST_SECONDS)

    def let_go(self) -> None:
        """Let calls begin again after a fork, in the parent."""
        with self._calls.changed:
            self._forks -= 1
            self._calls.changed.notify_all()

    def start_anew(self) -> None:
        """Begin anew after a fork, in the child: the threads that were in calls are not there."""
        self._calls.forget()
        self._forks = 0

    def _wait_for_forks(self) -> None:
        self._calls.changed.wait_for(lambda: not self._forks)


@functools.cache
def fork_gate() -> ForkGate:
    """Give the gate of this process, and set it up before Python's own forks.

    Forks of C code come past Python: `libzeroflaw` calls `hold` and `let_go` around them.
    """
    gate = ForkGate()
    if hasattr(os, "register_at_fork"):  # where there is no fork there is nothing to hold
        os.register_at_fork(
            before=gate.hold, after_in_parent=gate.let_go, after_in_child=gate.start_anew
        )
    return gate
