"""`zeroflaw inspect`: image files in; masks, overlays, maps, JSON, a CSV summary and a page out."""

from __future__ import annotations

import datetime as dt
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from zeroflaw.cli.inspection_run import Identifiers, run_inspections
from zeroflaw.cli.json_lines import JsonLinesOption, RecordLines
from zeroflaw.cli.left_out import search_and_report
from zeroflaw.cli.options import (
    EXIT_HELD,
    EXIT_REJECTED,
    EXIT_SOME_FAILED,
    BackendOption,
    BundleArgument,
    DeviceOption,
    MaxMegapixelsOption,
    OrientationOption,
    PrecisionOption,
    WhiteLevelOption,
    announce,
    notes_of,
)
from zeroflaw.inspector import Inspector
from zeroflaw.pictures.contact_sheet import SheetHeader
from zeroflaw.pictures.reading import Reading
from zeroflaw.pictures.truth_parts import tally_text
from zeroflaw.station.earlier_results import Existing
from zeroflaw.station.run_log import SHEET_NAME
from zeroflaw.station.truth.masks import (
    TruthMasks,
    find_truth_masks,
    masks_without_photo,
    photos_without_mask,
)
from zeroflaw_engines.backends import AUTO, DEFAULT_BACKEND
from zeroflaw_engines.bundle.bundle import read_manifest
from zeroflaw_engines.contract import MAX_BATCH
from zeroflaw_engines.errors import ArgumentError, ParametersError
from zeroflaw_engines.image_files.frame import MAX_FRAME_PIXELS
from zeroflaw_engines.parameters import MethodParameters, named_values
from zeroflaw_engines.process.terminal import err, out, print_warning, printable

# What `chosen_parameters` takes, in every command that lets the user choose them.
ParametersOption = Annotated[
    Path | None, typer.Option(help="TOML file of method parameters to use instead.")
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="One method parameter, as extreme_threshold=0.4; repeatable."),
]


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
    device: DeviceOption = 0,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 takes every core.")] = 0,
    model_cache: Annotated[
        Path | None,
        typer.Option(help="Where backends that compile at load keep what they compiled."),
    ] = None,
    schedule: Annotated[
        Literal["side_by_side", "clip_first"],
        typer.Option(help="clip_first skips SAM on parts where CLIP finds nothing."),
    ] = "side_by_side",
    batch: Annotated[
        int,
        typer.Option(
            min=1,
            max=MAX_BATCH,
            help="Images that the encoders take in one call; more than 1 needs a bundle that was"
            " exported with --max-batch.",
        ),
    ] = 1,
    parameters: ParametersOption = None,
    settings: SettingsOption = None,
    white_level: WhiteLevelOption = None,
    orientation: OrientationOption = "as_stored",
    max_megapixels: MaxMegapixelsOption = MAX_FRAME_PIXELS / 1e6,
    existing: Annotated[
        Existing,
        typer.Option(
            help="What becomes of earlier results in --out: append keeps those of other images,"
            " replace removes them, refuse ends the command."
        ),
    ] = "append",
    part_id: Annotated[
        str | None, typer.Option(help="Name of the part that the images show, for the records.")
    ] = None,
    camera_id: Annotated[
        str | None, typer.Option(help="Name of the camera that took them, for the records.")
    ] = None,
    truth_dir: Annotated[
        Path | None,
        typer.Option(
            "--truth",
            help="Folder of masks of the defects, not 0 where a part is defective: STEM.png or"
            " STEM_mask.png. Photos without one show good parts. The page then says what is right.",
        ),
    ] = None,
    exit_on_reject: Annotated[
        bool, typer.Option(help="Exit with 4 if any part was rejected.")
    ] = False,
    as_json: JsonLinesOption = False,
) -> None:
    """Inspect image files and folders.

    For each image, the output directory gets NAME.mask.png (255 is defective), NAME.overlay.png
    (contour red, positive points green, negative ones blue, box yellow), NAME.map.png (the anomaly
    map, blue 0 to red 1) and NAME.json (schema in docs/inspection.schema.json); summary.csv has
    one line an image, and index.html shows them all. A file that cannot be inspected is held:
    its NAME.json says why, and the rest go on. Files that are left out are named. With --json,
    each of these records is also a line of standard output.

    With --truth, NAME.truth.png shows the true outline (cyan) beside the mask's (red), and page
    and summary say which decisions are right.

    Earlier results of the same images are removed first. Exit code 3: files could not be
    inspected, or were left out though they may be pictures, or truth masks cannot be used; 6:
    parts are held; 4: a part was rejected (with --exit-on-reject).

    One file, and a folder with another threshold of the map:

        zeroflaw inspect my_bundle photo.jpg --product metal_nut

        zeroflaw inspect my_bundle line_3/ -o results --set extreme_threshold=0.4

        zeroflaw inspect my_bundle recorded/ --batch 8
    """
    lines = RecordLines()
    reading = Reading(white_level, orientation, max_pixels=round(1e6 * max_megapixels))
    search = search_and_report(files_or_folders, results=out_dir, masks=truth_dir)
    truth = None if truth_dir is None else find_truth_masks(truth_dir, search.pictures)
    truth_notes: tuple[str, ...] = ()
    if truth is not None:
        truth_notes = _announce_truth(truth, len(search.pictures))
    recorded = read_manifest(bundle).method_parameters
    given = given_parameters(parameters, settings or [])
    with Inspector.load(
        bundle,
        backend,
        parameters=recorded.replace(**given),
        decision_threshold=given.get("decision_threshold"),
        precision=precision,
        device=device,
        threads=threads,
        model_cache=model_cache,
        encoder_schedule=schedule,
        max_frame_pixels=reading.max_pixels,
    ) as inspector:
        announce(inspector.bundle, bundle)
        if backend == AUTO:
            err.print(f"auto chose {inspector.choice}", markup=False)
        err.print(f"engines on {inspector.backend}", markup=False)
        _require_batch(inspector, batch)
        name = inspector.product_name(product)
        _, warnings = inspector.decision_threshold(name)
        for text in warnings:
            print_warning(text)
        header = SheetHeader(
            bundle=bundle,
            identity=inspector.bundle.identity,
            product=name,
            started=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            files=len(search.pictures),
            notes=(*notes_of(inspector.bundle, bundle), *warnings, *truth_notes),
        )
        counts = run_inspections(
            inspector,
            search,
            header,
            out_dir,
            existing=existing,
            identifiers=Identifiers(part=part_id, camera=camera_id),
            reading=reading,
            truth=truth,
            batch=batch,
            report=lines if as_json else None,
        )
    left_out = len(search.left_out)
    against = f" ({tally_text(counts.judgements)})" if counts.judgements else ""
    (err if as_json else out).print(
        f"{counts.inspected} of {len(search.pictures)} inspected, {counts.rejected} rejected,"
        f" {counts.held} held, {counts.failed} failed, {left_out} left out{against}:"
        f" {printable(out_dir / SHEET_NAME)}",
        markup=False,
    )
    lines.finish()
    if counts.failed or counts.without_truth or search.missed:
        raise typer.Exit(EXIT_SOME_FAILED)
    if counts.held:
        raise typer.Exit(EXIT_HELD)
    if counts.rejected and exit_on_reject:
        raise typer.Exit(EXIT_REJECTED)


def _require_batch(inspector: Inspector, batch: int) -> None:
    if batch > inspector.max_batch:
        raise ArgumentError(
            f"--batch is {batch}, and one call of the encoders of {inspector.bundle.path} takes"
            f" {inspector.max_batch}",
            f"give less, or export the bundle again with --max-batch {batch} (and build it)",
        )


def _announce_truth(truth: TruthMasks, photos: int) -> tuple[str, ...]:
    """Say what must be known of the truth, and return it."""
    notes, warnings = photos_without_mask(truth, photos), masks_without_photo(truth)
    for text in notes:
        err.print(printable(text), markup=False)
    for text in warnings:
        print_warning(text)
    return notes + warnings


def chosen_parameters(
    default: MethodParameters, file: Path | None, settings: list[str]
) -> MethodParameters:
    """Return the parameters of a bundle, a TOML file and single settings, the last one winning.

    Raises:
        ParametersError: The file or a setting is not valid.
    """
    return default.replace(**given_parameters(file, settings))


def given_parameters(file: Path | None, settings: list[str]) -> dict[str, Any]:
    """Return parameters that the user gave, by name, the last one winning; not validated.

    Raises:
        ParametersError: The file or a setting cannot be read.
    """
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values.update(tomllib.loads(file.read_text(encoding="utf-8-sig")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ParametersError(
                f"the parameters file {file} cannot be read: {error}",
                "give a TOML file with one parameter a line",
            ) from error
    values.update(named_values(settings))
    return values
