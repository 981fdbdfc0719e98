"""The `zeroflaw` command: its subcommands, and how errors reach the user."""

from __future__ import annotations

import logging
import sys
from importlib.metadata import entry_points
from typing import Annotated, Final

import typer

from zeroflaw.cli.build import build
from zeroflaw.cli.bundle import bundle_app
from zeroflaw.cli.calibrate import calibrate
from zeroflaw.cli.doctor import doctor
from zeroflaw.cli.engines import engines_app
from zeroflaw.cli.inspect import inspect
from zeroflaw.cli.products import products_app
from zeroflaw.cli.standard_streams import guard_standard_streams
from zeroflaw.cli.terminal import print_error
from zeroflaw.station.interrupts import Terminated, raise_on_termination
from zeroflaw_engines.errors import ZeroflawError
from zeroflaw_engines.version import __version__

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130
EXIT_SIGNALLED: Final = 128

app = typer.Typer(
    name="zeroflaw",
    no_args_is_help=True,
    add_completion=False,
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


def _add_commands() -> None:
    app.command()(inspect)
    app.command()(build)
    app.command()(calibrate)
    app.command()(doctor)
    app.add_typer(bundle_app, name="bundle")
    app.add_typer(engines_app, name="engines")
    app.add_typer(products_app, name="products")
    for command in sorted(entry_points(group="zeroflaw.commands"), key=lambda entry: entry.name):
        app.command(name=command.name)(command.load())


def main() -> None:
    """Run the command line and end the process with its exit code."""
    guard_standard_streams()
    raise_on_termination()
    _add_commands()
    sys.exit(_exit_code())


def _exit_code() -> int | str | None:
    try:
        app()
    except SystemExit as end:
        return end.code
    except ZeroflawError as error:
        print_error(error)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Terminated as end:
        return EXIT_SIGNALLED + end.number
    return 0


if __name__ == "__main__":
    main()
