"""`zeroflaw evaluate`, which joins the command line through an entry point."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from zeroflaw.cli.inspect import ParametersOption, SettingsOption, chosen_parameters
from zeroflaw.cli.options import (
    EXIT_SOME_FAILED,
    BundleArgument,
    DeviceOption,
    WhiteLevelOption,
    announce,
    progress_bar,
)
from zeroflaw_engines.bundle.bundle import read_manifest
from zeroflaw_engines.errors import MissingExtraError
from zeroflaw_engines.process.terminal import err, out, print_warning

if TYPE_CHECKING:
    from zeroflaw_benchmarks.evaluate.job import EvaluationJob, Progress

_MAX_SKIPS_SHOWN: Final = 10
_SIZE: Final = 518  # the paper's


class _Ablation(StrEnum):  # typer takes no list of literals
    KERNEL = "kernel"
    CASCADE = "cascade"


def evaluate(
    bundle: BundleArgument,
    dataset: Annotated[Path, typer.Argument(help="Directory of the dataset.")],
    *,
    layout: Annotated[
        Literal["mvtec", "visa", "folder"] | None,
        typer.Option(help="How the dataset is laid out; default: recognised."),
    ] = None,
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="Only this class; repeatable.")
    ] = None,
    split: Annotated[Literal["train", "test"], typer.Option(help="Which part of it.")] = "test",
    product: Annotated[
        str | None,
        typer.Option(
            "--product",
            "-p",
            help="Inspect every class as this product; default: the one with the class's name, "
            "or the bundle's only one.",
        ),
    ] = None,
    out_dir: Annotated[
        Path, typer.Option("--out", "-o", help="Directory for the results; made if needed.")
    ] = Path("evaluation"),
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Directory for encodings; default: `cache` below --out. Keep it to "
            "evaluate other parameters without running the encoders again."
        ),
    ] = None,
    ablate: Annotated[
        list[_Ablation] | None,
        typer.Option(help="Measure the paper's Table 2 (kernel) or 3 (cascade); repeatable."),
    ] = None,
    shots: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,…",
            help="Measure with so many reference photos as well, drawn from the train split.",
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Draws of the reference photos for each number of them.")
    ] = 5,
    size: Annotated[
        int,
        typer.Option(
            min=32,
            metavar="PX",
            help="Side at which scores are measured; small defects of large frames take more.",
        ),
    ] = _SIZE,
    contact_sheet: Annotated[
        int, typer.Option(min=0, metavar="N", help="Images of each class on contact sheets.")
    ] = 4,
    backend: Annotated[str, typer.Option(help="What runs the engines.")] = "onnxruntime",
    device: DeviceOption = 0,
    processes: Annotated[
        int,
        typer.Option(
            min=0, help="Processes, each with its own engines (ViT-H: 6 GB); 0: one a core."
        ),
    ] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each engine.")] = 1,
    white_level: WhiteLevelOption = None,
    parameters: ParametersOption = None,
    settings: SettingsOption = None,
) -> None:
    """Measure a bundle on a dataset, as the paper measures its method.

    Pixel AUROC, F1-max, AP and PRO for four scorings, and the image-level ones, by class and as
    means, beside the published figures. The output directory gets evaluation.md, .csv, .json and
    .png, and contact_sheet.html. Encoders run once for each image; a run that was interrupted
    goes on where it was. Images of a product with settings are inspected as a station does it:
    aligned, in tiles, by zones and rules.

    All of a dataset, and the paper's ablations for two classes:

        zeroflaw evaluate my_bundle mvtec_ad/ -o results

        zeroflaw evaluate my_bundle mvtec_ad/ --class screw --class tile --ablate kernel

    And with 1, 2, 4 and 8 good photos of each class as reference, five draws of each:

        zeroflaw evaluate my_bundle mvtec_ad/ --shots 1,2,4,8 --seeds 5
    """
    try:
        import matplotlib as mpl  # noqa: F401 - to say so before the work, not after it

        from zeroflaw_benchmarks.evaluate.cache import readable_bytes
        from zeroflaw_benchmarks.evaluate.evaluation import evaluate_bundle
        from zeroflaw_benchmarks.evaluate.job import EvaluationOptions
        from zeroflaw_benchmarks.evaluate.passes.rows import ABLATIONS
        from zeroflaw_benchmarks.evaluate.report.contact_sheet import write_contact_sheets
        from zeroflaw_benchmarks.evaluate.report.figure import write_figure
        from zeroflaw_benchmarks.evaluate.report.shots_table import shots_table
        from zeroflaw_benchmarks.evaluate.report.tables import (
            EVALUATION_NAME,
            cascade_table,
            kernel_table,
            paper_table,
            write_tables,
        )
        from zeroflaw_benchmarks.evaluate.shots.drawing import parsed_shots
        from zeroflaw_export.datasets import read_dataset
    except ImportError as error:
        raise MissingExtraError(
            f"`zeroflaw evaluate` needs libraries that are not installed ({error.name})",
            "install zeroflaw[evaluate] on this workstation; stations do not need it",
        ) from error
    ablations = tuple(name for name in ABLATIONS if name in (ablate or ()))
    recorded = read_manifest(bundle).method_parameters
    options = EvaluationOptions(
        cache=cache or out_dir / "cache",
        parameters=chosen_parameters(recorded, parameters, settings or []),
        product=product,
        ablations=ablations,
        size=size,
        backend=backend,
        device=device,
        processes=processes,
        threads=threads,
        shots=parsed_shots(shots) if shots is not None else (),
        seeds=seeds,
    )

    def begin(job: EvaluationJob) -> None:
        announce(job.bundle, bundle)
        err.print(
            f"{len(job.samples)} images of {len(job.class_names)} classes; the cache "
            f"{job.cache.root} takes up to {readable_bytes(job.bytes_needed)} more, "
            f"{readable_bytes(job.bytes_free)} are free",
            markup=False,
        )

    with _progress() as progress:
        found = read_dataset(
            dataset, layout=layout, split=split, classes=classes, white_level=white_level
        )
        job, result = evaluate_bundle(bundle, found, options, progress=progress, begin=begin)
    report, *_ = write_tables(result, out_dir)
    write_figure(result, out_dir / f"{EVALUATION_NAME}.png")
    if contact_sheet:
        write_contact_sheets(job, contact_sheet, out_dir)
    tables = [paper_table(result)]
    tables += [shots_table(result)] if result.shot_runs else []
    tables += [kernel_table(result)] if "kernel" in ablations else []
    tables += [cascade_table(result)] if "cascade" in ablations else []
    for table in tables:
        out.print(table, markup=False)
    for note in result.notes:
        print_warning(note)
    for skip in result.skipped[:_MAX_SKIPS_SHOWN]:
        print_warning(f"skipped {skip.path}: {skip.reason}")
    out.print(
        f"{len(job.samples)} images evaluated, {len(result.skipped)} files skipped: {report}",
        markup=False,
    )
    if result.skipped:
        raise typer.Exit(EXIT_SOME_FAILED)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar for each thing that is done, as it comes."""
    with progress_bar() as bars:
        tasks: dict[str, int] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)  # type: ignore[arg-type]

        yield report
