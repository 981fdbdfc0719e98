"""`zeroflaw inspect`: image files in; masks, overlays, maps, JSON, a CSV summary and a page out."""

from __future__ import annotations

import csv
import datetime as dt
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from zeroflaw.cli.jobs import Job, find_jobs
from zeroflaw.cli.terminal import (
    EXIT_SOME_FAILED,
    BackendOption,
    BundleArgument,
    PrecisionOption,
    announce,
    err,
    notes_of,
    out,
    print_error,
    print_warning,
    progress_bar,
)
from zeroflaw.contact_sheet import (
    Card,
    SheetHeader,
    contact_sheet,
    failed_card,
    inspected_card,
)
from zeroflaw.frame import rgb_frame
from zeroflaw.images import read_image, write_image
from zeroflaw.inspection import Inspection
from zeroflaw.inspector import Inspector
from zeroflaw.overlay import draw_map, draw_mask, draw_overlay
from zeroflaw_engines.backends import AUTO, DEFAULT_BACKEND
from zeroflaw_engines.bundle import read_manifest
from zeroflaw_engines.errors import (
    EngineError,
    FrameError,
    ImageFileError,
    ParametersError,
    ZeroflawError,
)
from zeroflaw_engines.parameters import MethodParameters

EXIT_REJECTED: Final = 4
SUMMARY_NAME: Final = "summary.csv"
SHEET_NAME: Final = "index.html"

# What `chosen_parameters` takes, in every command that lets the user choose them.
ParametersOption = Annotated[
    Path | None, typer.Option(help="TOML file of method parameters to use instead.")
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="One method parameter, as extreme_threshold=0.4; repeatable."),
]
_SUMMARY_COLUMNS: Final = (
    "file", "status", "decision", "image_score", "threshold", "regions", "mask_area",
    "frame_width", "frame_height", "total_ms", "output", "error",
)  # fmt: skip


def inspect(
    bundle: BundleArgument,
    files_or_folders: Annotated[
        list[Path], typer.Argument(help="Image files, and folders that are searched for them.")
    ],
    *,
    out_dir: Annotated[
        Path, typer.Option("--out", "-o", help="Directory for the results; made if needed.")
    ] = Path("out"),
    product: Annotated[
        str | None,
        typer.Option("--product", "-p", help="Product name; needed if the bundle has several."),
    ] = None,
    backend: BackendOption = DEFAULT_BACKEND,
    precision: PrecisionOption = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 takes every core.")] = 0,
    model_cache: Annotated[
        Path | None,
        typer.Option(help="Where backends that compile at load keep what they compiled."),
    ] = None,
    schedule: Annotated[
        Literal["side_by_side", "clip_first"],
        typer.Option(help="clip_first skips SAM on parts where CLIP finds nothing."),
    ] = "side_by_side",
    parameters: ParametersOption = None,
    settings: SettingsOption = None,
    exit_on_reject: Annotated[
        bool, typer.Option(help="Exit with 4 if any part was rejected.")
    ] = False,
) -> None:
    """Inspect image files and folders.

    For each image, the output directory gets NAME.mask.png (255 is defective), NAME.overlay.png
    (contour red, positive points green, negative ones blue, box yellow), NAME.map.png (CLIP's
    map, blue 0 to red 1) and NAME.json (schema in docs/inspection.schema.json); summary.csv has
    one line an image, and index.html shows them all. A file that cannot be inspected is reported
    there and the rest go on.

    One file, and a folder with another threshold of the map:

        zeroflaw inspect my_bundle photo.jpg --product metal_nut

        zeroflaw inspect my_bundle line_3/ -o results --set extreme_threshold=0.4
    """
    jobs = find_jobs(files_or_folders)
    recorded = read_manifest(bundle).method_parameters
    given = given_parameters(parameters, settings or [])
    with Inspector.load(
        bundle,
        backend,
        parameters=recorded.replace(**given),
        decision_threshold=given.get("decision_threshold"),
        precision=precision,
        threads=threads,
        model_cache=model_cache,
        encoder_schedule=schedule,
    ) as inspector:
        announce(inspector.bundle, bundle)
        if backend == AUTO:
            err.print(f"auto chose {inspector.choice}", markup=False)
        err.print(f"engines on {inspector.backend}", markup=False)
        name = inspector.product_name(product)
        _, reservations = inspector.decision_threshold(name)
        for text in reservations:
            print_warning(text)
        header = SheetHeader(
            bundle=bundle,
            identity=inspector.bundle.identity,
            product=name,
            started=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            files=len(jobs),
            notes=(*notes_of(inspector.bundle, bundle), *reservations),
        )
        failed, rejected = _inspect_all(inspector, jobs, header, out_dir)
    done = len(jobs) - failed
    out.print(f"{done} of {len(jobs)} inspected, {rejected} rejected: {out_dir / SHEET_NAME}")
    if failed:
        raise typer.Exit(EXIT_SOME_FAILED)
    if rejected and exit_on_reject:
        raise typer.Exit(EXIT_REJECTED)


def chosen_parameters(
    default: MethodParameters, file: Path | None, settings: list[str]
) -> MethodParameters:
    """Method parameters from a bundle, a TOML file and single settings, the last one winning.

    Raises:
        ParametersError: The file or a setting is not valid.
    """
    return default.replace(**given_parameters(file, settings))


def given_parameters(file: Path | None, settings: list[str]) -> dict[str, Any]:
    """Method parameters that the user gave, by name, the last one winning; not validated.

    Raises:
        ParametersError: The file or a setting cannot be read.
    """
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values.update(tomllib.loads(file.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ParametersError(
                f"the parameters file {file} cannot be read: {error}",
                "give a TOML file with one parameter a line",
            ) from error
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ParametersError(f"{setting!r} is not NAME=VALUE", "write --set NAME=VALUE")
        values[name.strip()] = _number_or_text(text.strip())
    return values


def _inspect_all(
    inspector: Inspector, jobs: list[Job], header: SheetHeader, out_dir: Path
) -> tuple[int, int]:
    """Inspects every file; returns how many failed and how many parts were rejected."""
    failed = rejected = 0
    with (
        _summary_table(out_dir) as write_row,
        _contact_sheet(out_dir, header) as add_card,
        progress_bar() as progress,
    ):
        task = progress.add_task("inspecting", total=len(jobs))
        for job in jobs:
            row: dict[str, object]
            try:
                inspection = _inspect_one(inspector, job, header.product, out_dir)
            except (ImageFileError, FrameError, EngineError) as error:
                failed += 1
                print_error(error)
                row = {"status": "failed", "error": _one_line(error)}
                add_card(failed_card(job.source, error))
            else:
                rejected += inspection.decision == "reject"
                row = {**_summary(inspection), "output": job.stem.as_posix()}
                add_card(inspected_card(job.source, job.stem, inspection))
            write_row({"file": job.source.as_posix(), **row})
            progress.advance(task)
    return failed, rejected


@contextmanager
def _summary_table(out_dir: Path) -> Iterator[Callable[[dict[str, object]], None]]:
    """Opens the summary; each row is on the disk when it has been written."""
    path = out_dir / SUMMARY_NAME
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        # Names of files need not be UTF-8 on Linux; they are written back as they are.
        with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            table = csv.DictWriter(file, _SUMMARY_COLUMNS, restval="")
            table.writeheader()

            def write_row(row: dict[str, object]) -> None:
                table.writerow(row)
                file.flush()

            yield write_row
    except OSError as error:
        raise ImageFileError(
            f"{path} cannot be written: {error.strerror}",
            "choose another --out, or free space on its disk",
        ) from error


@contextmanager
def _contact_sheet(out_dir: Path, header: SheetHeader) -> Iterator[Callable[[Card], None]]:
    """Collects cards; writes the page when the block ends, also by an interrupt."""
    path = out_dir / SHEET_NAME
    cards: list[Card] = []
    with suppress(OSError):  # an earlier run's page; writing says what is wrong, if anything is
        path.unlink()
    try:
        yield cards.append
    finally:
        try:
            path.write_text(contact_sheet(header, cards), encoding="utf-8")
        except OSError as error:
            raise ImageFileError(
                f"{path} cannot be written: {error.strerror}",
                "choose another --out, or free space on its disk",
            ) from error


def _inspect_one(inspector: Inspector, job: Job, product: str, out_dir: Path) -> Inspection:
    """Inspects one file and writes all of its results, or none of them."""
    frame = rgb_frame(read_image(job.source))
    inspection = inspector.inspect(frame, product=product, trace=True)
    base = out_dir / job.stem
    pictures = {
        base.with_name(base.name + ".mask.png"): draw_mask(inspection),
        base.with_name(base.name + ".overlay.png"): draw_overlay(frame, inspection),
        base.with_name(base.name + ".map.png"): draw_map(
            inspection.anomaly_map, inspection.frame_size
        ),
    }
    record = base.with_name(base.name + ".json")
    try:
        base.parent.mkdir(parents=True, exist_ok=True)
        for path, picture in pictures.items():
            write_image(path, picture)
        record.write_bytes(inspection.to_json())
    except (OSError, ImageFileError) as error:
        for path in (*pictures, record):
            with suppress(OSError):
                path.unlink()
        if isinstance(error, ImageFileError):
            raise
        raise ImageFileError(
            f"{record} cannot be written: {error.strerror}", "check the space on its disk"
        ) from error
    return inspection


def _summary(inspection: Inspection) -> dict[str, object]:
    height, width = inspection.frame_size
    return {
        "status": inspection.status,
        "decision": inspection.decision,
        "image_score": f"{inspection.image_score:.6f}",
        "threshold": f"{inspection.threshold:.6f}",
        "regions": len(inspection.regions),
        "mask_area": int(inspection.mask.sum()),
        "frame_width": width,
        "frame_height": height,
        "total_ms": f"{inspection.timings_ms['total']:.1f}",
    }


def _number_or_text(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _one_line(error: ZeroflawError) -> str:
    return " ".join(str(error).split())
