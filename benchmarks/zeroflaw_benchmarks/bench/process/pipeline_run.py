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
from zeroflaw_benchmarks.bench.machine import gpu_state
from zeroflaw_benchmarks.bench.process.child_process import RunTimes, answer, time_runs
from zeroflaw_benchmarks.bench.process.run_on import TORCH, RunOn, TorchMode, warm_up_on_gpu

_Inspect = Callable[[NDArray[np.uint8]], NDArray[np.bool_]]
# A pipeline, the name of its device, and what a reader must know of how it ran.
_Loaded = tuple[_Inspect, str, Callable[[], str]]


@dataclass(frozen=True)
class PipelineTask:
    """What is to be run.

    Attributes:
        bundle: As `open_bundle` takes it.
        run_on: What runs the engines, or `torch`.
        product: That the frame shows.
        frame: Path of the image file.
        mask: Where the mask is written, `.npy`.
        runs: Inspections that are timed.
        warm_ups: Inspections before them that are not.
        torch_device: Where PyTorch runs, as `torch_device` takes it.
        torch_mode: How PyTorch runs its encoders. On a GPU, and in any mode but `eager`, they are
            of the precision as a whole; on a CPU and eager, bf16 is autocast.
    """

    bundle: str
    run_on: RunOn
    product: str
    frame: str
    mask: str
    runs: int = 1
    warm_ups: int = 1
    torch_device: str = "cpu"
    torch_mode: TorchMode = "eager"


def run_pipeline(task: PipelineTask) -> RunTimes:
    """Load the pipeline and inspect the frame again and again, warm-ups first.

    Device memory is what GPUs hold after the runs more than before the pipeline was loaded.
    """
    before = gpu_state.memory_used()
    frame = np.ascontiguousarray(read_image(Path(task.frame)))
    inspect, device, note = (_reference if task.run_on.backend == TORCH else _inspector)(task)
    masks: list[NDArray[np.bool_]] = []
    times = time_runs(lambda: masks.append(inspect(frame)), task.runs, untimed=task.warm_ups)
    np.save(task.mask, masks[-1])
    after = None if before is None else gpu_state.memory_used()
    held = None if before is None or after is None else max(0, after - before)
    return replace(times, device=device, device_bytes=held, note=note())


def _inspector(task: PipelineTask) -> _Loaded:
    inspector = task.run_on.inspector(task.bundle)
    warm_up_on_gpu(inspector)

    def inspect(frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
        return inspector.inspect(frame, product=task.product).mask

    return inspect, "gpu" if task.run_on.on_gpu else "cpu", lambda: ""


def _reference(task: PipelineTask) -> _Loaded:
    """The PyTorch models, of the bundle's seed if it has one."""
    import torch

    from zeroflaw.pipeline.geometry import geometry_of
    from zeroflaw.pipeline.refining.prompt_points import point_prompts
    from zeroflaw_benchmarks.bench.process.torch_device import CPU, torch_device
    from zeroflaw_benchmarks.bench.process.torch_modes import mode_note
    from zeroflaw_benchmarks.bench.process.torch_pipeline import encoders_on
    from zeroflaw_benchmarks.reference.reference_models import reference_clip, reference_sam
    from zeroflaw_benchmarks.reference.reference_pipeline import (
        reference_inspection,
        reference_map,
    )
    from zeroflaw_engines.bundle.bundle import open_bundle
    from zeroflaw_engines.errors import BenchmarkError

    if task.run_on.threads:
        torch.set_num_threads(task.run_on.threads)
    bundle = open_bundle(task.bundle, verify_digests=False)
    recorded = bundle.manifest.method_parameters
    if recorded.refiner != "cascade":
        raise BenchmarkError(
            f"the PyTorch models run the cascade, and the refiner of {bundle.path} is"
            f" {recorded.refiner}",
            "leave this peer out, or bench a bundle that records the cascade",
        )
    clip, sam = reference_clip(bundle), reference_sam(bundle)
    embeddings = bundle.text_embeddings(task.product)
    device, mode, precision = (
        torch_device(task.torch_device),
        task.torch_mode,
        task.run_on.precision,
    )
    bf16, map_of = precision == "bf16", reference_map
    if mode != "eager" or device.name != CPU:
        bf16, map_of = False, encoders_on(clip, sam, device, mode, precision or "fp32")
    parameters = replace(recorded, no_region="always_run")
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

    def inspect(frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
        return reference_inspection(
            clip, sam, frame, embeddings, bf16_encoders=bf16, points_of=points_of, map_of=map_of
        ).mask

    return inspect, device.name, lambda: mode_note(mode)


if __name__ == "__main__":
    answer(PipelineTask, run_pipeline)
