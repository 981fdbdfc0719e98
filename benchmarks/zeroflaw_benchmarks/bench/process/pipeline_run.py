"""One way of inspecting a frame, in a process of its own: time of each inspection, and its mask.

    python -m zeroflaw_benchmarks.bench.process.pipeline_run '{"bundle": "...", ...}'

`zeroflaw bench --peers` starts it; it prints one line of JSON.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from zeroflaw.pictures.images import read_image
from zeroflaw_benchmarks.bench.process.child_process import answer, peak_rss

REFERENCE: Final = "torch"
_Inspect = Callable[[NDArray[np.uint8]], NDArray[np.bool_]]


@dataclass(frozen=True)
class PipelineRun:
    """What is to be run.

    Attributes:
        bundle: As `open_bundle` takes it.
        way: `torch` or a backend, and after a colon the precision if it is not the default.
        product: That the frame shows.
        frame: Its file.
        runs: Inspections that are timed.
        warm: Inspections before them.
        threads: CPU threads; 0 takes every core.
        mask: Where the mask is written, `.npy`; empty: nowhere.
    """

    bundle: str
    way: str
    product: str
    frame: str
    runs: int = 1
    warm: int = 1
    threads: int = 0
    mask: str = ""


@dataclass(frozen=True)
class PipelineTimes:
    """What was seen.

    Attributes:
        seconds: Of each inspection.
        stages_ms: Median of each stage; empty for torch.
        peak_rss: Largest resident memory of the process, bytes.
    """

    seconds: list[float]
    stages_ms: dict[str, float]
    peak_rss: int


def run_pipeline(run: PipelineRun) -> PipelineTimes:
    """Loads the pipeline, inspects the frame as often as asked."""
    frame = np.ascontiguousarray(read_image(Path(run.frame)))
    stages: list[dict[str, float]] = []
    way = _reference if run.way.startswith(REFERENCE) else _inspector
    inspect = way(run, stages)
    for _ in range(run.warm):
        inspect(frame)
    stages.clear()
    seconds = []
    for _ in range(run.runs):
        start = time.perf_counter()
        mask = inspect(frame)
        seconds.append(time.perf_counter() - start)
    if run.mask:
        np.save(run.mask, mask)
    return PipelineTimes(seconds, _medians(stages), peak_rss())


def _inspector(run: PipelineRun, stages: list[dict[str, float]]) -> _Inspect:
    from zeroflaw import Inspector
    from zeroflaw_engines.bundle.bundle import read_manifest

    backend, _, precision = run.way.partition(":")
    recorded = read_manifest(run.bundle).method_parameters
    inspector = Inspector.load(
        run.bundle,
        backend,
        precision=precision or None,
        parameters=recorded.replace(no_region="always_run"),
        threads=run.threads,
    )

    def inspect(frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
        inspection = inspector.inspect(frame, product=run.product)
        stages.append(inspection.timings_ms)
        return inspection.mask

    return inspect


def _reference(run: PipelineRun, _stages: list[dict[str, float]]) -> _Inspect:
    """The PyTorch models, of the bundle's seed if it has one."""
    import torch

    from zeroflaw.pipeline.encoding import geometry_of
    from zeroflaw.pipeline.prompt_points import point_prompts
    from zeroflaw_benchmarks.reference.bundle_originals import original_clip, original_sam
    from zeroflaw_benchmarks.reference.reference_pipeline import reference_inspection
    from zeroflaw_engines.bundle.bundle import open_bundle

    if run.threads:
        torch.set_num_threads(run.threads)
    bundle = open_bundle(run.bundle, verify_digests=False)
    clip, sam = original_clip(bundle), original_sam(bundle)
    embeddings = bundle.text_embeddings(run.product)
    bf16 = run.way.endswith(":bf16")
    parameters = replace(bundle.manifest.method_parameters, no_region="always_run")
    sizes = bundle.manifest.sizes

    def points_of(
        anomaly_map: NDArray[Any],
        features: NDArray[Any],
        frame: tuple[int, int],
        *_: object,
        **__: object,
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        # Ours: the reference's own is plain loops, and networks are what is to be compared.
        points = point_prompts(
            anomaly_map, features, geometry_of(frame, sizes, parameters), parameters
        )
        assert points is not None  # noqa: S101 - `always_run` gives points; this is for mypy
        return points.coords, points.labels

    return lambda frame: (
        reference_inspection(
            clip, sam, frame, embeddings, bf16_encoders=bf16, points_of=points_of
        ).mask
    )


def _medians(stages: list[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for one in stages for name in one)
    return {name: float(np.median([one.get(name, 0.0) for one in stages])) for name in names}


if __name__ == "__main__":
    answer(PipelineRun, run_pipeline)
