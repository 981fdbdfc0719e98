"""What the station install promises: quick to import, no torch. It needs no more than that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_import_is_quick_and_without_torch() -> None:
    code = (
        # CPU time: the same as wall time on an idle machine, and no worse on a busy one
        "import sys, time; start = time.process_time(); import zeroflaw;"
        "print(time.process_time() - start, 'torch' in sys.modules)"
    )
    seconds = []
    for _ in range(5):
        spent, torch = run(code).split()
        assert torch == "False"
        seconds.append(float(spent))
    assert min(seconds) <= 0.3


def test_every_public_name_is_there() -> None:
    import zeroflaw

    for name in zeroflaw.__all__:
        assert getattr(zeroflaw, name) is not None
    assert set(dir(zeroflaw)) == set(zeroflaw.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Detector'"):
        zeroflaw.Detector  # noqa: B018


def test_inspecting_never_imports_torch_or_the_export() -> None:
    code = (
        "import sys, numpy as np, zeroflaw;"
        "inspector = zeroflaw.Inspector.load('mini');"
        "inspector.inspect(np.zeros((64, 64, 3), np.uint8), product='object');"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('torch', 'zeroflaw_export')))"
    )
    assert run(code) == "[]"


def test_lean_packages_do_not_name_torch_or_the_export() -> None:
    root = Path(__file__).parents[3]
    for folder in ("engines", "runtime"):
        for path in (root / folder).rglob("*.py"):
            for line in path.read_text().splitlines():
                words = line.split()
                if words[:1] in (["import"], ["from"]):
                    assert words[1].split(".")[0] not in ("torch", "zeroflaw_export"), path
    for path in (root / "engines").rglob("*.py"):
        assert "from zeroflaw." not in path.read_text(), f"{path} imports against the flow"
