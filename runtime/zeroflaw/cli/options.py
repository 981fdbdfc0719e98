"""What the commands share: their options, what they say of a bundle, progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from zeroflaw.pictures.images import Orientation
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.shipped import SHIPPED_NAMES
from zeroflaw_engines.errors import ZeroflawError
from zeroflaw_engines.process.terminal import err, print_error, print_warning

EXIT_SOME_FAILED: Final = 3
EXIT_REJECTED: Final = 4
EXIT_HELD: Final = 6
_FILE_WARNINGS_SHOWN: Final = 5

# Text, not a Path: `mini` and `./mini` are different bundles.
BundleArgument = Annotated[
    str,
    typer.Argument(
        help="Directory that `zeroflaw export` wrote, or a bundle that ships with zeroflaw: "
        + ", ".join(SHIPPED_NAMES)
        + "."
    ),
]

# What every command takes that runs engines.
BackendOption = Annotated[
    str,
    typer.Option(
        help="What runs the engines: a backend that `zeroflaw doctor` lists, or `auto` for the"
        " fastest that is available."
    ),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(help="What they compute in: fp32, bf16 or fp16; default: that of the backend."),
]
DeviceOption = Annotated[
    int, typer.Option(min=0, help="Number of the GPU that runs them, as CUDA counts.")
]

# What every command takes that reads image files.
WhiteLevelOption = Annotated[
    float | None,
    typer.Option(
        metavar="VALUE",
        help="The value that is white, as 4095 for a 12-bit camera; default: what each file says.",
    ),
]
OrientationOption = Annotated[
    Orientation,
    typer.Option(help="Take pixels as they are stored, or turn them as orientation tags say."),
]
# The limit of `image_files.frame.MAX_FRAME_PIXELS`, for commands that inspect files.
MaxMegapixelsOption = Annotated[
    float,
    typer.Option(min=1e-6, help="Larger frames are refused; millions of pixels, height x width."),
]


def open_and_announce(name: str | Path, *, verify_digests: bool = True) -> Bundle:
    """Open a bundle and say what its user must know of it; see `announce`."""
    bundle = open_bundle(name, verify_digests=verify_digests)
    announce(bundle, name)
    return bundle


def announce(bundle: Bundle, name: str | Path) -> None:
    """Say what the user of a bundle must know: random weights, or a demonstration model."""
    for text in notes_of(bundle, name):
        print_warning(text)
    if isinstance(name, str) and name in SHIPPED_NAMES and Path(name).is_dir():
        print_warning(
            f"{name} is a bundle that ships with zeroflaw; the directory here is ./{name}"
        )


def notes_of(bundle: Bundle, name: str | Path) -> tuple[str, ...]:
    """Return what a reader of any result of a bundle must know; see `announce`."""
    notes = []
    seed, demonstration = bundle.manifest.random_weights, bundle.manifest.demonstration
    if seed is not None:
        notes.append(f"{name} has random weights (seed {seed}): its results mean nothing")
    if demonstration is not None:
        notes.append(f"{name} is a demonstration model: {demonstration}")
    return tuple(notes)


def print_file_warnings(warnings: Sequence[str]) -> None:
    """Print the first few of what is to be known of image files, and how many more there are."""
    for text in warnings[:_FILE_WARNINGS_SHOWN]:
        print_warning(text)
    if len(warnings) > _FILE_WARNINGS_SHOWN:
        print_warning(f"{len(warnings) - _FILE_WARNINGS_SHOWN} more of these")


@contextmanager
def file_progress(what: str, total: int) -> Iterator[Callable[[Path, ZeroflawError | None], None]]:
    """Give what is to be called after each file: it advances a bar, and prints an error."""
    with progress_bar() as bar:
        task = bar.add_task(what, total=total)

        def progress(_: Path, error: ZeroflawError | None) -> None:
            if error is not None:
                print_error(error)
            bar.advance(task)

        yield progress


def progress_bar() -> Progress:
    """Return a progress bar on standard error, only where someone can see it."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
    )
