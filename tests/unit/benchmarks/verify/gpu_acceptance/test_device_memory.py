"""Device memory of this process, by an `nvidia-smi` that answers as the driver's does."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from zeroflaw_benchmarks.verify.gpu_acceptance.device_memory import device_memory, process_memory

CUDA = SimpleNamespace(used_memory=lambda: 77)


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def install(text: str, code: int = 0) -> None:
        command = tmp_path / "nvidia-smi"
        command.write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\nexit {code}\n")
        command.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return install


def test_memory_of_this_process_alone(nvidia_smi) -> None:
    nvidia_smi(f"1, 400\n{os.getpid()}, 512\n{os.getpid()}, 8\n")
    assert process_memory() == 520 * 2**20
    memory = device_memory(CUDA)
    assert (memory.whose, memory.used()) == ("this process", 520 * 2**20)


@pytest.mark.parametrize(
    ("text", "code"),
    [("", 0), ("1, 400\n", 0), (f"{os.getpid()}, [N/A]\n", 0), ("no devices were found\n", 6)],
    ids=["nothing", "others", "not available", "failed"],
)
def test_what_the_driver_does_not_say_is_of_all_processes(nvidia_smi, text, code) -> None:
    """In a container the driver may know this process by another number."""
    nvidia_smi(text, code)
    memory = device_memory(CUDA)
    assert (memory.whose, memory.used()) == ("all processes", 77)


def test_without_nvidia_smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert process_memory() is None
