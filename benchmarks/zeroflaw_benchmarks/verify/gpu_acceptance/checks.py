"""The checks of a GPU acceptance; each takes what it checks and gives a `Check`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from zeroflaw.inspection import Inspection
from zeroflaw.sessions import Sessions
from zeroflaw_benchmarks.verify.gpu_acceptance.device_memory import DeviceMemory
from zeroflaw_benchmarks.verify.gpu_acceptance.report import Check, Outcome
from zeroflaw_engines.sessions.device_tensor import Tensor, on_host
from zeroflaw_engines.sessions.session import Session

# Between the middle and the last third of a soak; less is the allocators' noise.
MAX_GROWTH_BYTES: Final = 4 * 2**20
MIN_SOAK_RUNS: Final = 12
# Asking the driver takes as long as an inspection: so often at most.
_DEVICE_SAMPLES: Final = 60
# Of the time of the shorter encoder, at least so much must be gained, and more than the noise.
MIN_OVERLAP: Final = 0.1

Frames = Sequence[NDArray[Any]]


def captured_parity(
    sessions: Sessions, inputs: Mapping[str, Mapping[str, Tensor]], *, graphs: bool
) -> Check:
    """Check that outputs of sessions before and after `capture` are the same to the bit.

    `frame_resizer` is run as often and never captured, as in use: no frame is of the size that a
    graph is recorded of.
    """
    name = "CUDA graphs"
    if not graphs:
        return Check(name=name, outcome="not applicable", detail="the backend records no graphs")
    differing, without, broken = [], [], []
    for session in sessions:
        given = inputs[session.contract.name]
        session.prepare()
        before = session.execute(given)
        if not all(np.isfinite(on_host(value)).all() for value in before.values()):
            broken.append(session.contract.name)
        if session is not sessions.frame_resizer:
            session.capture()
            if not getattr(session, "captured", False):
                without.append(session.contract.name)
        for _ in range(2):
            after = session.execute(given)
            if any(not np.array_equal(before[key], after[key]) for key in before):
                differing.append(session.contract.name)
                break
    if differing or without or broken:
        why = [f"outputs of {', '.join(differing)} differ"] if differing else []
        why += [f"outputs of {', '.join(broken)} are not finite"] if broken else []
        why += [f"{', '.join(without)} could not be captured"] if without else []
        return check_of(name, "; ".join(why), passed=False)
    return check_of(name, "every engine gives the same with and without capture", passed=True)


def overlap(
    sessions: Sessions,
    inputs: Mapping[str, Mapping[str, Tensor]],
    *,
    streams: bool,
    runs: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Check:
    """Check that both encoders at once take less time than one after the other.

    What is gained, of the medians, must be at least `MIN_OVERLAP` of the time of the shorter
    encoder, which is the most that there is to gain, and more than the measurements scatter.

    Args:
        sessions: Warmed up.
        streams: Whether the backend has CUDA streams.
        runs: Of each measurement; they take turns.
        clock: Seconds.
    """
    name = "encoders overlap"
    if not streams:
        return Check(name=name, outcome="not applicable", detail="the backend has no CUDA streams")
    clip, sam = sessions.clip_encoder, sessions.sam_encoder
    if sam is None:
        return Check(name=name, outcome="not applicable", detail="the refiner runs without SAM")

    def run(session: Session) -> None:
        session.execute(inputs[session.contract.name])

    spent: dict[str, list[float]] = {"clip": [], "sam": [], "both": []}
    with ThreadPoolExecutor(1) as pool:

        def both() -> None:
            pending = pool.submit(run, clip)
            run(sam)
            pending.result()

        work = {"clip": lambda: run(clip), "sam": lambda: run(sam), "both": both}
        for _ in range(runs):
            for which, measured in work.items():
                start = clock()
                measured()
                spent[which].append(clock() - start)
    alone_clip, alone_sam, together = (float(np.median(spent[which])) for which in spent)
    in_turn = alone_clip + alone_sam
    gained, noise = in_turn - together, sum(_scatter(values) for values in spent.values())
    least = max(MIN_OVERLAP * min(alone_clip, alone_sam), noise)
    return check_of(
        name,
        f"{1e3 * together:.2f} ms together, {1e3 * in_turn:.2f} ms in turn: {1e3 * gained:.2f} ms"
        f" gained, where {1e3 * least:.2f} ms are asked for",
        {
            "CLIP encoder, ms": 1e3 * alone_clip,
            "SAM encoder, ms": 1e3 * alone_sam,
            "both at once, ms": 1e3 * together,
            "gained, ms": 1e3 * gained,
            "of the shorter encoder": gained / min(alone_clip, alone_sam),
            "scatter, ms": 1e3 * noise,
        },
        passed=gained >= least and gained > 0,
    )


def _scatter(values: Sequence[float]) -> float:
    """Return the standard error of a median, by the quartiles of its values."""
    low, high = np.percentile(values, (25, 75))
    # Of a normal distribution: its deviation is 0.74 of the range, and the median's error 1.25 of
    # that over the root of the count.
    return float(0.93 * (high - low) / np.sqrt(len(values)))


def soak(
    inspect: Callable[[NDArray[Any]], Inspection],
    frames: Frames,
    *,
    runs: int,
    host_memory: Callable[[], int],
    device_memory: DeviceMemory | None,
) -> tuple[Check, list[dict[str, float]]]:
    """Check that memory does not grow and results do not change over many inspections.

    Args:
        runs: Inspections, at least `MIN_SOAK_RUNS`; memory may grow in their first third.
        host_memory: Resident memory of this process, bytes.
        device_memory: Memory of the GPU in use; None without one.

    Returns:
        The check, and the timings of every inspection for `latency`.
    """
    host, device, timings = [], [], []
    first: dict[int, Inspection] = {}
    changed = 0
    every = max(1, runs // _DEVICE_SAMPLES)
    for number in range(runs):
        which = number % len(frames)
        inspection = inspect(frames[which])
        known = first.setdefault(which, inspection)
        changed += not np.array_equal(known.mask, inspection.mask)
        timings.append(inspection.timings_ms)
        host.append(float(host_memory()))
        if device_memory is not None and number % every == 0:
            device.append(float(device_memory.used()))
    whose = "" if device_memory is None else f"device ({device_memory.whose})"
    grown = {"host": growth(host), **({whose: growth(device)} if device else {})}
    figures = {"inspections": float(runs)}
    figures.update({f"{where} memory, growth in bytes": by for where, by in grown.items()})
    figures.update({f"{whose} memory, most, bytes": max(device)} if device else {})
    why = [f"{k} memory grows by {by:.0f} bytes" for k, by in grown.items() if leaks(by)]
    if changed:
        why.append(f"{changed} masks are not those of the first run")
    where = " and ".join(grown)
    fine = f"{runs} inspections, {where} memory does not grow, masks do not change"
    return check_of("soak", "; ".join(why) or fine, figures, passed=not why), timings


def latency(timings: Sequence[Mapping[str, float]]) -> Check:
    """Compute percentiles of every stage over the soak; to pass they need only be complete."""
    stages = sorted({stage for one in timings for stage in one})
    figures = {}
    for stage in stages:
        values = [one[stage] for one in timings if stage in one]
        for label, q in (("p50", 50), ("p90", 90), ("p99", 99), ("max", 100)):
            figures[f"{stage} {label}, ms"] = float(np.percentile(values, q))
    total = figures.get("total p50, ms")
    if total is None:
        return check_of("latency", "no inspection was timed", passed=False)
    detail = f"a frame takes {total:.2f} ms (p50), {figures['total p99, ms']:.2f} ms (p99)"
    return check_of("latency", detail, figures, passed=True)


def growth(values: Sequence[float]) -> float:
    """Return how much the last third of some values lies above the middle one, by medians."""
    third = len(values) // 3
    return float(np.median(values[-third:]) - np.median(values[third : 2 * third]))


def leaks(grown: float) -> bool:
    """Say whether memory grew by more bytes than noise does."""
    return grown > MAX_GROWTH_BYTES


def check_of(
    name: str, detail: str, figures: dict[str, float] | None = None, *, passed: bool
) -> Check:
    """Make a check that passed or failed."""
    outcome: Outcome = "passed" if passed else "failed"
    return Check(name=name, outcome=outcome, detail=detail, figures=figures or {})
