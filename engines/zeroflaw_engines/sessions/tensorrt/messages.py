"""What TensorRT says: it has one logger a process, so each text goes to the call at hand."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_log = logging.getLogger(__name__)
_thread = threading.local()


@contextmanager
def errors_said() -> Iterator[list[str]]:
    """Collect the errors that TensorRT reports on this thread while the block runs."""
    outer: list[str] | None = getattr(_thread, "errors", None)
    errors: list[str] = []
    _thread.errors = errors
    try:
        yield errors
    finally:
        _thread.errors = outer


@functools.cache
def process_logger(base: Any) -> Any:  # noqa: ANN401 - TensorRT's own types, loaded lazily
    """Return the one logger of this process; TensorRT ignores every one after the first.

    Args:
        base: `ILogger` of the bindings.
    """

    class ProcessLogger(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: Any, text: str) -> None:  # noqa: ANN401 - as above
            if severity in {base.ERROR, base.INTERNAL_ERROR}:
                getattr(_thread, "errors", []).append(text)
            _log.debug("%s: %s", severity, text)

    return ProcessLogger()
