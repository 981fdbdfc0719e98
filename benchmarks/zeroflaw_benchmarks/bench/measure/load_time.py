"""Load to first result against plain sessions of the same files, each in a process of its own.

    python -m zeroflaw_benchmarks.bench.measure.load_time '{"bundle": "mini", ...}'

`measure_load` starts it; it prints one line of JSON.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zeroflaw_benchmarks.bench.machine.spread import spread, times_faster
from zeroflaw_benchmarks.bench.process.child_process import answer, run_child
from zeroflaw_benchmarks.bench.report.report import LoadTime
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.contract import CLIP_ENCODER, SAM_DECODER, SAM_ENCODER


@dataclass(frozen=True)
class LoadTask:
    """What is to be loaded.

    Attributes:
        bundle: As `open_bundle` takes it.
        way: Backend, a colon and the precision, which may be empty.
        product: Of the first frame.
        frame: File of the first frame.
        plain: Whether plain sessions are loaded in place of an Inspector.
    """

    bundle: str
    way: str
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
    """Loads both ways in turn, with the files in the file cache.

    Args:
        task: What is loaded.
        rounds: How often.
    """
    run_child(
        "bench.measure.load_time", replace(task, plain=True), LoadSeconds
    )  # fills the file cache
    ours, plain = [], []
    for _ in range(rounds):
        plain.append(run_child("bench.measure.load_time", replace(task, plain=True), LoadSeconds))
        ours.append(run_child("bench.measure.load_time", task, LoadSeconds))
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
    """Loads the bundle one way and runs it once."""
    return _plain(task) if task.plain else _ours(task)


def _ours(task: LoadTask) -> LoadSeconds:
    from zeroflaw.inspector import Inspector
    from zeroflaw.pictures.images import read_image

    backend, _, precision = task.way.partition(":")
    _import_backend(backend)
    image = read_image(Path(task.frame))
    start = time.perf_counter()
    inspector = Inspector.load(task.bundle, backend, precision=precision or None)
    loaded = time.perf_counter()
    inspector.inspect(image, product=task.product)
    end = time.perf_counter()
    open_bundle(task.bundle)
    return LoadSeconds(loaded - start, end - start, time.perf_counter() - end)


def _plain(task: LoadTask) -> LoadSeconds:
    """Sessions with the backend's defaults, as a researcher would make them."""
    from zeroflaw_engines.sessions.session import zeros_for

    backend, _, precision = task.way.partition(":")
    bundle = open_bundle(task.bundle, verify_digests=False)
    load = _openvino if backend == "openvino" else _onnxruntime
    _import_backend(backend)
    start = time.perf_counter()
    sessions = [
        load(bundle, engine, precision) for engine in (CLIP_ENCODER, SAM_ENCODER, SAM_DECODER)
    ]
    loaded = time.perf_counter()
    for (run, engine), calls in zip(sessions, (1, 1, 3), strict=True):
        for _ in range(calls):
            run(zeros_for(bundle.contract(engine)))
    return LoadSeconds(loaded - start, time.perf_counter() - start)


def _import_backend(backend: str) -> None:
    """Importing a library is no part of loading with it, in either way."""
    if backend == "openvino":
        from zeroflaw_engines.sessions.openvino_session import load_openvino

        load_openvino()
    else:
        import zeroflaw_engines.sessions.quiet_onnxruntime  # noqa: F401


def _onnxruntime(bundle: Bundle, engine: Any, _precision: str) -> Any:  # noqa: ANN401 - a session
    from zeroflaw_engines.sessions.quiet_onnxruntime import ort

    path = str(bundle.graph(engine, "onnxruntime").path)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs), engine


def _openvino(bundle: Bundle, engine: Any, precision: str) -> Any:  # noqa: ANN401 - as above
    from zeroflaw_engines.sessions.openvino_session import load_openvino

    settings = {"INFERENCE_PRECISION_HINT": {"bf16": "bf16", "fp16": "f16"}.get(precision, "f32")}
    path = str(bundle.graph(engine, "openvino").path)
    compiled = load_openvino().Core().compile_model(path, "CPU", settings)
    return compiled, engine


if __name__ == "__main__":
    answer(LoadTask, load_once)
