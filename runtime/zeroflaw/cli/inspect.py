"""`zeroflaw inspect`: image files in; masks, overlays, maps, JSON and a CSV summary out."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from zeroflaw.cli.terminal import announce_random_weights, out, print_error, progress_bar
from zeroflaw.frame import rgb_frame
from zeroflaw.images import IMAGE_SUFFIXES, read_image, write_image
from zeroflaw.inspection import Inspection
from zeroflaw.inspector import Inspector
from zeroflaw.overlay import draw_map, draw_mask, draw_overlay
from zeroflaw_engines.bundle import read_manifest
from zeroflaw_engines.errors import (
    EngineError,
    FrameError,
    ImageFileError,
    ParametersError,
    ZeroflawError,
)
from zeroflaw_engines.parameters import MethodParameters

EXIT_SOME_FAILED: Final = 3
EXIT_REJECTED: Final = 4
SUMMARY_NAME: Final = "summary.csv"
_SUMMARY_COLUMNS: Final = (
    "file", "status", "decision", "image_score", "threshold", "regions", "mask_area",
    "frame_width", "frame_height", "total_ms", "output", "error",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One file to inspect, and the stem of what comes of it.

    Attributes:
        source: The image file.
        stem: Path below the output directory, without suffix; no two jobs share one.
    """

    source: Path
    stem: Path


def inspect(
    bundle: Annotated[Path, typer.Argument(help="Directory that `zeroflaw export` wrote.")],
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
    backend: Annotated[str, typer.Option(help="What runs the engines.")] = "onnxruntime",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 takes every core.")] = 0,
    schedule: Annotated[
        Literal["side_by_side", "clip_first"],
        typer.Option(help="clip_first skips SAM on parts where CLIP finds nothing."),
    ] = "side_by_side",
    parameters: Annotated[
        Path | None, typer.Option(help="TOML file of method parameters to use instead.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="One method parameter, as extreme_threshold=0.4; repeatable."),
    ] = None,
    exit_on_reject: Annotated[
        bool, typer.Option(help="Exit with 4 if any part was rejected.")
    ] = False,
) -> None:
    """Inspect image files and folders.

    For each image, the output directory gets NAME.mask.png (255 is defective), NAME.overlay.png
    (contour red, positive points green, negative ones blue, box yellow), NAME.map.png (CLIP's
    map, blue 0 to red 1) and NAME.json (schema in docs/inspection.schema.json); summary.csv has
    one line an image. A file that cannot be inspected is reported there and the rest go on.

    One file, and a folder with another threshold of the map:

        zeroflaw inspect my_bundle photo.jpg --product metal_nut

        zeroflaw inspect my_bundle line_3/ -o results --set extreme_threshold=0.4
    """
    jobs = list(find_jobs(files_or_folders))
    if not jobs:
        raise ImageFileError(
            f"there is no image in {', '.join(map(str, files_or_folders))}",
            f"name files, or folders with files ending in {', '.join(sorted(IMAGE_SUFFIXES))}",
        )
    recorded = read_manifest(bundle).method_parameters
    with Inspector.load(
        bundle,
        backend,
        parameters=chosen_parameters(recorded, parameters, settings or []),
        threads=threads,
        encoder_schedule=schedule,
    ) as inspector:
        announce_random_weights(inspector.bundle)
        name = inspector.product_name(product)
        failed, rejected = _inspect_all(inspector, jobs, name, out_dir)
    done = len(jobs) - failed
    out.print(f"{done} of {len(jobs)} inspected, {rejected} rejected: {out_dir / SUMMARY_NAME}")
    if failed:
        raise typer.Exit(EXIT_SOME_FAILED)
    if rejected and exit_on_reject:
        raise typer.Exit(EXIT_REJECTED)


def find_jobs(files_or_folders: list[Path]) -> Iterator[Job]:
    """The images to inspect, each once, with output stems that do not collide.

    Folders are searched through all their levels, and their levels are kept below the output
    directory.

    Raises:
        ImageFileError: A path does not exist.
    """
    seen: set[Path] = set()
    stems: set[Path] = set()
    for given in files_or_folders:
        if given.is_dir():
            found = sorted(
                path
                for path in given.rglob("*")
                if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES
            )
        elif given.exists():
            found = [given]
        else:
            raise ImageFileError(f"{given} does not exist", "check the path")
        for path in found:
            if path.resolve() in seen:
                continue
            seen.add(path.resolve())
            relative = path.relative_to(given) if given.is_dir() else Path(path.name)
            yield Job(path, _free_stem(relative, stems))


def chosen_parameters(
    default: MethodParameters, file: Path | None, settings: list[str]
) -> MethodParameters:
    """Method parameters from a bundle, a TOML file and single settings, the last one winning.

    Raises:
        ParametersError: The file or a setting is not valid.
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
    return default.replace(**values)


def _inspect_all(
    inspector: Inspector, jobs: list[Job], product: str, out_dir: Path
) -> tuple[int, int]:
    """Inspects every file; returns how many failed and how many parts were rejected."""
    failed = rejected = 0
    with _summary_table(out_dir) as write_row, progress_bar() as progress:
        task = progress.add_task("inspecting", total=len(jobs))
        for job in jobs:
            row: dict[str, object]
            try:
                inspection = _inspect_one(inspector, job, product, out_dir)
            except (ImageFileError, FrameError, EngineError) as error:
                failed += 1
                print_error(error)
                row = {"status": "failed", "error": _one_line(error)}
            else:
                rejected += inspection.decision == "reject"
                row = {**_summary(inspection), "output": job.stem.as_posix()}
            write_row({"file": job.source.as_posix(), **row})
            progress.advance(task)
    return failed, rejected


@contextmanager
def _summary_table(out_dir: Path) -> Iterator[Callable[[dict[str, object]], None]]:
    """Opens the summary; each row is on the disk when it has been written."""
    path = out_dir / SUMMARY_NAME
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
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


def _free_stem(relative: Path, stems: set[Path]) -> Path:
    """The path without its suffix; with it, and then with a number, if that is taken."""
    candidates = [relative.with_suffix(""), relative.with_name(relative.name.replace(".", "_"))]
    number = 2
    while True:
        stem = candidates.pop(0) if candidates else relative.with_name(f"{relative.stem}_{number}")
        number += not candidates
        if stem not in stems:
            stems.add(stem)
            return stem


def _number_or_text(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _one_line(error: ZeroflawError) -> str:
    return " ".join(str(error).split())
