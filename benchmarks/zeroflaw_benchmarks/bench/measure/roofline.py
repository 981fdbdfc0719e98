"""Each engine against the machine's own ceilings, measured in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from zeroflaw.inspector import Inspector
from zeroflaw_benchmarks.bench.machine.device_ceilings import CeilingsTask, DeviceCeilings
from zeroflaw_benchmarks.bench.machine.gemm_rate import SHAPES, gemm_rates
from zeroflaw_benchmarks.bench.machine.graph_macs import GraphCost, graph_cost
from zeroflaw_benchmarks.bench.machine.memory_rate import memory_rate
from zeroflaw_benchmarks.bench.machine.spread import Spread, spread
from zeroflaw_benchmarks.bench.measure.transfers import decoder_calls
from zeroflaw_benchmarks.bench.process.child_process import run_child
from zeroflaw_benchmarks.bench.process.run_on import RunOn
from zeroflaw_benchmarks.bench.process.session_run import session_calls
from zeroflaw_benchmarks.bench.report.rooflines import Ceiling, EngineRoofline
from zeroflaw_engines.backends import BACKENDS
from zeroflaw_engines.bundle.graph_entries import graph_target
from zeroflaw_engines.contract import FRAME_RESIZER, SAM_DECODER, EngineContract
from zeroflaw_engines.errors import BenchmarkError
from zeroflaw_engines.process.cores import usable_cores
from zeroflaw_engines.sessions.device_tensor import Tensor
from zeroflaw_engines.sessions.session import Session, zeros_for

_PRECISIONS: Final = ("fp16", "bf16", "fp32")
ONE_PROMPT: Final = {"batch": 1, "images": 1}
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


def measure_gpu_ceilings(run_on: RunOn) -> DeviceCeilings:
    """Measure what the GPU of the engines does at best, by PyTorch, in a process of its own."""
    task = CeilingsTask(f"cuda:{run_on.device}")
    try:
        return run_child("process.torch_ceilings", task, DeviceCeilings)
    except BenchmarkError as error:
        return DeviceCeilings(why_not=error.cause)


def measure_roofline(
    inspector: Inspector, ceilings: Iterable[Ceiling], *, seconds: float = 5.0
) -> tuple[EngineRoofline, ...]:
    """Run each engine alone and hold its time against the floor of its graph.

    The ceiling of the engines' precision counts; each engine runs for some seconds, at least twice.
    On a GPU that is without transfers, and with them apart.

    Returns:
        Nothing where there is no ceiling of the device and in the precision of the engines, and no
        row of a box proposer whose graph does not say what it computes.
    """
    choice = inspector.choice
    if choice is None:
        return ()
    on_gpu = BACKENDS[choice.backend].on_gpu
    known = {one.precision: one for one in ceilings if bool(one.device) == on_gpu}
    rows = []
    for session in inspector.sessions:
        name = session.contract.name
        if name == FRAME_RESIZER:  # its work is that of the frame's size, and not a network's
            continue
        # A built engine has the precision that it was built in, whatever the backend's default.
        precision = precision_of(session) if on_gpu else choice.precision
        if precision not in known:
            continue
        ceiling = known[precision]
        target = "openvino" if choice.backend == "openvino" else graph_target(precision)
        cost = _known_cost(inspector.bundle.graph(name, target).path)
        if cost is None:
            continue
        calls = decoder_calls(inspector.parameters) if name == SAM_DECODER else 1
        inputs = random_inputs(session.contract)
        whole = _spent(partial(session.execute, inputs), seconds)
        if on_gpu:
            alone = _spent(session_calls(session, inputs).resident, seconds)
            rows.append(engine_roofline(name, calls, cost, ceiling, alone, with_transfers_ms=whole))
        else:
            rows.append(engine_roofline(name, calls, cost, ceiling, whole))
    return tuple(rows)


def engine_roofline(
    engine: str,
    calls: int,
    cost: GraphCost,
    ceiling: Ceiling,
    call_ms: Spread,
    *,
    with_transfers_ms: Spread | None = None,
) -> EngineRoofline:
    """Compute the floor of one engine: the greater of its arithmetic and its least traffic.

    Args:
        with_transfers_ms: Of one call on a GPU from host memory to host memory, where `call_ms`
            is without.
    """
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
        matrix_share=arithmetic / call_ms.middle if ceiling.device else None,
        with_transfers_ms=with_transfers_ms,
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


def precision_of(session: Session) -> str:
    """Return what a session on a GPU computes in: the last word of its backend, else FP32."""
    last = session.backend.rpartition(" ")[2]
    return last if last in _PRECISIONS else "fp32"


def _known_cost(graph: Path) -> GraphCost | None:
    try:
        cost = graph_cost(graph, ONE_PROMPT)
    except ValueError:
        return None
    return cost if cost.flops else None


def _spent(call: Callable[[], object], seconds: float) -> Spread:
    """Milliseconds of one call, over as many as fit."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < _MIN_RUNS or (len(times) < _MAX_RUNS and time.perf_counter() < end):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return spread(times)
