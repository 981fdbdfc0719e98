"""Closing at the end of the process what was left open, while it still can be closed.

A thread that comes back from an engine when the interpreter is gone ends the process with
`terminate called`. So streams end before: before `atexit` as well, since the pools of
`concurrent.futures`, which inspections need, take no more work from there on.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 - its hook is registered first, and so runs last
import functools
import threading
import weakref
from typing import Protocol


class Closable(Protocol):
    """What can be closed."""

    def close(self) -> None:
        """End what is under way."""


def close_at_exit(thing: Closable) -> None:
    """See to it that a thing is closed before the process ends, if it still exists then."""
    _watch_exit()
    _open.add(thing)


_open: weakref.WeakSet[Closable] = weakref.WeakSet()


@functools.cache
def _watch_exit() -> None:
    # The hook of `concurrent.futures` itself, which Python does not document.
    register = getattr(threading, "_register_atexit", atexit.register)
    register(_close_all)


def _close_all() -> None:
    for thing in list(_open):
        thing.close()
