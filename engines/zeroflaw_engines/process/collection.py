"""Python's collection of garbage, which must not run inside some native calls."""

from __future__ import annotations

import gc
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_postponing = 0
_was_enabled = False


@contextmanager
def collection_postponed() -> Iterator[None]:
    """Let no automatic collection of garbage run in this process while the block runs.

    TensorRT calls its logger while it holds a lock that the end of its other objects takes as
    well: garbage that is collected inside that call, and holds such an object, would wait for
    itself for ever.
    """
    global _postponing, _was_enabled  # noqa: PLW0603 - the collector itself is one a process
    with _lock:
        if not _postponing:
            _was_enabled = gc.isenabled()
            gc.disable()
        _postponing += 1
    try:
        yield
    finally:
        with _lock:
            _postponing -= 1
            if not _postponing and _was_enabled:
                gc.enable()


def release_locals(error: BaseException) -> None:
    """Let go of what the functions held that an error has left, and those of its causes.

    Whoever keeps the error would keep their native objects alive.
    """
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__
