"""`zeroflaw evaluate`, which joins the command line through an entry point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from zeroflaw.cli.inspect import ParametersOption, SettingsOption, chosen_parameters
from zeroflaw.cli.options import (
    EXIT_SOME_FAILED,
    DeviceOption,
    WhiteLevelOption,
    announce,
    progress_bar,
)
from zeroflaw_engines.bundle.bundle import read_manifest
from zeroflaw_engines.bundle.shipped import SHIPPED_NAME
from zeroflaw_engines.errors import EvaluationError, MissingExtraError
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.process.terminal import err, out, print_warning

if TYPE_CHECKING:
    from zeroflaw_benchmarks.evaluate.job import EvaluationJob, Progress
    from zeroflaw_export.datasets import Dataset, Skipped

_MAX_SKIPS_SHOWN: Final = 10
_SIZE: Final = 518  # the paper's


# Typer takes no list of literals: the names are those of `Refiner`, `Column` and `Ablation`.
class _Refiner(StrEnum):
    CASCADE = "cascade"
    MMR = "mmr"
    BOX_PROPOSALS = "box_proposals"
    NONE = "none"


class _Column(StrEnum):
    AUROC = "auroc"
    F1_MAX = "f1-max"
    AP = "ap"
    PRO = "pro"
    WITHIN_IMAGE = "within-image"
    IMAGE_AUROC = "image-auroc"
    IMAGE_F1_MAX = "image-f1-max"
    IMAGE_AP = "image-ap"


class _Ablation(StrEnum):
    KERNEL = "kernel"
    CASCADE = "cascade"


def evaluate(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="BUNDLE DATASET",
            help=f"A directory that `zeroflaw export` wrote, or `{SHIPPED_NAME}`, and the directory"
            " of the dataset. With --compare any number of bundles, and the dataset last.",
        ),
    ],
    *,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare", help="One table of several methods, and which is best for this dataset."
        ),
    ] = False,
    refiners: Annotated[
        list[_Refiner] | None,
        typer.Option(
            "--refiner",
            help="--compare: also with this refiner, for every bundle; repeatable. The one that a"
            " bundle records is always measured.",
        ),
    ] = None,
    best_by: Annotated[
        _Column, typer.Option(help="--compare: the column that says which is best.")
    ] = _Column.AP,
    within_ms: Annotated[
        float | None,
        typer.Option(min=0, metavar="MS", help="--compare: the best takes at most so long."),
    ] = None,
    latency_runs: Annotated[
        int, typer.Option(min=1, metavar="N", help="--compare: inspections of each row to time.")
    ] = 36,
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

    Several methods in one table, timed on this machine:

        zeroflaw evaluate my_bundle other_bundle mvtec_ad/ --compare --refiner none --within-ms 300
    """
    *bundles, dataset = paths
    _require_fitting(
        bundles, compare=compare, ablate=ablate, refiners=refiners, within_ms=within_ms
    )
    try:
        import matplotlib as mpl  # noqa: F401 - to say so before the work, not after it

        from zeroflaw_benchmarks.evaluate.cache import readable_bytes
        from zeroflaw_benchmarks.evaluate.comparison.command import print_comparison
        from zeroflaw_benchmarks.evaluate.comparison.comparison import (
            ComparisonOptions,
            compare_methods,
        )
        from zeroflaw_benchmarks.evaluate.comparison.methods import methods_of
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
    options = EvaluationOptions(
        cache=cache or out_dir / "cache",
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

    def chosen(recorded: MethodParameters) -> MethodParameters:
        return chosen_parameters(recorded, parameters, settings or [])

    def found() -> Dataset:
        return read_dataset(
            Path(dataset), layout=layout, split=split, classes=classes, white_level=white_level
        )

    if compare:
        methods = methods_of(
            bundles,
            tuple(one.value for one in refiners or ()),
            shots=bool(options.shots),
            adjusted=chosen,
        )
        how = ComparisonOptions(best_by.value, within_ms, latency_runs)
        with _progress() as progress:
            compared = compare_methods(methods, found(), options, how, progress=progress)
        print_comparison(compared, out_dir)
        _end(compared.notes, compared.skipped)
        return
    (bundle,) = bundles
    recorded = read_manifest(bundle).method_parameters
    options = replace(options, parameters=chosen(recorded))

    def begin(job: EvaluationJob) -> None:
        announce(job.bundle, bundle)
        err.print(
            f"{len(job.samples)} images of {len(job.class_names)} classes; the cache "
            f"{job.cache.root} takes up to {readable_bytes(job.bytes_needed)} more, "
            f"{readable_bytes(job.bytes_free)} are free",
            markup=False,
        )

    with _progress() as progress:
        job, result = evaluate_bundle(bundle, found(), options, progress=progress, begin=begin)
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
    out.print(
        f"{len(job.samples)} images evaluated, {len(result.skipped)} files skipped: {report}",
        markup=False,
    )
    _end(result.notes, result.skipped)


def _end(notes: Sequence[str], skipped: Sequence[Skipped]) -> None:
    """Say the notes and the files that were skipped, and end with the code that tells of these."""
    for note in notes:
        print_warning(note)
    for skip in skipped[:_MAX_SKIPS_SHOWN]:
        print_warning(f"skipped {skip.path}: {skip.reason}")
    if skipped:
        raise typer.Exit(EXIT_SOME_FAILED)


def _require_fitting(
    bundles: Sequence[str],
    *,
    compare: bool,
    ablate: Sequence[_Ablation] | None,
    refiners: Sequence[_Refiner] | None,
    within_ms: float | None,
) -> None:
    """Refuse paths and options that do not fit each other: some would do nothing.

    Raises:
        EvaluationError: They do not.
    """
    if not bundles or (len(bundles) > 1 and not compare):
        raise EvaluationError(
            f"{len(bundles)} bundles are named beside the dataset, which is the last path",
            "name one bundle and the dataset, or several bundles with --compare",
        )
    if compare and ablate:
        raise EvaluationError(
            "--ablate is of one bundle, and --compare of several methods", "leave one of them out"
        )
    if compare:
        return
    if refiners:
        raise EvaluationError(
            "--refiner is of --compare", f"write --set refiner={refiners[0].value}, or --compare"
        )
    if within_ms is not None:
        raise EvaluationError("--within-ms is of --compare", "leave it out, or compare methods")


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
