"""`zeroflaw calibrate`: a product's decision threshold, from images of good parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from zeroflaw.cli.json_lines import JsonLinesOption, encodable, path_text, print_json
from zeroflaw.cli.left_out import search_and_report
from zeroflaw.cli.options import (
    EXIT_SOME_FAILED,
    BackendOption,
    BundleArgument,
    DeviceOption,
    OrientationOption,
    PrecisionOption,
    WhiteLevelOption,
    file_progress,
    open_and_announce,
    print_file_warnings,
)
from zeroflaw.records.threshold import shown_threshold
from zeroflaw.station.calibration import ProductCalibration, calibrate_product, named
from zeroflaw.station.conformal import CONFIDENCE, ConformalThreshold
from zeroflaw_engines.backends import DEFAULT_BACKEND
from zeroflaw_engines.bundle.manifest import Statistic
from zeroflaw_engines.process.terminal import err, out, print_warning


def calibrate(
    bundle: BundleArgument,
    good_images: Annotated[
        list[Path], typer.Argument(help="Images of good parts, and folders of them.")
    ],
    *,
    product: Annotated[str, typer.Option("--product", "-p", help="The product they show.")],
    false_reject_rate: Annotated[
        float, typer.Option(help="Share of good parts that may be rejected.")
    ] = 0.01,
    image_scoring: Annotated[
        Literal["cls", "map_max"] | None,
        typer.Option(help="The image score to calibrate; default: the bundle's."),
    ] = None,
    backend: BackendOption = DEFAULT_BACKEND,
    precision: PrecisionOption = None,
    device: DeviceOption = 0,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 takes every core.")] = 0,
    white_level: WhiteLevelOption = None,
    orientation: OrientationOption = "as_stored",
    as_json: JsonLinesOption = False,
) -> None:
    """Set a product's decision threshold from good parts alone.

    The threshold goes into the bundle, with the interval in which the true false-reject rate
    lies. No defect is needed. The images must be taken as the line takes them: same station,
    light and camera; for a rate of 0.01 it takes at least 99 of them. A product that was learned
    takes images that it was not learned from. Needs zeroflaw[evaluate].

    A product with settings is calibrated with whole inspections: in its tiles and zones, aligned,
    and on the decision score that its rules make. Images that would be held are left out.

        zeroflaw calibrate my_bundle good_parts/ --product metal_nut --false-reject-rate 0.01

    Exit code 3: the threshold is set, but some files could not be read, or were left out though
    they may be pictures.
    """
    search = search_and_report(good_images)
    opened = open_and_announce(bundle)
    with file_progress("scoring", len(search.pictures)) as progress:
        done = calibrate_product(
            opened,
            product,
            [picture.path for picture in search.pictures],
            false_reject_rate=false_reject_rate,
            image_scoring=image_scoring,
            backend=backend,
            precision=precision,
            device=device,
            threads=threads,
            white_level=white_level,
            orientation=orientation,
            progress=progress,
        )
    fit, good = done.fit, done.good
    warn_of_copies(good.copies)
    print_file_warnings(good.warnings)
    for text in fit.warnings:
        print_warning(text)
    if as_json:
        print_json(_document(product, done))
    else:
        out.print(fit_text(product, fit, done.statistic), markup=False)
    if good.failed:
        (err if as_json else out).print(
            f"{len(good.failed)} of {len(search.pictures)} files could not be read or judged",
            markup=False,
        )
    if good.failed or search.missed:
        raise typer.Exit(EXIT_SOME_FAILED)


def fit_text(product: str, fit: ConformalThreshold, statistic: Statistic = "image_score") -> str:
    """Return a product's new threshold and what is known of it, in two lines.

    Args:
        statistic: What was scored.
    """
    interval = ""
    if fit.interval is not None:
        low, high = fit.interval
        interval = f" with 95 % confidence between {low:.2g} and {high:.2g};"
    return (
        f"{product}: threshold {shown_threshold(fit.threshold)} from {fit.images} good images"
        f" (just above the {statistic.replace('_', ' ')} of rank {fit.rank})\n"
        f"false rejects: aimed at {fit.false_reject_rate:.4g},"
        f" expected {fit.expected_rate:.2g} or fewer,{interval}"
        f" {fit.observed_rate:.2g} of these images"
    )


def warn_of_copies(copies: Sequence[Path]) -> None:
    """Say which files were not counted again."""
    if copies:
        print_warning(
            f"{len(copies)} files have the content of another one and were not counted again:"
            f" {named(copies)}"
        )


def fit_document(fit: ConformalThreshold) -> dict[str, object]:
    """Return what `--json` prints of a threshold; docs/inspection.md describes it."""
    return {
        "threshold": fit.threshold,
        "false_reject_rate": fit.false_reject_rate,
        "expected_rate": fit.expected_rate,
        "interval": fit.interval,
        "confidence": CONFIDENCE,
        "observed_rate": fit.observed_rate,
        "images": fit.images,
        "rank": fit.rank,
    }


def _document(product: str, done: ProductCalibration) -> dict[str, object]:
    """Return what `--json` prints; docs/inspection.md describes it."""
    fit, good = done.fit, done.good
    return {
        "product": done.bundle.product_name(product),
        **fit_document(fit),
        "statistic": done.statistic,
        "copies": [path_text(path) for path in good.copies],
        "failed": [path_text(path) for path in good.failed],
        "warnings": [encodable(text) for text in (*good.warnings, *fit.warnings)],
    }
