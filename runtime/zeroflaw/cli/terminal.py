"""What every command says in the same way: errors, warnings, progress."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from zeroflaw_engines.bundle import Bundle, open_bundle
from zeroflaw_engines.errors import ZeroflawError

# Results go to standard output, all else to standard error.
err = Console(stderr=True, highlight=False, soft_wrap=True)
out = Console(highlight=False, soft_wrap=True)


def fail(error: ZeroflawError) -> NoReturn:
    """Prints an error's cause and remedy and ends with exit code 1."""
    print_error(error)
    sys.exit(1)


def print_error(error: ZeroflawError) -> None:
    """Prints an error's cause and remedy."""
    err.print("error:", style="bold red", end=" ")
    err.print(error.cause, markup=False)
    err.print(f"  remedy: {error.remedy}", markup=False)


def print_warning(text: str) -> None:
    """Prints a warning."""
    err.print("warning:", style="bold yellow", end=" ")
    err.print(text, markup=False)


def open_and_announce(path: Path, *, verify_digests: bool = True) -> Bundle:
    """Opens a bundle and says so if its weights are random."""
    bundle = open_bundle(path, verify_digests=verify_digests)
    announce_random_weights(bundle)
    return bundle


def announce_random_weights(bundle: Bundle) -> None:
    """Warns if the weights of a bundle are random."""
    seed = bundle.manifest.random_weights
    if seed is not None:
        print_warning(f"{bundle.path} has random weights (seed {seed}): its results mean nothing")


def progress_bar() -> Progress:
    """A progress bar on standard error, only where someone can see it."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
    )
