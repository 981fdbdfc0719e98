"""What this machine is made of, as far as backends depend on it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zeroflaw_engines.process.cores import usable_cores

# What the kernels of CPU backends ask for, by its name in /proc/cpuinfo.
CPU_FEATURES: Final = (
    "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_bf16", "amx_int8", "asimd",
    "bf16", "sve",
)  # fmt: skip
_NVIDIA_SMI_SECONDS: Final = 20.0
# More than any machine has cores for one engine, and few enough to start.
MAX_THREADS: Final = 1024


@dataclass(frozen=True)
class Gpu:
    """One GPU, as far as engines depend on it.

    Attributes:
        name: As `NVIDIA L4`.
        architecture: Compute capability, as `sm89`.
    """

    name: str
    architecture: str

    def __str__(self) -> str:
        return f"{self.name} ({self.architecture})"

    @classmethod
    def parse(cls, text: str) -> Gpu:
        """Read a GPU that was written as `NVIDIA L4 (sm89)`, as in the keys of built engines."""
        name, _, architecture = text.removesuffix(")").rpartition(" (")
        return cls(name, architecture)


@dataclass(frozen=True)
class NvidiaGpu(Gpu):
    """One GPU, as `nvidia-smi` shows it.

    Attributes:
        driver: Version of the driver.
        memory_mib: Device memory, MiB; None where it is the machine's own, as in a Jetson.
    """

    driver: str
    memory_mib: int | None


@dataclass(frozen=True)
class Machine:
    """One machine.

    Attributes:
        processor: Name of the processor.
        cores: Cores that this process may use; see `usable_cores`.
        features: Those of `CPU_FEATURES` that it has; None where the system does not say.
        memory_bytes: Main memory; None where the system does not say.
        system: Operating system and its release.
        python: Version of Python.
        gpus: NVIDIA GPUs with a driver.
    """

    processor: str
    cores: int
    features: tuple[str, ...] | None
    memory_bytes: int | None
    system: str
    python: str
    gpus: tuple[NvidiaGpu, ...]


def this_machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> Machine:
    """Look at this machine; what cannot be seen is left out, nothing is raised."""
    try:
        fields = _fields(cpuinfo.read_text("utf-8", errors="replace"))
    except OSError:
        fields = {}
    flags = fields.get("flags", fields.get("Features"))
    has = None if flags is None else flags.split()
    return Machine(
        processor=fields.get("model name") or platform.processor() or platform.machine(),
        cores=usable_cores(),
        features=None if has is None else tuple(name for name in CPU_FEATURES if name in has),
        memory_bytes=_memory(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        gpus=nvidia_gpus(),
    )


def nvidia_gpus() -> tuple[NvidiaGpu, ...]:
    """List the NVIDIA GPUs with a driver; none where `nvidia-smi` is missing or fails."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return ()
    query = "name,driver_version,memory.total,compute_cap"
    try:
        done = subprocess.run(  # noqa: S603 - the path that the system itself gives
            [command, f"--query-gpu={query}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=_NVIDIA_SMI_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    gpus = []
    for line in done.stdout.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 4 and re.fullmatch(r"\d+\.\d", parts[3]):
            name, driver, memory, capability = parts
            architecture = f"sm{capability.replace('.', '')}"
            mib = int(memory) if memory.isdigit() else None
            gpus.append(NvidiaGpu(name, architecture, driver, mib))
    return tuple(gpus)


def visible_gpus(count: int) -> int:
    """Return how many of a machine's GPUs this process sees, as `CUDA_VISIBLE_DEVICES` says.

    Args:
        count: Of the machine.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return count
    visible = 0
    for entry in map(str.strip, chosen.split(",")):
        # CUDA stops at the first that there is not.
        if not (entry.startswith(("GPU-", "MIG-")) or (entry.isdigit() and int(entry) < count)):
            break
        visible += 1
    return visible


def no_such_gpu(device: int, count: int) -> tuple[str, str]:
    """Return cause and remedy for the number of a GPU that this process does not see."""
    if not count:
        return (
            f"there is no GPU {device}: CUDA_VISIBLE_DEVICES hides every GPU from this process",
            "unset it, or name those that the process is to use",
        )
    numbers = "0" if count == 1 else f"0 to {count - 1}"
    return (
        f"there is no GPU {device}: this process sees {count}, numbered {numbers}",
        "name one of them; CUDA_VISIBLE_DEVICES says which of the machine's a process sees",
    )


def _fields(text: str) -> dict[str, str]:
    """Return the fields of the first processor."""
    fields = {}
    for line in text.partition("\n\n")[0].splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields[name.strip()] = value.strip()
    return fields


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
