"""The machine that a benchmark ran on, and the state it was in before and after."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from zeroflaw.station.diagnosis import installed_versions
from zeroflaw_benchmarks.bench.machine.gpu_state import gpu_samples, uses_of
from zeroflaw_benchmarks.bench.report.gpu import GpuUse
from zeroflaw_benchmarks.bench.report.record import Record
from zeroflaw_engines.machine import this_machine

# What changes how many threads a library takes, or where they run.
_THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
    "GOMP_CPU_AFFINITY", "KMP_AFFINITY",
)  # fmt: skip


class MachineRecord(Record, frozen=True, kw_only=True):
    """What the machine is made of.

    Attributes:
        processor: Name of the processor, with its family and model where the name says little.
        features: Wide instructions it has, of those that kernels ask for.
        cores: Cores that the process may use.
        memory_gb: Main memory.
        system: Operating system and its release.
        python: Version of Python.
        gpus: Names and drivers of NVIDIA GPUs.
        versions: Of the libraries that say most.
        governor: How the system chooses clocks; None where it does not report it.
        thread_variables: Environment variables that set threads, where they are set.
    """

    processor: str
    features: tuple[str, ...]
    cores: int
    memory_gb: float | None
    system: str
    python: str
    gpus: tuple[str, ...]
    versions: dict[str, str]
    governor: str | None
    thread_variables: dict[str, str]


class MachineState(Record, frozen=True, kw_only=True):
    """How the machine was at one moment.

    Attributes:
        clocks_mhz: Of each core, as the system says.
        temperatures_c: Of each thermal zone by name; empty where there are none (virtual
            machines).
        load_average: Processes that wanted to run, over the last minute. More than the cores
            means that the figures are of a busy machine.
        free_memory_gb: Memory that is available.
        gpus: Of each GPU that `nvidia-smi` tells of; empty in older reports.
    """

    clocks_mhz: tuple[float, ...]
    temperatures_c: dict[str, float]
    load_average: float
    free_memory_gb: float | None
    gpus: tuple[GpuUse, ...] = ()


def machine_record() -> MachineRecord:
    """Describe this machine; what the system does not report is left out."""
    found = this_machine()
    name = found.processor
    about = dict(re.findall(r"^([^\t:]+?)\s*: (.*)$", _read("/proc/cpuinfo"), flags=re.MULTILINE))
    if "cpu family" in about:
        name += f" (family {about['cpu family']}, model {about['model']})"
    return MachineRecord(
        processor=name,
        features=found.features or (),
        cores=found.cores,
        memory_gb=None if found.memory_bytes is None else round(found.memory_bytes / 1e9, 1),
        system=found.system,
        python=found.python,
        gpus=tuple(f"{gpu.name}, driver {gpu.driver}" for gpu in found.gpus),
        versions=installed_versions(),
        governor=_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None,
        thread_variables={
            name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ
        },
    )


def machine_state(thermal: Path = Path("/sys/class/thermal")) -> MachineState:
    """Read clocks, temperatures and load at this moment."""
    clocks = re.findall(r"^cpu MHz\s*: ([\d.]+)$", _read("/proc/cpuinfo"), flags=re.MULTILINE)
    free = re.search(r"^MemAvailable:\s+(\d+) kB", _read("/proc/meminfo"), flags=re.MULTILINE)
    temperatures = {}
    for zone in sorted(thermal.glob("thermal_zone*")):
        text = _read(zone / "temp").strip()
        if re.fullmatch(r"-?\d+", text):
            kind = _read(zone / "type").strip()
            temperatures[f"{zone.name} {kind}".strip()] = int(text) / 1000
    return MachineState(
        clocks_mhz=tuple(map(float, clocks)),
        temperatures_c=temperatures,
        load_average=round(os.getloadavg()[0], 2),
        free_memory_gb=round(int(free[1]) * 1024 / 1e9, 1) if free else None,
        gpus=uses_of(gpu_samples()),
    )


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text("utf-8", errors="replace")
    except OSError:
        return ""
