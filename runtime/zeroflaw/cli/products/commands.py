"""`zeroflaw products`: the products that a bundle can inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zeroflaw.cli.json_lines import JsonLinesOption, print_json
from zeroflaw.cli.options import BundleArgument, open_and_announce
from zeroflaw.cli.products.learn import forget, learn
from zeroflaw.cli.products.settings import edit, show
from zeroflaw.cli.products.texts import (
    bank_text,
    product_document,
    settings_summary,
    threshold_text,
)
from zeroflaw.records.threshold import shown_threshold
from zeroflaw.station.products.adding import add_products_by_name
from zeroflaw_engines.process.terminal import err, out, print_warning

products_app = typer.Typer(help="The products that a bundle can inspect.", no_args_is_help=True)
products_app.command()(learn)
products_app.command()(forget)
products_app.command()(show)
products_app.command()(edit)


@products_app.command(name="list")
def list_products(bundle: BundleArgument, *, as_json: JsonLinesOption = False) -> None:
    """List the products, their decision thresholds and where these come from."""
    opened = open_and_announce(bundle, verify_digests=False)
    default = opened.manifest.method_parameters.decision_threshold
    for name, product in sorted(opened.manifest.products.items()):
        if as_json:
            print_json(product_document(opened, name))
        else:
            text = threshold_text(product, default) + bank_text(opened, name, product)
            out.print(f"{name}\t{text}{settings_summary(product.settings)}", markup=False)


@products_app.command()
def add(
    bundle: BundleArgument,
    names: Annotated[list[str], typer.Argument(help="Names, put into the sentences verbatim.")],
    *,
    ensembles: Annotated[
        Path | None, typer.Option(help="TOML file of sentences; default: the bundle's own.")
    ] = None,
) -> None:
    """Compute the prompt ensembles of products and put them into the bundle.

    The bundle's own text engine does it, without torch and without a connection; a bundle whose
    localizer takes no texts needs none, and takes the names alone. A product that
    is there already is computed anew, and loses its threshold and what it has learned: calibrate
    or learn it again. Its settings stay.
    """
    opened = open_and_announce(bundle)
    with err.status(f"adding {', '.join(names)}"):
        changed = add_products_by_name(opened, names, ensembles_file=ensembles)
    for name in names:
        known = opened.product_name(name)
        old = None if known is None else opened.manifest.products[known]
        if old is not None and old.threshold is not None:
            command = "calibrate" if old.reference is None else "products learn"
            print_warning(
                f"{name} had the threshold {shown_threshold(old.threshold)}"
                f"{' and a reference bank' if old.reference else ''}, which does not hold for its"
                f" new embeddings and was dropped: run `zeroflaw {command}` again"
            )
    out.print(f"{bundle} now has: {', '.join(sorted(changed.manifest.products))}", markup=False)
