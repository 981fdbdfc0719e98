"""`zeroflaw train-adapters`, which joins the command line through an entry point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
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
from zeroflaw_export.cli.export import weights_source
from zeroflaw_export.datasets import Layout, Split, Unmasked

if TYPE_CHECKING:
    from zeroflaw_export.training.samples import TrainingProgress
    from zeroflaw_export.training.train import TrainingRecord

_SKIPS_SHOWN = 5


def train_adapters(
    dataset: Annotated[
        Path, typer.Argument(help="MVTec-AD, VisA, or a folder with images/ and masks/.")
    ],
    *,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="File to write: .safetensors, or .pth as APRIL-GAN's."),
    ],
    clip: Annotated[
        str, typer.Option(help="CLIP: vit_l_14_336 (or tiny, for tests).")
    ] = "vit_l_14_336",
    clip_weights: Annotated[
        str | None, typer.Option(help="File or official name; default: OpenAI's.")
    ] = None,
    random_weights: Annotated[
        int | None,
        typer.Option(metavar="SEED", help="Random CLIP weights instead of any, for tests."),
    ] = None,
    clip_image_size: Annotated[
        int | None, typer.Option(help="Side of CLIP's input, px; default 518.")
    ] = None,
    layout: Annotated[
        Layout | None, typer.Option(help="How the data set is laid out; default: recognised.")
    ] = None,
    class_: Annotated[
        list[str] | None,
        typer.Option("--class", "-c", help="Class to train on; repeatable; default: all."),
    ] = None,
    split: Annotated[
        Split, typer.Option(help="The test split has the defects, and the recipe uses it.")
    ] = "test",
    unmasked: Annotated[
        Unmasked, typer.Option(help="What an image without a mask is in a plain folder.")
    ] = "error",
    epochs: Annotated[
        int | None, typer.Option(help="Default: 3 on MVTec-AD's layout, 15 on others.")
    ] = None,
    mosaic: Annotated[
        float | None,
        typer.Option(help="Share of mosaics; default: 0.2 on MVTec-AD's layout, 0 on others."),
    ] = None,
    batch: Annotated[int, typer.Option(help="Images of one step.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of initial values, order and mosaics.")] = 111,
    init_from: Annotated[
        str | None, typer.Option(help="Adapters to start from: a file or an official name.")
    ] = None,
    ensembles: Annotated[
        Path | None, typer.Option(help="TOML file of sentences; default: WinCLIP's.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Directory of the token cache, 11 MB for each image.")
    ] = None,
    white_level: Annotated[
        float | None,
        typer.Option(
            metavar="VALUE",
            help="The value that is white, as 4095 for a 12-bit camera; default: what files say.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Where PyTorch runs: cpu or cuda.")] = "cpu",
    overwrite: Annotated[bool, typer.Option(help="Replace existing adapters.")] = False,
) -> None:
    """Train the linear adapters of CLIP on a data set with masks, after APRIL-GAN.

    The tower runs once over each image; its tokens are kept in the cache, and an epoch only
    reads them. A killed run goes on where it was when the same command is given again. Train on
    another data set than the one that you inspect: the adapters must not have seen it.

    Epochs, mosaics and the other defaults are those with which APRIL-GAN's adapters were trained.
    VisA's adapters, which serve MVTec-AD and anything else, and MVTec-AD's, which serve VisA:

        zeroflaw train-adapters VisA/ --out visa.safetensors

        zeroflaw train-adapters mvtec_anomaly_detection/ --out mvtec.safetensors

    On your own images/ and masks/, and then a bundle with the result:

        zeroflaw train-adapters my_parts/ --out mine.safetensors --init-from april_gan_visa

        zeroflaw export my_bundle --adapters mine.safetensors --product "my part"
    """
    try:
        from zeroflaw_export.datasets import read_dataset
        from zeroflaw_export.training.april_gan import published_recipe
        from zeroflaw_export.training.job import TrainingJob
        from zeroflaw_export.training.run import run_training
    except ImportError as error:
        raise MissingExtraError(
            f"`zeroflaw train-adapters` needs libraries that are not installed ({error.name})",
            "install zeroflaw[export] on this workstation; stations do not need it",
        ) from error
    if random_weights is not None and clip_weights:
        raise TrainingError(
            "both random weights and a weights file were given", "give one or the other"
        )
    data = read_dataset(
        dataset,
        layout=layout,
        split=split,
        classes=class_,
        unmasked=unmasked,
        white_level=white_level,
    )
    given: dict[str, Any] = {"batch": batch, "learning_rate": learning_rate, "seed": seed}
    given |= {"epochs": epochs} if epochs is not None else {}
    given |= {"mosaic": mosaic} if mosaic is not None else {}
    job = TrainingJob(
        dataset=data,
        settings=replace(published_recipe(data.layout), **given),
        clip_architecture=clip,
        clip_weights=weights_source(clip_weights or f"clip_{clip}", random_weights, None),
        clip_image_size=clip_image_size,
        initial_weights=weights_source(init_from, None, None) if init_from else None,
        ensembles=ensembles,
        token_cache=cache,
        device=device,
    )
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
