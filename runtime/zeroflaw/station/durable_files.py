"""Files that are whole whenever they are seen, and disk errors that say which file it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zeroflaw_engines.errors import ResultsError, RunFolderError
from zeroflaw_engines.files import write_durably


def replace_file(path: Path, data: bytes, *, by_way_of: Path) -> None:
    """Give a file new contents at once: whoever opens it sees the old ones or the new ones.

    Args:
        path: The file; a link that bears its name is replaced, not followed.
        by_way_of: Where they are written first; on the same disk.
    """
    try:
        write_durably(by_way_of, data)
        by_way_of.replace(path)
    except OSError:
        by_way_of.unlink(missing_ok=True)  # it takes space that a full disk lacks
        raise


@contextmanager
def disk_errors_named(
    named: Path, kind: type[RunFolderError | ResultsError] = RunFolderError
) -> Iterator[None]:
    """Turn errors of the disk into errors of ours.

    Raises:
        RunFolderError: The block raised OSError; or ResultsError, as `kind` says.
    """
    try:
        yield
    except OSError as error:
        raise kind(
            f"{named} cannot be written: {error.strerror or error}",
            "choose another --out, or free space on its disk",
        ) from error
