"""One pipeline on one frame, in a process of its own: time of one inspection, and its mask.

    python -m zeroflaw_benchmarks.bench.process.pipeline_run '{"bundle": "...", ...}'

`zeroflaw bench --peers` starts it; it prints one line of JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroflaw.pictures.images import read_image
from zeroflaw_benchmarks.bench.process.child_process import RunTimes, answer, time_runs
from zeroflaw_benchmarks.bench.process.run_on import TORCH, RunOn

_Inspect = Callable[[NDArray[np.uint8]], NDArray[np.bool_]]


@dataclass(frozen=True)
class PipelineTask:
    """What is to be run.

    Attributes:
        bundle: As `open_bundle` takes it.
        run_on: What runs the engines, or `torch`.
        product: That the frame shows.
        frame: Path of the image file.
        mask: Where the mask is written, `.npy`.
    """

    bundle: str
    run_on: RunOn
    product: str
    frame: str
    mask: str


def run_pipeline(task: PipelineTask) -> RunTimes:
    """Load the pipeline and inspect the frame twice; the second inspection is timed."""
    frame = np.ascontiguousarray(read_image(Path(task.frame)))
    inspect = _reference(task) if task.run_on.backend == TORCH else _inspector(task)
    masks: list[NDArray[np.bool_]] = []
    times = time_runs(lambda: masks.append(inspect(frame)), 1)
    np.save(task.mask, masks[-1])
    return times


def _inspector(task: PipelineTask) -> _Inspect:
    inspector = task.run_on.inspector(task.bundle)
    return lambda frame: inspector.inspect(frame, product=task.product).mask


def _reference(task: PipelineTask) -> _Inspect:
    """The PyTorch models, of the bundle's seed if it has one."""
    import torch

    from zeroflaw.pipeline.encoding import geometry_of
    from zeroflaw.pipeline.prompt_points import point_prompts
    from zeroflaw_benchmarks.reference.reference_models import reference_clip, reference_sam
    from zeroflaw_benchmarks.reference.reference_pipeline import reference_inspection
    from zeroflaw_engines.bundle.bundle import open_bundle

    if task.run_on.threads:
        torch.set_num_threads(task.run_on.threads)
    bundle = open_bundle(task.bundle, verify_digests=False)
    clip, sam = reference_clip(bundle), reference_sam(bundle)
    embeddings = bundle.text_embeddings(task.product)
    bf16 = task.run_on.precision == "bf16"
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


if __name__ == "__main__":
    answer(PipelineTask, run_pipeline)
