"""The calls of a thing that are under way, by thread, and the condition under which they change."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class CallsUnderWay:
    """Counts calls by thread; a call within another of the same thread is part of it.

    Attributes:
        changed: Held while a call begins or ends, and notified when one has ended.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: after a fork the threads that were in calls, or held the lock, are gone."""
        self.changed = threading.Condition()
        self._depth: Counter[int] = Counter()

    @contextmanager
    def call(
        self, admit: Callable[[], None], ended: Callable[[], None] | None = None
    ) -> Iterator[None]:
        """Count a call while the block runs.

        Args:
            admit: Asked before the outermost call of a thread, with `changed` held: waits for
                its turn, or raises.
            ended: Called after every call, with `changed` held.
        """
        thread = threading.get_ident()
        with self.changed:
            if not self._depth[thread]:
                admit()
            self._depth[thread] += 1
        try:
            yield
        finally:
            with self.changed:
                self._depth[thread] -= 1
                if self._depth[thread] <= 0:
                    del self._depth[thread]
                self.changed.notify_all()
                if ended is not None:
                    ended()

    @property
    def any(self) -> bool:
        """Whether any thread is in a call."""
        return bool(self._depth)

    @property
    def own(self) -> bool:
        """Whether this thread is in one."""
        return threading.get_ident() in self._depth

    @property
    def of_others(self) -> bool:
        """Whether another thread is in one."""
        return len(self._depth) > self.own
