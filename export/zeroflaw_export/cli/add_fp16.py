"""`zeroflaw add-fp16`, which joins the command line through an entry point."""

from __future__ import annotations

from typing import Annotated

import typer

from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.errors import MissingExtraError
from zeroflaw_engines.process.terminal import err


def add_fp16(
    bundle: Annotated[str, typer.Argument(help="Directory of the bundle to change.")],
) -> None:
    """Add FP16 graphs for TensorRT to a bundle, made of its ONNX files; PyTorch is not needed.

    Each is checked against the FP32 graph on ONNX Runtime before anything is published. What
    ships with zeroflaw is not changed; copy it first:

        zeroflaw bundle copy mini my_bundle

        zeroflaw add-fp16 my_bundle
    """
    try:
        from zeroflaw_export.graphs.add_fp16 import add_fp16_graphs
    except ImportError as error:
        raise MissingExtraError(
            f"`zeroflaw add-fp16` needs libraries that are not installed ({error.name})",
            "install zeroflaw[export] on this workstation; stations do not need it",
        ) from error
    opened = open_bundle(bundle)
    with err.status("starting") as status:
        changed = add_fp16_graphs(opened, status.update)
    figures = [figure for figure in changed.manifest.parity if figure.target == "tensorrt"]
    worst = max(figure.value / figure.tolerance for figure in figures)
    typer.echo(
        f"{bundle}: FP16 graphs for TensorRT, parity with FP32 within {worst:.1%} of what is"
        " accepted; `zeroflaw build` makes engines of them"
    )
