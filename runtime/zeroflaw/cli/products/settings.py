"""`zeroflaw products show` and `edit`: how a product is looked at, and what decides about it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from zeroflaw.cli.json_lines import JsonLinesOption, path_text, print_json
from zeroflaw.cli.options import (
    BundleArgument,
    OrientationOption,
    WhiteLevelOption,
    open_and_announce,
)
from zeroflaw.cli.products.learn import ProductArgument
from zeroflaw.cli.products.texts import dropped_text, next_text, product_document, product_rows
from zeroflaw.pictures.images import write_image
from zeroflaw.pictures.reading import Reading
from zeroflaw.station.products.editing import DroppedParts, dropped_parts, plan_edit
from zeroflaw.station.products.settings_toml import settings_text
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.products.settings import ProductSettings
from zeroflaw_engines.bundle.products.writer import set_settings
from zeroflaw_engines.bundle.shipped import require_changeable
from zeroflaw_engines.process.terminal import err, out, print_warning, printable


def show(
    bundle: BundleArgument,
    name: ProductArgument,
    *,
    as_json: JsonLinesOption = False,
    as_toml: Annotated[
        bool,
        typer.Option(
            "--toml", help="Print the settings as TOML, as `zeroflaw products edit` takes."
        ),
    ] = False,
) -> None:
    """Say all of a product: threshold, reference bank, frame, tiles, zones, rules, alignment.

    zeroflaw products show my_bundle metal_nut

    zeroflaw products show my_bundle metal_nut --toml > metal_nut.toml
    """
    if as_json and as_toml:
        raise typer.BadParameter("give --json or --toml")
    opened = open_and_announce(bundle, verify_digests=False)
    known = _known_name(opened, name)
    settings = opened.manifest.products[known].settings
    if as_json:
        print_json(product_document(opened, known))
    elif as_toml:
        typer.echo(
            f"# {known} has no settings: its frames are seen as a whole, and the image score"
            " decides.\n"
            if settings is None
            else settings_text(settings),
            nl=False,
        )
    else:
        table = Table(show_header=False, box=None)
        table.add_column()
        table.add_column(overflow="fold")
        for row in product_rows(opened, known):
            table.add_row(*(Text(printable(text)) for text in row))
        out.print(table)


def edit(
    bundle: BundleArgument,
    name: ProductArgument,
    settings: Annotated[
        Path | None,
        typer.Argument(
            metavar="[SETTINGS.toml]",
            help="TOML file of the settings; docs/large_frames.md describes it.",
        ),
    ] = None,
    *,
    photo: Annotated[
        Path | None,
        typer.Option(help="A photo of a part as the line takes it, to hold the settings against."),
    ] = None,
    out_file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The picture of them; default: SETTINGS.overlay.png beside the file.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and draw the settings; store nothing.")
    ] = False,
    clear: Annotated[
        bool,
        typer.Option("--clear", help="Take the product's settings away; no file is given then."),
    ] = False,
    white_level: WhiteLevelOption = None,
    orientation: OrientationOption = "as_stored",
) -> None:
    """Give a product settings: tiles, zones, rules, scale, alignment.

    They are held against a photo, and drawn on it. The product's threshold goes with its old
    settings; so does its reference bank, where tiles, zones or alignment are others.

        zeroflaw products edit my_bundle metal_nut metal_nut.toml --photo good/001.png
    """
    if clear:
        if settings is not None or photo is not None or out_file is not None:
            raise typer.BadParameter("--clear takes no settings and no photo")
        _clear(bundle, name, dry_run=dry_run)
        return
    if settings is None or photo is None:
        raise typer.BadParameter("give SETTINGS.toml and --photo PHOTO, or --clear")
    opened = open_and_announce(bundle, verify_digests=False)
    if not dry_run:
        require_changeable(opened.path)
    plan = plan_edit(opened, name, settings, photo, reading=Reading(white_level, orientation))
    target = out_file or settings.with_suffix(".overlay.png")
    if target.resolve() in {settings.resolve(), photo.resolve()}:
        raise typer.BadParameter(f"the picture would be written over {path_text(target)}")
    write_image(target, plan.overlay)
    for text in plan.warnings:
        print_warning(text)
    err.print(f"the settings are drawn: {path_text(target)}", markup=False)
    dropped = plan.dropped
    if not dry_run:
        plan.store()
    _report(bundle, plan.product, plan.settings, dropped, stored=not dry_run)


def _clear(bundle: str, name: str, *, dry_run: bool) -> None:
    opened = open_and_announce(bundle, verify_digests=False)
    known = _known_name(opened, name)
    dropped = dropped_parts(opened.manifest.products[known], None)
    if not dry_run:
        set_settings(opened, known, None)
    _report(bundle, known, None, dropped, stored=not dry_run)


def _report(
    bundle: str,
    product: str,
    settings: ProductSettings | None,
    dropped: DroppedParts,
    *,
    stored: bool,
) -> None:
    text = dropped_text(dropped, stored=stored, cleared=settings is None)
    out.print(f"{product}: {text}", markup=False)
    if dropped.changed and stored:
        out.print(next_text(bundle, product, settings, dropped), markup=False)


def _known_name(bundle: Bundle, name: str) -> str:
    bundle.text_embeddings(name)
    return bundle.product_name(name) or name
