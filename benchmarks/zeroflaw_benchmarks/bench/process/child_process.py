"""Modules of this package in processes of their own, one JSON text in and one out."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from zeroflaw_engines.errors import BenchmarkError

_Result = TypeVar("_Result")
_LAST_LINES = 4


@dataclass(frozen=True)
class RunTimes:
    """What a process measured.

    Attributes:
        seconds: Of each run; on a GPU from host memory to host memory.
        peak_rss: Largest resident memory of the process, bytes.
        resident_seconds: Of each run on a GPU whose inputs lie there and whose outputs stay.
        event_seconds: The same, by the GPU's events.
        device_bytes: Memory of the GPU that the process holds after its runs.
        device: `cpu`, or the name of the GPU, or `gpu` where the process does not know it.
        note: What a reader must know of how it ran.
    """

    seconds: list[float]
    peak_rss: int
    resident_seconds: list[float] | None = None
    event_seconds: list[float] | None = None
    device_bytes: int | None = None
    device: str = "cpu"
    note: str = ""


def run_child(module: str, task: Any, result: type[_Result]) -> _Result:  # noqa: ANN401 - any record
    """Run a module in a process of its own, so that no run inherits another's memory.

    Raises:
        BenchmarkError: The process failed, or did not answer.
    """
    command = [sys.executable, "-m", f"zeroflaw_benchmarks.bench.{module}", _text(task)]
    done = subprocess.run(  # noqa: S603 - our own interpreter and module
        command, capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        reported = " | ".join(done.stderr.strip().splitlines()[-_LAST_LINES:])
        raise BenchmarkError(
            f"the process of {module} ended with code {done.returncode}: {reported}",
            f"run it alone: {' '.join(command[1:3])} '{command[3]}'",
        )
    return msgspec.json.decode(lines[-1], type=result)


def answer(task: type[Any], work: Callable[[Any], Any]) -> None:
    """Do the task of the command line and print the result: the other end of `run_child`."""
    result = work(msgspec.json.decode(sys.argv[1], type=task))
    sys.stdout.write("\n" + _text(result) + "\n")


def time_runs(work: Callable[[], object], runs: int, *, untimed: int = 1) -> RunTimes:
    """Run something again and again."""
    seconds = []
    for run in range(-untimed, runs):
        start = time.perf_counter()
        work()
        if run >= 0:
            seconds.append(time.perf_counter() - start)
    return RunTimes(seconds, peak_rss())


def peak_rss() -> int:
    """Return the largest resident memory of this process so far, bytes.

    Linux keeps in `ru_maxrss` what the parent held when it forked, if that was more.
    """
    high = _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 if high is None else high


def resident_bytes() -> int:
    """Return the resident memory of this process now; 0 where the system does not report it."""
    return _status("VmRSS") or 0


def _status(field: str) -> int | None:
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    line = next(text for text in status.read_text().splitlines() if text.startswith(field + ":"))
    return int(line.split()[1]) * 1024


def _text(value: Any) -> str:  # noqa: ANN401 - any record
    return msgspec.json.encode(value).decode()
