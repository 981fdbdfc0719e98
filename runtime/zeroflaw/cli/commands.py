"""The `zeroflaw` command: its subcommands, and what its help says of them all."""

from __future__ import annotations

import logging
from importlib.metadata import entry_points
from typing import Annotated

import typer

from zeroflaw.cli.build import build
from zeroflaw.cli.bundle import bundle_app
from zeroflaw.cli.calibrate import calibrate
from zeroflaw.cli.demo import demo
from zeroflaw.cli.doctor import doctor
from zeroflaw.cli.engines import engines_app
from zeroflaw.cli.inspect import inspect
from zeroflaw.cli.products.commands import products_app
from zeroflaw_engines.version import __version__

app = typer.Typer(
    name="zeroflaw",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""
Zero-shot anomaly segmentation: CLIP finds the defect, SAM draws its boundary.

A workstation **exports** weights into a *bundle* and **builds** engines for the GPUs of its
stations; a station **inspects** frames with it:

    zeroflaw export my_bundle --sam vit_h --product metal_nut

    zeroflaw build my_bundle --backend tensorrt-rtx --gpu sm86 --gpu sm89

    zeroflaw inspect my_bundle photos/ --product metal_nut --out results/

Exit codes: 0 done; 1 the command failed; 2 wrong usage; 3 done, but some files could not be
inspected, or were left out though they may be pictures; 6 some parts are held; 4 a part was
rejected (only with `--exit-on-reject`); 5 something became slower (only with `bench --compare`);
130 interrupted, 143 terminated. Of 3, 6 and 4, the first that is true.
""",
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"zeroflaw {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    *,
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is done.")] = False,
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(message)s"
    )


def all_commands() -> typer.Typer:
    """Give the `zeroflaw` command with those of the packages that are installed."""
    app.command()(inspect)
    app.command()(build)
    app.command()(calibrate)
    app.command()(demo)
    app.command()(doctor)
    app.add_typer(bundle_app, name="bundle")
    app.add_typer(engines_app, name="engines")
    app.add_typer(products_app, name="products")
    for command in sorted(entry_points(group="zeroflaw.commands"), key=lambda entry: entry.name):
        app.command(name=command.name)(command.load())
    return app
