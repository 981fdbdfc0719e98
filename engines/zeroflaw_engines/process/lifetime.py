"""Where and how long a thing may be used: in the process that made it, until it is closed.

A fork copies the memory of a process but only the thread that forks. Engines, pools and streams
live of other threads, so that in the child each call of theirs would wait for ever, and so would
their destruction when the child ends. There, calls raise instead, and nothing is destroyed.
"""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from zeroflaw_engines.errors import ProcessError, ZeroflawError
from zeroflaw_engines.process.calls_under_way import CallsUnderWay


class HomeProcess:
    """The process in which a thing was made, and outside of which it cannot work.

    Args:
        owner: The thing; a forked child keeps it for ever.
        name: What it is, for the error, such as `this Inspector`.
    """

    def __init__(self, owner: object, name: str) -> None:
        self._name = name
        self._process = os.getpid()
        _watch_forks()
        _owners.add(owner)

    @property
    def is_here(self) -> bool:
        """Whether this is that process."""
        return os.getpid() == self._process

    def require(self) -> None:
        """Refuse a fork of that process.

        Raises:
            ProcessError: This is one.
        """
        if not self.is_here:
            raise ProcessError(
                f"{self._name} was made in process {self._process}, and process {os.getpid()} is"
                " a fork of it, which has none of its threads",
                "load it in the child itself, or start processes with"
                " multiprocessing.get_context('spawn')",
            )


class Lifetime:
    """The time in which a thing may be called: `close` waits for the calls that are under way.

    Args:
        name: What it is, for errors.
        closed: The error of a call that comes too late.
    """

    def __init__(self, owner: object, name: str, closed: Callable[[], ZeroflawError]) -> None:
        self._home = HomeProcess(owner, name)
        self._closed_error = closed
        self._calls = CallsUnderWay()
        self._release: Callable[[], None] | None = None
        self._released = False

    @contextmanager
    def call(self) -> Iterator[None]:
        """Count a call that is under way; calls within it are part of it.

        Raises:
            ProcessError: This is a fork of the process that made the thing.
            ZeroflawError: It is closed.
        """
        self._home.require()
        with self._calls.call(self._require_open, self._release_if_unused):
            yield

    def close(self, release: Callable[[], None]) -> None:
        """End it: no more calls, then `release`, once. A fork leaves everything as it is.

        A thread that closes within a call of its own, such as a signal handler's, does not wait:
        the call that ends last releases.
        """
        if not self._home.is_here:
            return
        with self._calls.changed:
            if self._release is None:
                self._release = release
            if self._calls.own:
                return
            self._calls.changed.wait_for(lambda: not self._calls.any)
            self._release_if_unused()

    def _require_open(self) -> None:
        if self._release is not None:
            raise self._closed_error()

    def _release_if_unused(self) -> None:
        if self._release is None or self._calls.any or self._released:
            return
        self._released = True
        self._release()


def refuse_copy(name: str, remedy: str) -> NoReturn:
    """Refuse to pickle or copy a thing; for `__reduce__`.

    Args:
        name: What it is, such as `an Inspector`.

    Raises:
        ProcessError: Always.
    """
    raise ProcessError(f"{name} cannot be pickled or copied: it holds engines and threads", remedy)


_owners: weakref.WeakSet[object] = weakref.WeakSet()


@functools.cache
def _watch_forks() -> None:
    if hasattr(os, "register_at_fork"):  # where there is no fork there is nothing to watch
        os.register_at_fork(after_in_child=_keep_owners)


def _keep_owners() -> None:
    """Take one reference too many to each: the child never destroys them, not even at its end."""
    import ctypes

    for owner in list(_owners):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))
