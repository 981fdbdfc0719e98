"""The kit's command where it is packed.

python -m zeroflaw_benchmarks.verify.gpu_kit pack KIT
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from zeroflaw_benchmarks.verify.gpu_kit.pack import PARTS, PROGRAM, PackOptions, sizes
from zeroflaw_benchmarks.verify.gpu_kit.pack import pack as make_pieces
from zeroflaw_engines import arguments
from zeroflaw_engines.errors import ZeroflawError
from zeroflaw_engines.process.terminal import err, out, print_error

_MIB: Final = 2**20
app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def gpu_kit() -> None:
    """Carry zeroflaw to a GPU machine without internet, and verify it there."""


@app.command()
def pack(
    folder: Annotated[Path, typer.Argument(help="Where the pieces go; must be empty.")],
    *,
    piece_mib: Annotated[
        float, typer.Option(min=1, help="Most MiB of a piece: of one transfer.")
    ] = 48,
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this part; repeatable: tree (zeroflaw and its examples), site (packages),"
            " ort (ONNX Runtime with CUDA), rtx (TensorRT-RTX)."
        ),
    ] = None,
    python: Annotated[str, typer.Option(help="Version of Python of the GPU machine.")] = "3.12",
    architecture: Annotated[
        int, typer.Option(help="Compute capability of its GPU, without the point.")
    ] = 90,
    preset: Annotated[int, typer.Option(min=0, max=9, help="Of xz: 9 is slow and small.")] = 6,
) -> None:
    """Make the pieces of a kit; pip asks PyPI for the packages."""
    for name in part or ():
        arguments.choice("--part", name, PARTS)
    options = PackOptions(
        parts=tuple(part or PARTS),
        piece_size=int(piece_mib * _MIB),
        python=python,
        architecture=architecture,
        preset=preset,
    )
    contents = make_pieces(folder, options, say=lambda text: err.print(text, markup=False))
    for number, size in enumerate(sizes(contents), start=1):
        out.print(f"{folder / f'piece_{number}'}: {size / _MIB:.1f} MiB", markup=False)
    out.print(f"there, with Python {python}: python3 piece_1/{PROGRAM} --out reports", markup=False)


if __name__ == "__main__":
    try:
        app()
    except ZeroflawError as error:
        print_error(error)
        sys.exit(1)
