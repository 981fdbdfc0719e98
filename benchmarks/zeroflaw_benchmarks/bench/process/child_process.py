"""Modules of this package in processes of their own, one JSON text in and one out."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from zeroflaw_engines.errors import BenchmarkError

_Result = TypeVar("_Result")
_LAST_LINES = 4


def run_child(module: str, task: Any, result: type[_Result]) -> _Result:  # noqa: ANN401 - any record
    """Runs a module in a process of its own, so that no run inherits another's memory.

    Args:
        module: Its name below `zeroflaw_benchmarks`; it calls `answer`.
        task: What it is to do, a dataclass or Struct.
        result: What it answers with.

    Raises:
        BenchmarkError: The process failed, or did not answer.
    """
    command = [sys.executable, "-m", f"zeroflaw_benchmarks.{module}", _text(task)]
    done = subprocess.run(  # noqa: S603 - our own interpreter and module
        command, capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        said = " | ".join(done.stderr.strip().splitlines()[-_LAST_LINES:])
        raise BenchmarkError(
            f"the process of {module} ended with code {done.returncode}: {said}",
            f"run it alone: {' '.join(command[1:3])} '{command[3]}'",
        )
    return msgspec.json.decode(lines[-1], type=result)


def answer(task: type[Any], work: Callable[[Any], Any]) -> None:
    """The other end of `run_child`: does the task of the command line, prints the result."""
    result = work(msgspec.json.decode(sys.argv[1], type=task))
    sys.stdout.write("\n" + _text(result) + "\n")


def peak_rss() -> int:
    """Largest resident memory of this process so far, bytes.

    Linux keeps in `ru_maxrss` what the parent held when it forked, if that was more.
    """
    high = _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 if high is None else high


def resident_bytes() -> int:
    """Resident memory of this process now; 0 where the system does not tell."""
    return _status("VmRSS") or 0


def _status(field: str) -> int | None:
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    line = next(text for text in status.read_text().splitlines() if text.startswith(field + ":"))
    return int(line.split()[1]) * 1024


def _text(value: Any) -> str:  # noqa: ANN401 - any record
    return msgspec.json.encode(value).decode()
