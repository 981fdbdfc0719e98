"""Each engine against the machine's own ceilings, measured in the same run."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

import numpy as np

from zeroflaw.inspector import Inspector
from zeroflaw_benchmarks.bench.machine.gemm_rate import SHAPES, gemm_rates
from zeroflaw_benchmarks.bench.machine.graph_macs import GraphCost, graph_cost
from zeroflaw_benchmarks.bench.machine.memory_rate import memory_rate
from zeroflaw_benchmarks.bench.machine.spread import Spread, spread
from zeroflaw_benchmarks.bench.report.report import Ceiling, EngineRoofline
from zeroflaw_engines.bundle.graph_entries import GraphTarget
from zeroflaw_engines.contract import SAM_DECODER, EngineContract
from zeroflaw_engines.process.cores import usable_cores
from zeroflaw_engines.sessions.device_tensor import Tensor
from zeroflaw_engines.sessions.session import Session, zeros_for

ONE_PROMPT: Final = {"batch": 1, "images": 1}
_ON_CPU: Final = ("onnxruntime", "openvino")
_MIN_RUNS: Final = 2
_MAX_RUNS: Final = 30


def measure_ceilings(
    *, shapes: tuple[tuple[int, int, int], ...] = SHAPES[1:2], repeats: int = 3
) -> tuple[Ceiling, ...]:
    """Measure the best products of matrices and reading of memory, by precision, on all cores."""
    gigabytes = memory_rate()
    ceilings = []
    for precision, rates in gemm_rates(shapes, repeats=repeats).items():
        if rates:
            library = max(rates, key=lambda name: rates[name])
            ceilings.append(
                Ceiling(
                    precision=precision,
                    gflops=rates[library],
                    library=library,
                    gigabytes_per_second=gigabytes,
                    threads=usable_cores(),
                )
            )
    return tuple(ceilings)


def measure_roofline(
    inspector: Inspector, ceilings: Iterable[Ceiling], *, seconds: float = 5.0
) -> tuple[EngineRoofline, ...]:
    """Run each engine alone and hold its time against the floor of its graph.

    The ceiling of the engines' precision counts; each engine runs for some seconds, at least twice.

    Returns:
        Nothing where there is no ceiling: on a GPU, or in a precision no library multiplies in.
    """
    choice = inspector.choice
    if choice is None or choice.backend not in _ON_CPU:
        return ()
    ceiling = next((one for one in ceilings if one.precision == choice.precision), None)
    if ceiling is None:
        return ()
    target: GraphTarget = "openvino" if choice.backend == "openvino" else "onnxruntime"
    rows = []
    for session in inspector.sessions:
        name = session.contract.name
        cost = graph_cost(inspector.bundle.graph(name, target).path, ONE_PROMPT)
        calls = inspector.parameters.cascade_stages if name == SAM_DECODER else 1
        alone = _alone(session, seconds)
        rows.append(engine_roofline(name, calls, cost, ceiling, alone))
    return tuple(rows)


def engine_roofline(
    engine: str, calls: int, cost: GraphCost, ceiling: Ceiling, call_ms: Spread
) -> EngineRoofline:
    """Compute the floor of one engine: the greater of its arithmetic and its least traffic."""
    arithmetic = 1e3 * cost.flops / (ceiling.gflops * 1e9)
    memory = 1e3 * cost.min_bytes / (ceiling.gigabytes_per_second * 1e9)
    floor = max(arithmetic, memory)
    return EngineRoofline(
        engine=engine,
        calls=calls,
        gflop=cost.flops / 1e9,
        megabytes=cost.min_bytes / 1e6,
        megabytes_unfused=cost.unfused_bytes / 1e6,
        floor_ms=floor,
        bound="arithmetic" if arithmetic >= memory else "memory",
        call_ms=call_ms,
        fraction=floor / call_ms.middle,
    )


def random_inputs(contract: EngineContract) -> dict[str, Tensor]:
    """Make inputs for one prompt and a full bank: noise, as zeros may be a special case."""
    rng = np.random.default_rng(0)
    inputs = dict(zeros_for(contract))
    for name, zeros in inputs.items():
        if zeros.dtype == np.uint8:
            inputs[name] = rng.integers(0, 256, zeros.shape, dtype=np.uint8)
        elif zeros.dtype in (np.float32, np.float16):
            inputs[name] = rng.random(zeros.shape, np.float32).astype(zeros.dtype)
    if "valid_rows" in inputs:
        inputs["valid_rows"] = np.array([inputs["bank"].shape[1]], np.int32)
    return inputs


def _alone(session: Session, seconds: float) -> Spread:
    inputs = random_inputs(session.contract)
    session.execute(inputs)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < _MIN_RUNS or (len(times) < _MAX_RUNS and time.perf_counter() < end):
        start = time.perf_counter()
        session.execute(inputs)
        times.append(1e3 * (time.perf_counter() - start))
    return spread(times)
