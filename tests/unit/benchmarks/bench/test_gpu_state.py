"""What `nvidia-smi` tells of GPUs, as it writes it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from zeroflaw_benchmarks.bench.machine.gpu_state import (
    gpu_samples,
    memory_used,
    read_samples,
    uses_of,
    watched_gpus,
)

# Lines of `--query-gpu=… --format=csv,noheader,nounits`: uuid, name, clocks, power and its limit,
# temperature, memory, reasons.
COOL = "GPU-1, NVIDIA L4, 2040, 6250, 60.50, 72.00, 55, 1024, 0x0000000000000000"
HOT = "GPU-1, NVIDIA L4, 1500, 6250, 71.90, 72.00, 83, 2048, 0x0000000000000024"
OTHER = "GPU-2, Orin, [N/A], [N/A], [N/A], [Not Supported], 50, [N/A], [N/A]"


def nvidia_smi(folder: Path, lines: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a program of that name first in the path; with --loop-ms it goes on for ever."""
    program = folder / "nvidia-smi"
    program.write_text(
        f"#!/bin/sh\nwhile true; do\nprintf '{lines}'\n"
        'case "$*" in *--loop-ms=*) sleep 0.01;; *) exit 0;; esac\ndone\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_each_gpu_has_its_own_figures_and_what_is_not_told_is_none() -> None:
    first, second = uses_of(read_samples([COOL, OTHER, HOT, "GPU-1, NVIDIA L4, 20", ""]))
    assert (first.name, first.uuid, first.samples) == ("NVIDIA L4", "GPU-1", 2)
    assert first.clock_mhz is not None
    assert (first.clock_mhz.least, first.clock_mhz.most) == (1500, 2040)
    assert first.power_limit_w == 72
    assert first.memory_used_gb is not None
    assert first.memory_used_gb.most == pytest.approx(2048 * 2**20 / 1e9)
    assert first.held_back == {"power cap": 0.5, "thermal, by software": 0.5}
    assert second.samples == 1
    assert second.temperature_c is not None
    for figure in (second.clock_mhz, second.power_w, second.power_limit_w, second.memory_used_gb):
        assert figure is None, "never zero"
    assert second.held_back == {}


def test_without_nvidia_smi_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert gpu_samples() == ()
    assert memory_used() is None
    with watched_gpus() as watch:
        pass
    assert watch.use == ()


def test_memory_is_that_of_all_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, f"{COOL}\\n{HOT.replace('GPU-1', 'GPU-3')}\\n", monkeypatch)
    assert memory_used() == (1024 + 2048) * 2**20


def test_gpus_are_watched_while_a_block_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(tmp_path, f"{COOL}\\n", monkeypatch)
    with watched_gpus() as watch:
        assert watch.use == (), "it is told at the end"
        time.sleep(0.5)
    (use,) = watch.use
    assert use.name == "NVIDIA L4"
    assert use.samples > 2
