"""`--json`: one JSON object a line on standard output, and nothing else there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from zeroflaw_engines.errors import OutputError

JsonLinesOption = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object a line; docs/inspection.md describes it."),
]


def print_json(document: Mapping[str, object]) -> None:
    """Write a document as one line.

    Raises:
        OutputError: Standard output cannot be written.
    """
    typer.echo(msgspec.json.encode(document))


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
            typer.echo(record)
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
