"""What `zeroflaw train-adapters` and `train-localizer` share: options, progress, report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from zeroflaw_engines.errors import MissingExtraError, TrainingError
from zeroflaw_engines.process.terminal import err
from zeroflaw_export.datasets import Layout, Split, Unmasked

if TYPE_CHECKING:
    from zeroflaw_export.training.job import TrainingJob
    from zeroflaw_export.training.samples import TrainingProgress
    from zeroflaw_export.training.train import TrainingRecord

_SKIPS_SHOWN = 5

DatasetArgument = Annotated[
    Path, typer.Argument(help="MVTec-AD, VisA, or a folder with images/ and masks/.")
]
ClipOption = Annotated[str, typer.Option(help="CLIP: vit_l_14_336 (or tiny, for tests).")]
ClipWeightsOption = Annotated[
    str | None, typer.Option(help="File or official name; default: OpenAI's.")
]
RandomWeightsOption = Annotated[
    int | None,
    typer.Option(metavar="SEED", help="Random CLIP weights instead of any, for tests."),
]
ClipImageSizeOption = Annotated[
    int | None, typer.Option(help="Side of CLIP's input, px; default 518.")
]
LayoutOption = Annotated[
    Layout | None, typer.Option(help="How the data set is laid out; default: recognised.")
]
ClassOption = Annotated[
    list[str] | None,
    typer.Option("--class", "-c", help="Class to train on; repeatable; default: all."),
]
SplitOption = Annotated[
    Split, typer.Option(help="The test split has the defects, and the recipe uses it.")
]
UnmaskedOption = Annotated[
    Unmasked, typer.Option(help="What an image without a mask is in a plain folder.")
]
EnsemblesOption = Annotated[
    Path | None, typer.Option(help="TOML file of sentences; default: WinCLIP's.")
]
CacheOption = Annotated[
    Path | None, typer.Option(help="Directory of the token cache, 11 MB for each image.")
]
WhiteLevelOption = Annotated[
    float | None,
    typer.Option(
        metavar="VALUE",
        help="The value that is white, as 4095 for a 12-bit camera; default: what files say.",
    ),
]
DeviceOption = Annotated[str, typer.Option(help="Where PyTorch runs: cpu or cuda.")]
OverwriteOption = Annotated[bool, typer.Option(help="Replace an existing file.")]


def require_training(command: str) -> None:
    """Refuse an installation in which nothing can be trained.

    Raises:
        MissingExtraError: PyTorch, or what else training takes, is not installed.
    """
    try:
        import zeroflaw_export.training.learners
        import zeroflaw_export.training.run  # noqa: F401 - what the commands import once they run
    except ImportError as error:
        raise MissingExtraError(
            f"`zeroflaw {command}` needs libraries that are not installed ({error.name})",
            "install zeroflaw[export] on this workstation; stations do not need it",
        ) from error


def check_weights(clip_weights: str | None, random_weights: int | None) -> None:
    """Refuse weights that are both given and random.

    Raises:
        TrainingError: They are.
    """
    if random_weights is not None and clip_weights:
        raise TrainingError(
            "both random weights and a weights file were given", "give one or the other"
        )


def train(job: TrainingJob, out: Path, *, overwrite: bool) -> None:
    """Run a training with a bar, and print what it gave.

    Raises:
        ZeroflawError: See `run_training`.
    """
    from zeroflaw_export.training.run import run_training

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal) as bar:
        record = run_training(job, out, overwrite=overwrite, report=_reporter(bar))
    _report_skipped(record)
    counts = record.classes.values()
    typer.echo(
        f"{out}: {sum(c.good for c in counts)} good and {sum(c.defective for c in counts)}"
        f" defective images of {len(counts)} classes, skipped files: {len(record.skipped)},"
        f" {record.settings.epochs} epochs, loss {record.losses[0]:.3f} -> {record.losses[-1]:.3f}"
    )


def _reporter(bar: Progress) -> Callable[[TrainingProgress], None]:
    """Move the bar, and print what should remain: the cache's size and every epoch's loss."""
    tasks: dict[str, Any] = {}
    epochs_reported = 0

    def report(now: TrainingProgress) -> None:
        nonlocal epochs_reported
        if now.stage not in tasks:
            tasks[now.stage] = bar.add_task(now.stage, total=now.total)
            if now.cache_bytes:
                err.print(f"the token cache will grow by {decimal(now.cache_bytes)}")
            if not err.is_terminal:
                err.print(f"{now.stage}: {now.total}")
        text = now.stage if now.loss is None else f"{now.stage}, loss {now.loss:.3f}"
        bar.update(tasks[now.stage], completed=now.done, description=text)
        if now.epoch > epochs_reported:
            epochs_reported = now.epoch
            err.print(f"epoch {now.epoch}: loss {now.loss:.3f}")

    return report


def _report_skipped(record: TrainingRecord) -> None:
    if not record.skipped:
        return
    err.print(f"[bold yellow]warning:[/] not usable: {len(record.skipped)} files")
    for path, reason in list(record.skipped.items())[:_SKIPS_SHOWN]:
        err.print(f"  {path}: {reason}", markup=False)
    more = len(record.skipped) - _SKIPS_SHOWN
    if more > 0:
        err.print(f"  and {more} more; all are in the record")
