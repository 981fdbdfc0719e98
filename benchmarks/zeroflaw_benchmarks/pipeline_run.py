"""One way of inspecting a frame, in a process of its own: time of each inspection, and its mask.

    python -m zeroflaw_benchmarks.pipeline_run '{"bundle": "...", "way": "openvino:bf16", ...}'

`pipeline_speed` starts it; it prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from skimage import data

from zeroflaw_benchmarks.encoder_run import peak_rss

REFERENCE: Final = "torch"
_Inspect = Callable[[NDArray[np.uint8]], NDArray[np.bool_]]


@dataclass(frozen=True)
class PipelineRun:
    """What is to be run.

    Attributes:
        bundle: Its directory; its weights are random.
        way: `torch` or a backend, and after a colon the precision if it is not the default.
        runs: Inspections that are timed.
        mask: Where the mask is written, `.npy`.
    """

    bundle: str
    way: str
    runs: int
    mask: str


@dataclass(frozen=True)
class PipelineTimes:
    """What was seen.

    Attributes:
        seconds: Of each inspection.
        peak_rss: Largest resident memory of the process, bytes.
    """

    seconds: list[float]
    peak_rss: int


def run_pipeline(run: PipelineRun) -> PipelineTimes:
    """Loads the pipeline, inspects the frame once for warm-up and then as often as asked."""
    frame = np.ascontiguousarray(data.astronaut())
    backend, _, precision = run.way.partition(":")
    inspect = (_reference if backend == REFERENCE else _inspector)(run.bundle, backend, precision)
    mask = inspect(frame)
    seconds = []
    for _ in range(run.runs):
        start = time.perf_counter()
        mask = inspect(frame)
        seconds.append(time.perf_counter() - start)
    np.save(run.mask, mask)
    return PipelineTimes(seconds, peak_rss())


def _inspector(bundle: str, backend: str, precision: str) -> _Inspect:
    from zeroflaw import Inspector

    options: dict[str, Any] = {"precision": precision} if precision else {}
    inspector = Inspector.load(bundle, backend, **options)
    product = inspector.products[0]
    return lambda frame: inspector.inspect(frame, product=product).mask


def _reference(bundle: str, _backend: str, precision: str) -> _Inspect:
    """The PyTorch models of the bundle's seed."""
    from zeroflaw_benchmarks.reference_pipeline import ReferenceClip, reference_inspection
    from zeroflaw_engines.bundle import open_bundle
    from zeroflaw_export.architectures import clip_architecture, sam_architecture
    from zeroflaw_export.models import WeightsSource, load_clip, load_linear_adapters, load_sam

    opened = open_bundle(bundle)
    manifest = opened.manifest
    source = WeightsSource(name="random", path=None, seed=manifest.random_weights)
    architecture = clip_architecture(manifest.clip.architecture)
    size = manifest.clip.image_size
    model = load_clip(architecture, size, source)
    adapters = load_linear_adapters(architecture, model, source)
    clip = ReferenceClip(model, adapters, architecture.tapped_blocks, size)
    sam = load_sam(sam_architecture(manifest.sam.architecture), source)
    embeddings = opened.text_embeddings(min(manifest.products))
    bf16 = precision == "bf16"
    return lambda frame: reference_inspection(clip, sam, frame, embeddings, bf16_encoders=bf16).mask


if __name__ == "__main__":
    times = run_pipeline(PipelineRun(**json.loads(sys.argv[1])))
    sys.stdout.write(json.dumps(asdict(times)) + "\n")
