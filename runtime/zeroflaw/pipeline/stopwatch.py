"""Timing the stages of one inspection."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """One stretch of time in which a stage ran.

    Attributes:
        thread: Name of the thread it ran in.
        start: Seconds, on the clock of `time.perf_counter`.
        end: Seconds, on the same clock.
    """

    stage: str
    thread: str
    start: float
    end: float


class Stopwatch:
    """Wall-clock milliseconds by stage; stages may run in several threads.

    Attributes:
        milliseconds: Of every stage that has ended.
        spans: When each of them ran, in the order in which they ended.
    """

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self.spans: list[Span] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block under a name; a name that comes again adds up."""
        start = time.perf_counter()
        try:
            yield
        finally:
            end = time.perf_counter()
            spent = 1e3 * (end - start)
            self.milliseconds[name] = self.milliseconds.get(name, 0.0) + spent
            self.spans.append(Span(name, threading.current_thread().name, start, end))
