"""Signals that end a command: they interrupt it like Ctrl-C, and never in the midst of a write."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_TERMINATING: Final = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Terminated(BaseException):
    """The process was told to end by a signal; no error of ours, and none to be caught.

    Attributes:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def raise_on_termination() -> None:
    """Make SIGTERM and SIGHUP raise `Terminated` in the main thread, unless they are ignored."""
    for number in _TERMINATING:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _terminate)


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Let signals that end the command wait until the block has ended."""
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers run in the main thread alone
        return
    waiting: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        waiting.append(number)

    handlers = {
        number: handler
        for number in (signal.SIGINT, *_TERMINATING)
        if callable(handler := signal.getsignal(number))
    }
    for number in handlers:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if waiting:
            signal.raise_signal(waiting[0])


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise Terminated(number)
