"""`zeroflaw products learn` and `forget`: a product's bank and threshold from good photos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from zeroflaw.cli.calibrate import fit_document, fit_text, warn_of_copies
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
from zeroflaw.station.learning import LearnedProduct, forget_product, learn_product
from zeroflaw.station.reference.plan import CalibrationChoice
from zeroflaw_engines.backends import DEFAULT_BACKEND
from zeroflaw_engines.bundle.manifest import Augmentation
from zeroflaw_engines.process.terminal import err, out

ProductArgument = Annotated[str, typer.Argument(metavar="NAME", help="The product.")]


def learn(
    bundle: BundleArgument,
    name: ProductArgument,
    good_images: Annotated[
        list[Path], typer.Argument(help="Photos of good parts, and folders of them.")
    ],
    *,
    false_reject_rate: Annotated[
        float, typer.Option(help="Share of good parts that may be rejected.")
    ] = 0.01,
    calibration: Annotated[
        CalibrationChoice,
        typer.Option(
            help="How the threshold is set: on photos that are kept out of the bank (split), on"
            " each without its own rows (leave_one_out), or by the number of photos."
        ),
    ] = "auto",
    augment: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Another view of each photo to learn: {', '.join(get_args(Augmentation))}; give"
            " it several times for more."
        ),
    ] = None,
    budget_mb: Annotated[
        float | None,
        typer.Option(min=0, help="Size of the bank, MB; default and most: what the bundle takes."),
    ] = None,
    shots: Annotated[
        int | None, typer.Option(min=1, help="Photos in the bank, drawn by the seed.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw of photos.")] = 0,
    keep_unusual: Annotated[
        bool, typer.Option("--keep-unusual", help="Learn photos that look unlike the others too.")
    ] = False,
    texts_of: Annotated[
        str | None,
        typer.Option(
            metavar="PRODUCT",
            help="A new product takes the texts of this one, without `zeroflaw[text]`; one that the"
            " bundle has keeps its own.",
        ),
    ] = None,
    backend: BackendOption = DEFAULT_BACKEND,
    precision: PrecisionOption = None,
    device: DeviceOption = 0,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 takes every core.")] = 0,
    white_level: WhiteLevelOption = None,
    orientation: OrientationOption = "as_stored",
    as_json: JsonLinesOption = False,
) -> None:
    """Learn a product from a few good photos: what is usual, and the threshold.

    Two photos do, eight or more are advised; no defect is needed. They must be taken as the line
    takes them: same station, light and camera. A product that the bundle lacks is added by its
    name, or with the texts of another product (--texts-of object). A learning that was
    interrupted goes on where it ended, if it is started again.

    A product with settings is learned as they show it: aligned, cut to its zones and in its tiles,
    with one bank for all tiles or, for an aligned part, one per tile. Photos that an inspection
    would hold are left out.

        zeroflaw products learn my_bundle metal_nut good_parts/ --false-reject-rate 0.05

    Exit code 3: the product is learned, but some files could not be read, or were left out though
    they may be pictures.
    """
    search = search_and_report(good_images)
    opened = open_and_announce(bundle)
    with file_progress("learning", len(search.pictures)) as progress:
        done = learn_product(
            opened,
            name,
            [picture.path for picture in search.pictures],
            false_reject_rate=false_reject_rate,
            calibration=calibration,
            augmentations=tuple(augment or ()),
            bank_bytes=None if budget_mb is None else int(budget_mb * 1e6),
            shots=shots,
            seed=seed,
            keep_unusual=keep_unusual,
            texts_of=texts_of,
            backend=backend,
            precision=precision,
            device=device,
            threads=threads,
            white_level=white_level,
            orientation=orientation,
            progress=progress,
        )
    warn_of_copies(done.copies)
    print_file_warnings(done.warnings)
    if as_json:
        print_json(_document(done))
    else:
        out.print(
            f"{fit_text(done.product, done.fit, done.statistic)}\n"
            f"reference bank: {done.bank_photos} photos,"
            f" {done.reference.rows} rows, {done.bank_bytes / 1e6:.1f} MB, {done.digest[:12]}",
            markup=False,
        )
    if done.failed:
        (err if as_json else out).print(
            f"{len(done.failed)} of {len(search.pictures)} files could not be learned from",
            markup=False,
        )
    if done.failed or search.missed:
        raise typer.Exit(EXIT_SOME_FAILED)


def forget(bundle: BundleArgument, name: ProductArgument) -> None:
    """Take what a product has learned out of the bundle: its reference bank and its threshold.

    The product stays, and is inspected without photos as before. What an interrupted learning of
    it has kept is removed as well.
    """
    forget_product(open_and_announce(bundle), name)
    out.print(f"{name}: forgotten; it is inspected without reference photos", markup=False)


def _document(done: LearnedProduct) -> dict[str, object]:
    """Return what `--json` prints; docs/inspection.md describes it."""
    return {
        "product": done.product,
        **fit_document(done.fit),
        "scheme": done.fit.scheme,
        "statistic": done.statistic,
        "bank": done.digest,
        "bank_bytes": done.bank_bytes,
        "rows": done.reference.rows,
        "photos": done.reference.photos,
        "copies": [path_text(path) for path in done.copies],
        "failed": [path_text(path) for path in done.failed],
        "warnings": [encodable(text) for text in done.warnings],
    }
