"""Run a public source beside our localizer on the same seeded weights.

    python -m zeroflaw_benchmarks.verify.public_sources anomalyclip --source CLONE

The clone is a checked-out tree of the authors' repository. Nothing of it is copied: with `--write`
the numbers that it gave become the golden outputs that the tests compare with.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated, Final, cast

import typer

from zeroflaw_benchmarks.verify.public_sources.comparison import Comparison, write_golden
from zeroflaw_engines.process.terminal import out, run_module

EXIT_REFUSED: Final = 5


class Method(StrEnum):
    """Methods with a public source; each is a module here with a function `compare`."""

    ANOMALYCLIP = "anomalyclip"
    SAA = "saa"
    SDP = "sdp"
    VISUALAD = "visualad"


def main(
    method: Annotated[Method, typer.Argument(help="The localizer.")],
    *,
    source: Annotated[Path, typer.Option(help="Checked-out tree of its public source.")],
    full_size: Annotated[
        bool, typer.Option("--full-size", help="ViT-L/14 at its published size; minutes.")
    ] = False,
    write: Annotated[Path | None, typer.Option(help="Golden outputs to write.")] = None,
) -> None:
    """Compare a localizer with its public source. Exit code 5: a difference is not accepted."""
    module = import_module(f"zeroflaw_benchmarks.verify.public_sources.{method.value}")
    compare = cast("Callable[..., Comparison]", module.compare)
    comparison = compare(source.resolve(), full_size=full_size)
    figures = comparison.figures
    for figure in figures:
        out.print(
            f"{figure.output}: largest difference {figure.value:.2e}, accepted"
            f" {figure.tolerance:.0e}{'' if figure.accepted else ': REFUSED'}",
            markup=False,
        )
    if not all(figure.accepted for figure in figures):
        raise typer.Exit(EXIT_REFUSED)
    if write is not None:
        write_golden(comparison.source, write)


if __name__ == "__main__":
    run_module(main)
