"""Load to first result against plain sessions of the same files, each in a process of its own.

    python -m zeroflaw_benchmarks.bench.measure.load_time '{"bundle": "mini", ...}'

`measure_load` starts it; it prints one line of JSON.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from zeroflaw_benchmarks.bench.machine.spread import spread, times_faster
from zeroflaw_benchmarks.bench.process.child_process import answer, run_child
from zeroflaw_benchmarks.bench.process.run_on import RunOn
from zeroflaw_benchmarks.bench.report.report import LoadTime
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.bundle.graph_entries import GraphTarget
from zeroflaw_engines.contract import CLIP_ENCODER, SAM_DECODER, SAM_ENCODER, EngineName

# Of each engine in one inspection.
_CALLS: Final[dict[EngineName, int]] = {CLIP_ENCODER: 1, SAM_ENCODER: 1, SAM_DECODER: 3}


@dataclass(frozen=True)
class LoadTask:
    """What is to be loaded.

    Attributes:
        bundle: As `open_bundle` takes it.
        run_on: What runs the engines.
        product: Of the first frame.
        frame: File of the first frame.
        plain: Whether plain sessions are loaded in place of an Inspector.
    """

    bundle: str
    run_on: RunOn
    product: str
    frame: str
    plain: bool = False


@dataclass(frozen=True)
class LoadSeconds:
    """What it took.

    Attributes:
        load: Until the engines are loaded.
        first: Until the first result: of an inspection, or of one run of each engine.
        digests: Reading and digesting every file, alone; 0 for plain sessions.
    """

    load: float
    first: float
    digests: float = 0.0


def measure_load(task: LoadTask, rounds: int) -> LoadTime:
    """Load an Inspector and plain sessions in turn, with the files in the file cache."""
    run_child("measure.load_time", replace(task, plain=True), LoadSeconds)  # fills the file cache
    ours, plain = [], []
    for _ in range(rounds):
        plain.append(run_child("measure.load_time", replace(task, plain=True), LoadSeconds))
        ours.append(run_child("measure.load_time", task, LoadSeconds))
    return LoadTime(
        first_result_ms=spread([1e3 * one.first for one in ours]),
        load_ms=spread([1e3 * one.load for one in ours]),
        digests_ms=spread([1e3 * one.digests for one in ours]),
        plain_ms=spread([1e3 * one.load for one in plain]),
        plain_first_ms=spread([1e3 * one.first for one in plain]),
        ratio=times_faster([one.load for one in ours], [one.load for one in plain]),
        ratio_first=times_faster([one.first for one in ours], [one.first for one in plain]),
    )


def load_once(task: LoadTask) -> LoadSeconds:
    """Load the bundle as a task says and run it once."""
    return _plain(task) if task.plain else _ours(task)


def _ours(task: LoadTask) -> LoadSeconds:
    from zeroflaw.inspector import Inspector
    from zeroflaw.pictures.images import read_image

    task.run_on.import_library()
    image = read_image(Path(task.frame))
    start = time.perf_counter()
    inspector = Inspector.load(
        task.bundle,
        task.run_on.backend,
        precision=task.run_on.precision,
        threads=task.run_on.threads,
        device=task.run_on.device,
    )
    loaded = time.perf_counter()
    inspector.inspect(image, product=task.product)
    end = time.perf_counter()
    open_bundle(task.bundle)
    return LoadSeconds(loaded - start, end - start, time.perf_counter() - end)


def _plain(task: LoadTask) -> LoadSeconds:
    """Sessions with the backend's defaults, as a researcher would make them."""
    from zeroflaw_engines.sessions.session import zeros_for

    bundle = open_bundle(task.bundle, verify_digests=False)
    target: GraphTarget = "openvino" if task.run_on.backend == "openvino" else "onnxruntime"
    task.run_on.import_library()
    start = time.perf_counter()
    sessions = {
        engine: task.run_on.plain_session(bundle.graph(engine, target).path) for engine in _CALLS
    }
    loaded = time.perf_counter()
    for engine, run in sessions.items():
        for _ in range(_CALLS[engine]):
            run(zeros_for(bundle.contract(engine)))
    return LoadSeconds(loaded - start, time.perf_counter() - start)


if __name__ == "__main__":
    answer(LoadTask, load_once)
