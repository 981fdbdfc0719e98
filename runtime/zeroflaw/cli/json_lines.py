"""`--json`: JSON on standard output, and nothing else there, whatever a library prints."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Annotated, Any, TextIO

import msgspec
import typer

from zeroflaw_engines.errors import OutputError


class _PrintedByOthers(io.TextIOBase):
    """Stands in for `sys.stdout`: what is printed goes to standard error.

    Attributes:
        kept: Standard output itself.
    """

    def __init__(self, kept: TextIO) -> None:
        super().__init__()
        self.kept = kept

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        return len(text) if sys.stderr is None else sys.stderr.write(text)

    def flush(self) -> None:
        if sys.stderr is not None:
            sys.stderr.flush()


def _keep_for_json(chosen: bool) -> bool:
    """Keep standard output for JSON; called as soon as the option is read."""
    if chosen and sys.stdout is not None and not isinstance(sys.stdout, _PrintedByOthers):
        sys.stdout = _PrintedByOthers(sys.stdout)
    return chosen


def json_option(text: str) -> Any:  # noqa: ANN401 - as typer.Option gives it
    """Make the option `--json`, which keeps standard output for `print_json`.

    Args:
        text: What `--help` says of it, one sentence or more.
    """
    return typer.Option("--json", callback=_keep_for_json, help=text)


JsonLinesOption = Annotated[
    bool, json_option("Print one JSON object a line; docs/inspection.md describes it.")
]


def print_json(document: object) -> None:
    """Write a document as one line.

    Raises:
        OutputError: Standard output cannot be written.
    """
    print_json_text(msgspec.json.encode(document))


def print_json_text(text: bytes) -> None:
    """Write JSON as it is, and end the line.

    Raises:
        OutputError: Standard output cannot be written.
    """
    typer.echo(text, file=getattr(sys.stdout, "kept", None))


class RecordLines:
    """Writes records as they come; where none can be written, the command still ends its work.

    Attributes:
        failure: Why standard output could not be written; None if it could.
    """

    def __init__(self) -> None:
        self.failure: OutputError | None = None

    def __call__(self, record: bytes) -> None:
        """Write one record, unless an earlier one could not be written.

        Args:
            record: JSON without a line break.
        """
        if self.failure is not None:
            return
        try:
            print_json_text(record)
        except OutputError as error:
            self.failure = error

    def finish(self) -> None:
        """Raise what kept a record from being written.

        Raises:
            OutputError: Standard output could not be written.
        """
        if self.failure is not None:
            raise self.failure


def path_text(path: Path) -> str:
    """Return the path as it was given; bytes that are no UTF-8 are written as escapes."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def encodable(text: str) -> str:
    """Return a text that UTF-8 can encode; what it cannot is written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
