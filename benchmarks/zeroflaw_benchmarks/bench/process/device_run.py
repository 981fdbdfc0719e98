"""One engine on one device with and without transfers: what is timed of ours and of PyTorch's."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from zeroflaw.pipeline.geometry import geometry_of, squash
from zeroflaw.pipeline.refining.cascade import decoder_prompts
from zeroflaw.pipeline.refining.prompt_points import PointPrompts
from zeroflaw_benchmarks.bench.machine import gpu_state
from zeroflaw_benchmarks.bench.process.child_process import RunTimes, peak_rss
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.contract import CLIP_ENCODER, SAM_ENCODER, EngineName
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.sessions.batches import clip_encoder_inputs

_SEED: Final = 0
Arrays = dict[str, NDArray[Any]]

# The output of each engine that is held against another's.
COMPARED: Final[dict[EngineName, str]] = {
    "clip_encoder": "anomaly_map",
    "sam_encoder": "features",
    "sam_decoder": "low_res_logits",
}


@dataclass(frozen=True)
class Calls:
    """An engine that is loaded, and the ways to call it.

    Attributes:
        whole: From arrays in host memory to arrays in host memory, by name.
        resident: With inputs that lie on the device, leaving outputs there; returns when the
            device has done it.
        event_ms: The same, measured by the device's events; None where there are none.
        note: What a reader must know of how it ran.
    """

    whole: Callable[[], Arrays]
    resident: Callable[[], object]
    event_ms: Callable[[], float | None] | None = None
    note: Callable[[], str] = lambda: ""


def time_calls(load: Callable[[], Calls], runs: int, warm_ups: int) -> tuple[RunTimes, Arrays]:
    """Load an engine and time each way to call it.

    Args:
        runs: That are timed of each way.
        warm_ups: That are not, before them, of each way.

    Returns:
        The times, and what the last whole call gave. Device memory is what GPUs hold after the
        runs more than before the engine was loaded: of all processes, as far as is told.
    """
    before = gpu_state.memory_used()
    calls = load()
    seconds = _seconds(calls.whole, runs, warm_ups)
    resident = _seconds(calls.resident, runs, warm_ups)
    events = [] if calls.event_ms is None else [calls.event_ms() for _ in range(runs)]
    outputs = calls.whole()
    after = gpu_state.memory_used() if before is not None else None
    times = RunTimes(seconds, peak_rss())
    told = [ms / 1e3 for ms in events if ms is not None]
    return (
        replace(
            times,
            resident_seconds=resident,
            event_seconds=told or None,
            device_bytes=None if before is None or after is None else max(0, after - before),
            note=calls.note(),
        ),
        outputs,
    )


def _seconds(work: Callable[[], object], runs: int, warm_ups: int) -> list[float]:
    seconds = []
    for run in range(-warm_ups, runs):
        start = time.perf_counter()
        work()
        if run >= 0:
            seconds.append(time.perf_counter() - start)
    return seconds


def engine_inputs(
    bundle: Bundle, engine: EngineName, frame: NDArray[np.uint8], product: str
) -> Arrays:
    """Make the inputs of one image by the contract's names, the same in every process.

    They have the form of an encoder that takes one image: `stacked` makes a call of them for one
    that takes several. The encoders see the frame as a square; the decoder gets features of noise,
    one point of each sign and logits of noise.

    Args:
        frame: uint8 [H, W, 3], RGB.
    """
    sizes = bundle.manifest.sizes
    if engine == CLIP_ENCODER:
        image = squash(frame, sizes.clip_image_size)[None]
        texts = bundle.text_embeddings(product)
        return clip_encoder_inputs(bundle.contract(CLIP_ENCODER), image, texts)
    if engine == SAM_ENCODER:
        image = squash(frame, sizes.sam_image_size)[None]
        return {"image": image, "image_size": np.array(image.shape[1:3], np.int32)}
    rng = np.random.default_rng(_SEED)
    channels, grid, low = (
        sizes.sam_feature_channels, sizes.sam_feature_size, sizes.low_res_size,
    )  # fmt: skip
    side = sizes.sam_image_size
    points = PointPrompts(
        coords=(rng.random((2, 2)) * side).astype(np.float32),
        labels=np.array([1, 0], np.int32),
        extreme_region=np.zeros((1, 1), np.bool_),
        from_region=True,
    )
    prompts = decoder_prompts(
        points,
        (),
        rng.standard_normal((low, low), np.float32),
        geometry_of((side, side), sizes, MethodParameters()),
        max_prompts=sizes.max_prompts,
        low_res_size=low,
    )
    return {
        "features": rng.standard_normal((1, channels, grid, grid), np.float32),
        **{name: np.asarray(value) for name, value in vars(prompts).items()},
    }
