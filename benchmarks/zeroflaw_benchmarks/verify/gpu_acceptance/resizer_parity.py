"""The check that `frame_resizer` resizes on the GPU, and gives what the host gives, to the bit."""

from __future__ import annotations

from contextlib import closing
from itertools import chain
from typing import Final

import numpy as np

from zeroflaw.inspector import Inspector
from zeroflaw.pipeline.geometry import geometry_of, resized_for_encoders
from zeroflaw.pipeline.resizing.on_device import DeviceResizer
from zeroflaw_benchmarks.verify.gpu_acceptance.checks import Frames, check_of
from zeroflaw_benchmarks.verify.gpu_acceptance.report import Check
from zeroflaw_engines.backends import load_session
from zeroflaw_engines.builder.parity import fixed_inputs
from zeroflaw_engines.contract import FRAME_RESIZER
from zeroflaw_engines.image_files.frame import Frame
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, Tensor, on_host
from zeroflaw_engines.sessions.session import Session

RESIZER_PARITY: Final = "parity of frame_resizer"

# Height and width, px: of a wide and of a tall picture, whose passes Pillow does in either order.
_NOISE_SIZES: Final = ((601, 811), (1021, 307))
_SEED: Final = 16

Value = Tensor | DeviceTensor
_Pair = tuple[str, Value, Value]  # what it is, what the candidate gives, what it must be


def resizer_parity(
    candidate: Inspector, frames: Frames, *, on_gpu: bool, threads: int = 0
) -> Check:
    """Compare `frame_resizer` with ONNX Runtime on the CPU and with Pillow: no value may differ.

    An Inspector whose `frame_resizer` is missing or wrong resizes on the host and gives the same
    masks, so no other check sees either. Run it after those that inspect frames: it also fails if
    one of their frames was found to be resized wrongly. Noise is resized beside the frames, which
    may all be of a size that an encoder takes as it is.

    Args:
        candidate: Whose `frame_resizer` is checked.
        frames: uint8 [H, W, 3] each.
        on_gpu: Whether its backend runs on a GPU, and so has a `frame_resizer`.
        threads: CPU threads of the reference; 0 takes every core.
    """
    session, resizer = candidate.sessions.frame_resizer, candidate.sessions.resizer
    if session is None or resizer is None:
        if not on_gpu:
            detail = "the backend runs on the processor, where Pillow resizes"
            return Check(name=RESIZER_PARITY, outcome="not applicable", detail=detail)
        detail = "frame_resizer was not loaded, and the host resized every frame: see the log"
        return check_of(RESIZER_PARITY, detail, passed=False)
    pictures = [*frames, *_noise()]
    resized = _beside_pillow(candidate, session, pictures)
    pairs = [*_beside_onnxruntime(candidate, session, threads), *chain.from_iterable(resized)]
    differing = {what: count for what, got, want in pairs if (count := _differing(got, want))}
    why = [f"{count} values {what} differ" for what, count in differing.items()]
    if resizer.is_wrong:
        why.append(
            "an inspection found other values than Pillow's, and the host resized from then on"
        )
    left = len(pictures) - len(resized)
    if not resized:
        why.append(f"all {left} pictures were left to the host")
    fine = (
        "every value is that of onnxruntime on the CPU and,"
        f" of {len(resized)} pictures, that of Pillow"
    )
    return check_of(
        RESIZER_PARITY,
        "; ".join(why) or fine + (f"; {left} are of a size that the host resizes" if left else ""),
        {
            "pictures put on the device": float(len(resized)),
            "pictures left to the host": float(left),
            "values that differ": float(sum(differing.values())),
        },
        passed=not why,
    )


def _beside_onnxruntime(candidate: Inspector, session: Session, threads: int) -> list[_Pair]:
    given = fixed_inputs(session.contract)
    with closing(load_session(candidate.bundle, FRAME_RESIZER, threads=threads)) as reference:
        wanted = reference.execute(given)
    got = session.execute(given)
    return [(f"of {name}, on fixed inputs,", got[name], want) for name, want in wanted.items()]


def _beside_pillow(
    candidate: Inspector, session: Session, frames: Frames
) -> list[tuple[_Pair, ...]]:
    """Resize each frame for both encoders; those of a size that only the host resizes are left out.

    Returns:
        Of each other frame, that for CLIP, and that for SAM if there is one.
    """
    # One of its own: that of the Inspector leaves frames to the host once it was found wrong.
    resizer = DeviceResizer(session, checks=False)
    sizes, parameters = candidate.bundle.manifest.sizes, candidate.parameters
    found: list[tuple[_Pair, ...]] = []
    for number, frame in enumerate(frames, start=1):
        geometry = geometry_of((frame.shape[0], frame.shape[1]), sizes, parameters)
        up = resizer.upload(frame, geometry)
        if up is None:
            continue
        square, fitted = resized_for_encoders(frame, geometry)
        for_clip = (f"of picture {number} for CLIP", up.squash(), square[None])
        for_sam = ((f"of picture {number} for SAM", up.fit(), fitted[None]),) if fitted.size else ()
        found.append((for_clip, *for_sam))
    return found


def _noise() -> list[Frame]:
    """Draw black and white noise, where filters overshoot most."""
    rng = np.random.default_rng(_SEED)
    return [255 * rng.integers(0, 2, (*size, 3), dtype=np.uint8) for size in _NOISE_SIZES]


def _differing(got: Value, want: Value) -> int:
    """Count the values that are not the same; all of them where the shape is another."""
    one, other = on_host(got), on_host(want)
    return int(np.sum(one != other)) if one.shape == other.shape else other.size
