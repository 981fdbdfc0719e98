"""Commands in processes of their own, with what they cost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ZEROFLAW = Path(sys.executable).with_name("zeroflaw")


@dataclass(frozen=True)
class Cost:
    """Wall time and peak resident memory, mapped files included."""

    seconds: float
    peak_gb: float


def run_measured(*command: object) -> Cost:
    """Runs a command to its end; fails if it fails."""
    start = time.monotonic()
    process = subprocess.Popen([str(word) for word in command])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return Cost(time.monotonic() - start, usage.ru_maxrss * 1024 / 1e9)
