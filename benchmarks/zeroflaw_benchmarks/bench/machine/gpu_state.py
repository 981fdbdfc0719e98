"""Clocks, power, temperature and memory of NVIDIA GPUs, at one moment and over a run."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from tempfile import TemporaryFile
from typing import Final

from zeroflaw_benchmarks.bench.machine.spread import Spread, spread
from zeroflaw_benchmarks.bench.report.gpu import GpuUse

_NVIDIA_SMI: Final = "nvidia-smi"
_SECONDS: Final = 20.0
_PERIOD_MS: Final = 200
_MIB: Final = 2**20
# Fields of `nvidia-smi --query-gpu` in their order. The last is a mask of bits, which drivers from
# 535 on name `clocks_event_reasons.active` and still accept by this name.
_FIELDS: Final = (
    "uuid", "name", "clocks.sm", "clocks.mem", "power.draw", "power.limit", "temperature.gpu",
    "memory.used", "clocks_throttle_reasons.active",
)  # fmt: skip
# Of NVML's nvmlClocksEventReasons; an idle GPU (bit 0) and clocks that an application set (bit 1)
# are no reasons to distrust a figure.
_REASONS: Final = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "thermal, by software",
    0x40: "thermal, by hardware",
    0x80: "power brake",
}


@dataclass(frozen=True)
class GpuSample:
    """One GPU at one moment; what `nvidia-smi` does not tell is None.

    Attributes:
        uuid: As the driver names it.
        name: As `NVIDIA L4`.
        clock_mhz: Of the multiprocessors.
        memory_clock_mhz: Of its memory.
        power_w: Drawn.
        power_limit_w: What it may draw.
        temperature_c: Of its core.
        memory_used: Of all processes, bytes.
        held_back: Why its clocks are lowered; empty if they are not.
    """

    uuid: str
    name: str
    clock_mhz: float | None
    memory_clock_mhz: float | None
    power_w: float | None
    power_limit_w: float | None
    temperature_c: float | None
    memory_used: int | None
    held_back: tuple[str, ...]


@dataclass
class GpuWatch:
    """What was seen while a block ran; see `watched_gpus`.

    Attributes:
        use: Of each GPU, once the block has ended; empty where there is none.
    """

    use: tuple[GpuUse, ...] = field(default=())


def gpu_samples() -> tuple[GpuSample, ...]:
    """Look at every GPU now; nothing where `nvidia-smi` is missing or fails."""
    command = shutil.which(_NVIDIA_SMI)
    if command is None:
        return ()
    try:
        done = subprocess.run(  # noqa: S603 - the path that the system itself gives
            _query(command), capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(read_samples(done.stdout.splitlines()))


def memory_used() -> int | None:
    """Sum the memory in use of all GPUs and processes, bytes; None where it is not told."""
    used = [sample.memory_used for sample in gpu_samples() if sample.memory_used is not None]
    return sum(used) if used else None


@contextmanager
def watched_gpus() -> Iterator[GpuWatch]:
    """Look at every GPU five times a second while a block runs, from a process of its own.

    Yields:
        What was seen, filled in when the block ends.
    """
    watch = GpuWatch()
    command = shutil.which(_NVIDIA_SMI)
    if command is None:
        yield watch
        return
    # A file, for a pipe that nobody reads fills up and stops the process.
    with TemporaryFile("w+", encoding="utf-8") as seen:
        process = subprocess.Popen(  # noqa: S603 - the path that the system itself gives
            [*_query(command), f"--loop-ms={_PERIOD_MS}"], stdout=seen, stderr=subprocess.DEVNULL
        )
        try:
            yield watch
        finally:
            process.terminate()
            process.wait()
            seen.seek(0)
            watch.use = uses_of(read_samples(seen))


def read_samples(lines: Iterable[str]) -> Iterator[GpuSample]:
    """Read the lines of `nvidia-smi`; a line that was cut short is left out."""
    for line in lines:
        parts = [part.strip() for part in line.split(",")]
        if len(parts) != len(_FIELDS) or not parts[0]:
            continue
        uuid, name, *figures, reasons = parts
        clock, memory_clock, power, limit, temperature, used = map(_number, figures)
        yield GpuSample(
            uuid=uuid,
            name=name,
            clock_mhz=clock,
            memory_clock_mhz=memory_clock,
            power_w=power,
            power_limit_w=limit,
            temperature_c=temperature,
            memory_used=None if used is None else int(used * _MIB),
            held_back=_reasons(reasons),
        )


def uses_of(samples: Iterable[GpuSample]) -> tuple[GpuUse, ...]:
    """Summarise the samples of each GPU."""
    by_gpu: dict[str, list[GpuSample]] = {}
    for sample in samples:
        by_gpu.setdefault(sample.uuid, []).append(sample)
    return tuple(_use(seen) for seen in by_gpu.values())


def _use(seen: list[GpuSample]) -> GpuUse:
    limits = [sample.power_limit_w for sample in seen if sample.power_limit_w is not None]
    reasons = [reason for sample in seen for reason in sample.held_back]
    used = _spread(sample.memory_used for sample in seen)
    return GpuUse(
        name=seen[0].name,
        uuid=seen[0].uuid,
        samples=len(seen),
        clock_mhz=_spread(sample.clock_mhz for sample in seen),
        memory_clock_mhz=_spread(sample.memory_clock_mhz for sample in seen),
        power_w=_spread(sample.power_w for sample in seen),
        power_limit_w=median(limits) if limits else None,
        temperature_c=_spread(sample.temperature_c for sample in seen),
        memory_used_gb=used and Spread(used.middle / 1e9, used.least / 1e9, used.most / 1e9),
        held_back={name: reasons.count(name) / len(seen) for name in sorted(set(reasons))},
    )


def _spread(values: Iterable[float | None]) -> Spread | None:
    told = [float(value) for value in values if value is not None]
    return spread(told) if told else None


def _query(command: str) -> list[str]:
    return [command, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]


def _number(text: str) -> float | None:
    """A figure; `[N/A]` and `[Not Supported]` are none."""
    try:
        return float(text)
    except ValueError:
        return None


def _reasons(text: str) -> tuple[str, ...]:
    try:
        bits = int(text, 16)
    except ValueError:
        return ()
    return tuple(name for bit, name in _REASONS.items() if bits & bit)
