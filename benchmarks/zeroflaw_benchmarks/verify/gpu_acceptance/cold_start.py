"""How long a fresh process takes until its first inspection, in processes of their own.

    python -m zeroflaw_benchmarks.verify.gpu_acceptance.cold_start TASK

TASK is the JSON of a `StartTask`; the answer, a `StartTimes`, is the last line of the output.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from zeroflaw_benchmarks.verify.gpu_acceptance.options import AcceptanceOptions
from zeroflaw_benchmarks.verify.gpu_acceptance.report import Check
from zeroflaw_engines.process.terminal import run_module

_STARTS: Final = ("first start", "second start")
_TIMEOUT_S: Final = 300.0
_LAST_LINES: Final = 4


class StartTask(msgspec.Struct, frozen=True, kw_only=True):
    """What a fresh process is to do: load a bundle and inspect a frame twice.

    Attributes:
        bundle: Path of its directory.
        backend: What runs the engines.
        precision: What they compute in; None takes the backend's default.
        product: What the frame shows.
        threads: CPU threads; 0 takes every core.
        device: Number of the GPU, as CUDA counts.
        frame: File of NumPy with the frame, uint8 [H, W, 3].
        started: When the process was started, seconds since the epoch.
    """

    bundle: str
    backend: str
    precision: str | None
    product: str
    threads: int
    device: int
    frame: str
    started: float


class StartTimes(msgspec.Struct, frozen=True, kw_only=True):
    """What a start took, in seconds.

    Attributes:
        imports: From the start of the process until zeroflaw is imported.
        load: Of the engines.
        first: The first inspection: what compiles on the GPU compiles in it or in `load`.
        second: Another inspection of the same frame.
    """

    imports: float
    load: float
    first: float
    second: float

    @property
    def compiling(self) -> float:
        """Return by how much the first inspection is slower than the second."""
        return max(0.0, self.first - self.second)

    @property
    def to_first_result(self) -> float:
        """Return the seconds from the start of the process to the first result."""
        return self.imports + self.load + self.first


def cold_start(options: AcceptanceOptions, *, timeout_s: float = _TIMEOUT_S) -> Check:
    """Start two processes, one after the other, and time each until its first inspection.

    What a backend compiles at its first start and keeps, it need not compile at the second.
    """
    figures: dict[str, float] = {}
    to_first = []
    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder) / "frame.npy"
        np.save(frame, options.frames[0])
        for which in _STARTS:
            task = StartTask(
                bundle=str(options.bundle.path),
                backend=options.backend,
                precision=options.precision,
                product=options.product,
                threads=options.threads,
                device=options.device,
                frame=str(frame),
                started=time.time(),
            )
            try:
                times = _start(task, timeout_s)
            except (_StartError, subprocess.TimeoutExpired) as error:
                return Check(
                    name="cold start", outcome="failed", detail=f"{which}: {error}", figures=figures
                )
            to_first.append(times.to_first_result)
            figures |= {
                f"{which}, to the first result, s": times.to_first_result,
                f"{which}, imports, s": times.imports,
                f"{which}, load, s": times.load,
                f"{which}, first inspection, s": times.first,
                f"{which}, second inspection, s": times.second,
                f"{which}, compiled in the first inspection, s": times.compiling,
            }
    return Check(
        name="cold start",
        outcome="passed",
        detail=f"{to_first[0]:.2f} s to the first result of a fresh process, {to_first[1]:.2f} s"
        " of the next",
        figures=figures,
    )


class _StartError(Exception):
    """A process did not answer."""


def _start(task: StartTask, timeout_s: float) -> StartTimes:
    command = [sys.executable, "-m", __name__, msgspec.json.encode(task).decode()]
    done = subprocess.run(  # noqa: S603 - our own interpreter and module
        command, capture_output=True, text=True, check=False, timeout=timeout_s
    )
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        said = " | ".join(done.stderr.strip().splitlines()[-_LAST_LINES:])
        raise _StartError(f"the process ended with code {done.returncode}: {said}")
    return msgspec.json.decode(lines[-1], type=StartTimes)


def main(task: str) -> None:
    """Do a task and print what it took."""
    given = msgspec.json.decode(task, type=StartTask)
    frame = np.load(given.frame)
    from zeroflaw.inspector import Inspector

    imports = time.time() - given.started
    imported = time.perf_counter()
    with Inspector.load(
        given.bundle,
        given.backend,
        precision=given.precision,
        threads=given.threads,
        device=given.device,
    ) as inspector:
        loaded = time.perf_counter()
        inspector.inspect(frame, product=given.product)
        inspected = time.perf_counter()
        inspector.inspect(frame, product=given.product)
        again = time.perf_counter()
    times = StartTimes(
        imports=imports,
        load=loaded - imported,
        first=inspected - loaded,
        second=again - inspected,
    )
    sys.stdout.write("\n" + msgspec.json.encode(times).decode() + "\n")


if __name__ == "__main__":
    run_module(main)
