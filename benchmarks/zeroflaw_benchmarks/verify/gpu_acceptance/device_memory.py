"""How much memory of the GPU is in use: by this process alone where the driver says it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from zeroflaw_engines.sessions.cuda import Cuda

_MIB: Final = 2**20
_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True)
class DeviceMemory:
    """A way to ask for the device memory in use.

    Attributes:
        used: Returns bytes.
        whose: `this process` or `all processes`: other programs' memory counts as well.
    """

    used: Callable[[], int]
    whose: str


def device_memory(cuda: Cuda) -> DeviceMemory:
    """Choose how device memory is counted.

    The driver's `nvidia-smi` names the memory of each process, but not in every container, and
    not on every system; CUDA itself knows only the sum of all. Call it once the process has used
    the GPU, or the driver does not know it yet.
    """
    if process_memory() is None:
        return DeviceMemory(cuda.used_memory, "all processes")
    return DeviceMemory(lambda: process_memory() or 0, "this process")


def process_memory(process: int | None = None) -> int | None:
    """Return the device memory that a process holds on all GPUs, bytes.

    Args:
        process: Its number; None is this process.

    Returns:
        None where the driver does not say.
    """
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    query = [command, "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(  # noqa: S603 - the driver's own command
            query, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    wanted = str(os.getpid() if process is None else process)
    found = []
    for line in done.stdout.splitlines() if done.returncode == 0 else ():
        number, _, mebibytes = (part.strip() for part in line.partition(","))
        if number == wanted:
            if not mebibytes.isdecimal():  # "[N/A]"
                return None
            found.append(int(mebibytes))
    return sum(found) * _MIB if found else None
