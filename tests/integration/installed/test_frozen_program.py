"""A program that PyInstaller freezes with zeroflaw's hook, run in an empty environment."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from zeroflaw import packaging

ROOT = Path(__file__).parents[3]
PROGRAM = """
import numpy as np
from zeroflaw import Inspector
frame = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
with Inspector.load("mini") as inspector:
    print(inspector.inspect(frame, product="object").to_json().decode())
"""
# What a workstation has beside the lean install; PyInstaller would collect it for minutes.
NOT_OF_A_STATION = (
    "torch", "torchvision", "matplotlib", "scipy", "pandas", "transformers", "onnx", "sklearn",
)  # fmt: skip


def test_the_hook_is_where_pyinstaller_looks() -> None:
    (directory,) = packaging.hook_directories()
    assert (Path(directory) / "hook-zeroflaw.py").is_file()
    found = entry_points(group="pyinstaller40", name="hook-dirs")
    if not any(entry.value.startswith("zeroflaw.") for entry in found):
        pytest.skip("zeroflaw was installed before it had the hook: install it again")


@pytest.mark.full_size  # a minute
def test_a_frozen_program_inspects(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    words = [word for name in NOT_OF_A_STATION for word in ("--exclude-module", name)]
    words += ["--additional-hooks-dir", *packaging.hook_directories()]
    for package in ("engines", "runtime"):
        words += ["--paths", str(ROOT / package)]
    subprocess.run(
        [sys.executable, "-m", "PyInstaller", "--onedir", "--log-level", "ERROR", *words, script],
        cwd=tmp_path, check=True, timeout=600,
    )  # fmt: skip
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [tmp_path / "dist" / "program" / "program"],
        env={"HOME": str(home)}, cwd=home, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["decision"] in {"accept", "reject", "hold"}
    assert list(home.iterdir()) == []
