"""The files of a report, written whole, or the reason why not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from zeroflaw_benchmarks.evaluate.cache import write_whole
from zeroflaw_engines.errors import EvaluationError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of a file that cannot be written which one it is.

    Raises:
        EvaluationError: It cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise EvaluationError(
            f"{path} cannot be written: {error.strerror}",
            "choose another --out, or free space on its disk",
        ) from error


def write_report(out_dir: Path, name: str, contents: Mapping[str, bytes]) -> tuple[Path, ...]:
    """Write one report in several formats.

    Args:
        name: Of the files.
        contents: By suffix, with its dot.

    Returns:
        Their paths, in the same order.

    Raises:
        EvaluationError: A file cannot be written.
    """
    paths = {out_dir / f"{name}{suffix}": data for suffix, data in contents.items()}
    for path, data in paths.items():
        with writing(path):
            write_whole(path, data)
    return tuple(paths)
