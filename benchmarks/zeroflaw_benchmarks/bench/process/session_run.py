"""One of our engines on a backend, in a process of its own: seconds with and without transfers.

python -m zeroflaw_benchmarks.bench.process.session_run '{"bundle": "mini", ...}'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from zeroflaw.pictures.images import read_image
from zeroflaw_benchmarks.bench.process.child_process import RunTimes, answer
from zeroflaw_benchmarks.bench.process.device_run import (
    COMPARED,
    Calls,
    engine_inputs,
    time_calls,
)
from zeroflaw_benchmarks.bench.process.run_on import RunOn
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.contract import EngineName
from zeroflaw_engines.sessions.batches import stacked
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, Tensor, on_host
from zeroflaw_engines.sessions.session import Session


@dataclass(frozen=True)
class SessionTask:
    """What is to be run.

    Attributes:
        bundle: As `open_bundle` takes it.
        run_on: What runs it.
        engine: Of the bundle.
        product: That the frame shows.
        frame: Path of the image file.
        runs: That are timed of each way to call it.
        warm_ups: That are not, before them, after the capture.
        output: Where the output of `COMPARED` is written, `.npy`; empty: nowhere.
    """

    bundle: str
    run_on: RunOn
    engine: EngineName
    product: str
    frame: str
    runs: int
    warm_ups: int
    output: str = ""


def run_session(task: SessionTask) -> RunTimes:
    """Load the engine, warm it up as a station does, and time it."""
    bundle = open_bundle(task.bundle, verify_digests=False)
    frame = np.ascontiguousarray(read_image(Path(task.frame)))
    one = engine_inputs(bundle, task.engine, frame, task.product)

    def load() -> Calls:
        session = task.run_on.session(bundle, task.engine)
        session.prepare()
        session.capture()
        # The engine may take several images a call; peers are given one, in the form of one.
        return session_calls(session, stacked(session.contract, [one]))

    times, outputs = time_calls(load, task.runs, task.warm_ups)
    if task.output:
        np.save(task.output, outputs[COMPARED[task.engine]])
    return replace(times, device="gpu" if task.run_on.on_gpu else "cpu")


def session_calls(session: Session, inputs: Mapping[str, Tensor | DeviceTensor]) -> Calls:
    """Return the ways to call a session: with arrays, and with what lies where it reads it.

    Args:
        inputs: As the session's contract has them, in host memory.
    """
    names = [spec.name for spec in session.contract.outputs]
    placed = {name: session.upload(name, on_host(array)) for name, array in inputs.items()}
    return Calls(
        whole=lambda: session.execute(inputs),
        resident=lambda: session.execute(placed, keep=names),
    )


if __name__ == "__main__":
    answer(SessionTask, run_session)
