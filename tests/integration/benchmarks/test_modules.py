"""Modules that `python -m` starts report errors as the commands do."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "words",
    [
        ("verify.gpu_acceptance", "nowhere", "--backend", "onnxruntime"),
        ("verify.fp16.safety", "nowhere", "photos", "--backend", "onnxruntime"),
        ("verify.attention_kernels", "--backend", "nothing"),
        ("evaluate.photos_as_reference", "nowhere", "defective", "masks", "clean"),
    ],
    ids=lambda words: words[0],
)
def test_an_error_has_its_remedy_and_no_traceback(words: tuple[str, ...]) -> None:
    module, *options = words
    ended = subprocess.run(
        [sys.executable, "-m", f"zeroflaw_benchmarks.{module}", *options],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: ")
    assert "\n  remedy: " in ended.stderr
    assert "Traceback" not in ended.stderr
