"""Commands, as a user types them: in processes of their own, with what they cost."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ZEROFLAW = Path(sys.executable).with_name("zeroflaw")


def zeroflaw(*args: object, **kwargs) -> subprocess.CompletedProcess[str]:
    command = [str(ZEROFLAW), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **kwargs)


@dataclass(frozen=True)
class Cost:
    """Wall time and peak resident memory, mapped files included."""

    seconds: float
    peak_gb: float


def run_measured(*command: object) -> Cost:
    """Runs a command to its end; fails if it fails."""
    start = time.monotonic()
    process = subprocess.Popen([str(word) for word in command])
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, peak_resident_gb(process.pid))
        time.sleep(0.05)
    assert process.returncode == 0, command
    return Cost(time.monotonic() - start, peak)


def peak_resident_gb(pid: int) -> float:
    """The kernel's own high-water mark; rusage would count the parent's memory at the fork."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 / 1e9 if found else 0.0
