"""Standard output and error that no character and no full disk turns into a traceback."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Final, TextIO

from zeroflaw_engines.errors import OutputError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_STANDARD_ERROR: Final = 2


def guard_standard_streams() -> None:
    """Make both streams take every character, and say what is wrong when output cannot be written.

    Standard output is the program's alone: what a library writes to its file descriptor goes to
    standard error.

    What the encoding of a stream lacks is written as an escape. The first write to standard
    output that fails raises OutputError; what comes after it is dropped, and so is all that
    standard error cannot take, for nobody can be told.
    """
    sys.stdout = _guarded(sys.stdout, name="standard output", alone=True)
    sys.stderr = _guarded(sys.stderr, name=None)


class _GuardedOutput(io.RawIOBase):
    """Bytes for a stream that may be closed or full.

    Args:
        name: What an error calls the stream; None if there shall be no error.
    """

    def __init__(self, raw: io.RawIOBase, name: str | None) -> None:
        super().__init__()
        self._raw = raw
        self._name = name
        self._failed = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()

    def write(self, data: ReadableBuffer, /) -> int | None:
        size = memoryview(data).nbytes
        if self._failed:
            return size
        try:
            return self._raw.write(data)
        except OSError as error:
            self._failed = True
            if self._name is None:
                return size
            raise OutputError(
                f"{self._name} cannot be written: {error.strerror}",
                "give it a place that takes it; files that the command wrote are there",
            ) from error


def _guarded(stream: TextIO | None, *, name: str | None, alone: bool = False) -> TextIO:
    """Return the stream with a guard, or itself if it is none of a process's own.

    Args:
        alone: Whether no one else may write to it.
    """
    if not isinstance(stream, io.TextIOWrapper):
        return stream  # type: ignore[return-value]  # None where there is no such stream
    encoding, line_buffering = stream.encoding, stream.line_buffering
    stream.flush()
    binary = stream.detach()
    raw = binary.detach() if isinstance(binary, io.BufferedWriter) else binary
    if alone:
        raw = _moved(raw)
    return io.TextIOWrapper(
        io.BufferedWriter(_GuardedOutput(raw, name)),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=line_buffering,
    )


def _moved(raw: io.RawIOBase) -> io.RawIOBase:
    """Give a stream a file descriptor that no library knows, and its old one to standard error."""
    own = os.dup(raw.fileno())
    try:
        os.dup2(_STANDARD_ERROR, raw.fileno())
    except OSError:  # there is no standard error that could take it
        os.close(own)
        return raw
    return io.FileIO(own, "w")
