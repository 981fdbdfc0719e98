"""Zero bytes where a file was not written: what most interrupted writes and lost blocks leave."""

from __future__ import annotations

from typing import Final

# The shortest block that file systems and cameras lose is 512 bytes; a tail may be shorter. The
# output of an entropy coder has no such run: 32 zero bytes come by chance once in 10^77.
SUSPICIOUS_RUN: Final = 32


def has_zero_run(data: bytes, start: int, stop: int, length: int = SUSPICIOUS_RUN) -> bool:
    """Return whether data[start:stop] has a run of at least so many zero bytes."""
    return data.find(bytes(length), start, stop) >= 0


def trailing_zeros(data: bytes) -> int:
    """Count the zero bytes that data end with."""
    return len(data) - len(data.rstrip(b"\0"))


def zero_tail_warning(zeros: int, row_bytes: int, total_bytes: int) -> tuple[str, ...]:
    """Return a warning if the stored pixels end in zero rows, but are not all zero.

    Args:
        zeros: Zero bytes at the end of the stored pixels.
        row_bytes: Bytes of one stored row.
        total_bytes: Bytes of all of the stored pixels.
    """
    rows = zeros // max(row_bytes, 1)
    if rows == 0 or zeros >= total_bytes:
        return ()
    text = (
        f"the last {rows} stored rows are all zero: if the picture is not plain there, the file"
        " was not written completely"
    )
    return (text,)


def rest_warning(rest: bytes) -> tuple[str, ...]:
    """Return a warning of what follows the end of a picture, unless it is zero padding."""
    if not rest.strip(b"\0"):
        return ()
    return (f"{len(rest)} bytes after the end of the picture were not read",)
