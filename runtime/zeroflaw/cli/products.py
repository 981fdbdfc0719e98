"""`zeroflaw products`: the products that a bundle can inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zeroflaw.cli.terminal import err, open_and_announce, out
from zeroflaw.products import add_products_by_name

products_app = typer.Typer(help="The products that a bundle can inspect.", no_args_is_help=True)


@products_app.command(name="list")
def list_products(
    bundle: Annotated[Path, typer.Argument(help="Directory that `zeroflaw export` wrote.")],
) -> None:
    """List the products and their decision thresholds."""
    opened = open_and_announce(bundle, verify_digests=False)
    default = opened.manifest.method_parameters.decision_threshold
    for name, product in sorted(opened.manifest.products.items()):
        own = f"{default} (default)" if product.threshold is None else f"{product.threshold}"
        out.print(f"{name}\tthreshold {own}", markup=False)


@products_app.command()
def add(
    bundle: Annotated[Path, typer.Argument(help="Directory that `zeroflaw export` wrote.")],
    names: Annotated[list[str], typer.Argument(help="Names, put into the sentences verbatim.")],
    *,
    ensembles: Annotated[
        Path | None, typer.Option(help="TOML file of sentences; default: the bundle's own.")
    ] = None,
) -> None:
    """Compute the prompt ensembles of products and put them into the bundle.

    The bundle's own text engine does it, without torch and without a connection. A product that
    is there already is computed anew.
    """
    opened = open_and_announce(bundle)
    with err.status(f"encoding the sentences of {', '.join(names)}"):
        changed = add_products_by_name(opened, names, ensembles_file=ensembles)
    out.print(f"{bundle} now has: {', '.join(sorted(changed.manifest.products))}", markup=False)
