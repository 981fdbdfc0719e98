"""The checks of a GPU acceptance; each takes what it checks and gives a `Check`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from zeroflaw.inspection import Inspection
from zeroflaw.inspector import Inspector
from zeroflaw.sessions import Sessions
from zeroflaw_benchmarks.verify.gpu_acceptance_report import Check, Outcome
from zeroflaw_engines.builder.differences import cosine, mask_iou, require_finite
from zeroflaw_engines.errors import ComparisonError
from zeroflaw_engines.sessions.device_tensor import Tensor, on_host
from zeroflaw_engines.sessions.session import Session

# fp16 against fp32 on the CPU; the same limits as the FP16 recipe's own proof.
MIN_MEAN_IOU: Final = 0.998
MIN_IOU: Final = 0.99
MIN_COSINE: Final = 0.9995
# Between the middle and the last third of a soak; less is the allocators' noise.
MAX_GROWTH_BYTES: Final = 4 * 2**20
MIN_SOAK_RUNS: Final = 12

Frames = Sequence[NDArray[Any]]


def mask_parity(reference: Inspector, candidate: Inspector, frames: Frames, product: str) -> Check:
    """Compare masks, maps and scores with those of ONNX Runtime on the CPU in fp32."""
    name = "parity of masks"
    ious: list[float] = []
    cosines: list[float] = []
    flips = masks = 0
    for frame in frames:
        want = reference.inspect(frame, product=product)
        got = candidate.inspect(frame, product=product)
        try:
            ious.append(mask_iou(got.mask, want.mask))
            cosines.append(cosine(got.anomaly_map, want.anomaly_map, "anomaly map"))
            require_finite([got.image_score, want.image_score], "image scores")
        except ComparisonError as error:
            return _check(name, str(error), passed=False)
        masks += bool(want.mask.any())
        flips += want.decision != got.decision
    if not masks:
        # Two empty masks have an IoU of 1, and an engine that finds nothing has them.
        detail = f"none of {len(ious)} frames has a mask: inspect frames with defects"
        return _check(name, detail, passed=False)
    figures = {
        "frames": float(len(ious)),
        "frames with a mask": float(masks),
        "mask IoU, mean": float(np.mean(ious)),
        "mask IoU, least": min(ious),
        "anomaly map cosine, least": min(cosines),
        "decisions that differ": float(flips),
    }
    passed = (
        figures["mask IoU, mean"] >= MIN_MEAN_IOU
        and figures["mask IoU, least"] >= MIN_IOU
        and figures["anomaly map cosine, least"] >= MIN_COSINE
        and flips == 0
    )
    return _check(
        name,
        f"IoU {figures['mask IoU, mean']:.5f} mean and {figures['mask IoU, least']:.5f}"
        f" least over {len(ious)} frames, against onnxruntime on the CPU in fp32",
        figures,
        passed=passed,
    )


def captured_parity(
    sessions: Sessions, inputs: Mapping[str, Mapping[str, Tensor]], *, graphs: bool
) -> Check:
    """Check that outputs of sessions before and after `capture` are the same to the bit."""
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
        return _check(name, "; ".join(why), passed=False)
    return _check(name, "every engine gives the same with and without capture", passed=True)


def overlap(
    sessions: Sessions,
    inputs: Mapping[str, Mapping[str, Tensor]],
    *,
    streams: bool,
    runs: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Check:
    """Check that both encoders at once take less time than one after the other.

    The sessions are warmed up; medians of the runs are compared, by a clock of seconds.
    """
    name = "encoders overlap"
    if not streams:
        return Check(name=name, outcome="not applicable", detail="the backend has no CUDA streams")
    clip, sam = sessions.clip_encoder, sessions.sam_encoder

    def seconds(work: Callable[[], object]) -> float:
        spent = []
        for _ in range(runs):
            start = clock()
            work()
            spent.append(clock() - start)
        return float(np.median(spent))

    def run(session: Session) -> None:
        session.execute(inputs[session.contract.name])

    with ThreadPoolExecutor(1) as pool:

        def both() -> None:
            pending = pool.submit(run, clip)
            run(sam)
            pending.result()

        alone_clip, alone_sam, together = (
            seconds(lambda: run(clip)),
            seconds(lambda: run(sam)),
            seconds(both),
        )
    return _check(
        name,
        f"{1e3 * together:.2f} ms together, {1e3 * (alone_clip + alone_sam):.2f} ms in turn",
        {
            "CLIP encoder, ms": 1e3 * alone_clip,
            "SAM encoder, ms": 1e3 * alone_sam,
            "both at once, ms": 1e3 * together,
        },
        passed=together < alone_clip + alone_sam,
    )


def soak(
    inspect: Callable[[NDArray[Any]], Inspection],
    frames: Frames,
    *,
    runs: int,
    host_memory: Callable[[], int],
    device_memory: Callable[[], int] | None,
) -> tuple[Check, list[dict[str, float]]]:
    """Check that memory does not grow and results do not change over many inspections.

    Args:
        runs: Inspections, at least `MIN_SOAK_RUNS`; memory may grow in their first third.
        host_memory: Resident memory of this process, bytes.
        device_memory: Memory of the GPU in use, bytes; None without one.

    Returns:
        The check, and the timings of every inspection for `latency`.
    """
    host, device, timings = [], [], []
    first: dict[int, Inspection] = {}
    changed = 0
    for number in range(runs):
        which = number % len(frames)
        inspection = inspect(frames[which])
        known = first.setdefault(which, inspection)
        changed += not np.array_equal(known.mask, inspection.mask)
        timings.append(inspection.timings_ms)
        host.append(float(host_memory()))
        if device_memory is not None:
            device.append(float(device_memory()))
    grown = {"host": growth(host), **({"device": growth(device)} if device else {})}
    figures = {"inspections": float(runs)}
    figures.update({f"{where} memory, growth in bytes": by for where, by in grown.items()})
    why = [f"{k} memory grows by {by:.0f} bytes" for k, by in grown.items() if leaks(by)]
    if changed:
        why.append(f"{changed} masks are not those of the first run")
    where = "host and device" if device else "host"
    fine = f"{runs} inspections, {where} memory does not grow, masks do not change"
    return _check("soak", "; ".join(why) or fine, figures, passed=not why), timings


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
        return _check("latency", "no inspection was timed", passed=False)
    detail = f"a frame takes {total:.2f} ms (p50), {figures['total p99, ms']:.2f} ms (p99)"
    return _check("latency", detail, figures, passed=True)


def growth(values: Sequence[float]) -> float:
    """Return how much the last third of some values lies above the middle one, by medians."""
    third = len(values) // 3
    return float(np.median(values[-third:]) - np.median(values[third : 2 * third]))


def leaks(grown: float) -> bool:
    """Say whether memory grew by more bytes than noise does."""
    return grown > MAX_GROWTH_BYTES


def _check(
    name: str, detail: str, figures: dict[str, float] | None = None, *, passed: bool
) -> Check:
    outcome: Outcome = "passed" if passed else "failed"
    return Check(name=name, outcome=outcome, detail=detail, figures=figures or {})
