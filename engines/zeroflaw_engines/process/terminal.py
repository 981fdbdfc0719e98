"""The terminal, as every command uses it: results on standard output, all else on the other."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer
from rich.console import Console

from zeroflaw_engines.errors import ZeroflawError

# Results go to standard output, all else to standard error.
err = Console(stderr=True, highlight=False, soft_wrap=True)
out = Console(highlight=False, soft_wrap=True)


def run_module(command: Callable[..., None]) -> None:
    """Run the command of a module that `python -m` starts; its errors look as everywhere.

    Args:
        command: Its parameters are the options, as typer reads them.
    """
    try:
        typer.run(command)
    except ZeroflawError as error:
        print_error(error)
        sys.exit(1)


def print_error(error: ZeroflawError) -> None:
    """Print an error's cause and remedy."""
    err.print("error:", style="bold red", end=" ")
    err.print(printable(error.cause), markup=False)
    err.print(f"  remedy: {printable(error.remedy)}", markup=False)


def print_warning(text: str) -> None:
    """Print a warning."""
    err.print("warning:", style="bold yellow", end=" ")
    err.print(printable(text), markup=False)


def printable(text: object) -> str:
    """Give a text that a terminal shows and does not obey: names of files may hold anything.

    What cannot be printed is written as an escape, and further lines are indented, so that none
    of them can pass for a message of its own.
    """
    shown = "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape", "surrogatepass").decode()
        for c in str(text)
    )
    return shown.replace("\n", "\n    ")
