"""Do a backend and a precision give the masks of ONNX Runtime in FP32?

    python -m zeroflaw_benchmarks.verify.backend_masks mini PHOTOS... --backend openvino

Masks mean something only where the weights do: with random ones a threshold cuts noise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zeroflaw.sessions import Sessions
from zeroflaw_benchmarks.verify.fp16_safety import LEAST_IOU, compare_masks, frames_of
from zeroflaw_engines.backends import load_session
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.contract import CLIP_ENCODER, SAM_DECODER, SAM_ENCODER
from zeroflaw_engines.process.terminal import run_module


def main(
    bundle: Annotated[str, typer.Argument(help="A bundle, or mini.")],
    photos: Annotated[list[Path], typer.Argument(help="Photos, or directories of them.")],
    *,
    backend: Annotated[str, typer.Option(help="What is compared.")],
    precision: Annotated[str | None, typer.Option(help="Default: that of the backend.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="How many frames to inspect.")] = 120,
    product: Annotated[str | None, typer.Option(help="Default: the first.")] = None,
) -> None:
    """Compare the final masks of a backend with those of ONNX Runtime in FP32."""
    opened = open_bundle(bundle)
    clip, encoder, decoder = (
        load_session(opened, engine, backend=backend, precision=precision)
        for engine in (CLIP_ENCODER, SAM_ENCODER, SAM_DECODER)
    )
    seen = compare_masks(
        opened,
        frames_of(photos, frames),
        Sessions(clip_encoder=clip, sam_encoder=encoder, sam_decoder=decoder),
        product or min(opened.manifest.products),
    )
    typer.echo(
        f"{encoder.backend}: {seen.frames} frames, {seen.masks} with a mask, IoU mean"
        f" {seen.mean_iou:.5f}, least {seen.least_iou:.5f}, {len(seen.misses)} below {LEAST_IOU};"
        f" {seen.flipped_decisions} decisions change"
    )


if __name__ == "__main__":
    run_module(main)
