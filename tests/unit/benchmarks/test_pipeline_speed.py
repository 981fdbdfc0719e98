"""The pipeline benchmark: its figures, and a run of it end to end on a tiny bundle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from zeroflaw_benchmarks import pipeline_speed
from zeroflaw_benchmarks.pipeline_speed import pipeline_figures
from zeroflaw_engines.bundle import Bundle


def test_figures() -> None:
    full, half = np.ones((4, 4), np.bool_), np.zeros((4, 4), np.bool_)
    half[:2] = True
    seconds = {"torch:fp32": [60.0, 90.0], "torch:bf16": [20.0, 30.0], "openvino": [10.0, 18.0]}
    masks = {"torch:fp32": full, "torch:bf16": full, "openvino": half}
    *_, row = pipeline_figures(seconds, dict.fromkeys(seconds, 2_000_000_000), masks)
    assert row["way"] == "openvino"
    assert row["times_faster_than_torch_fp32"] == {"middle": 5.5, "least": 5.0, "most": 6.0}
    assert row["times_faster_than_torch_bf16"]["most"] == 2.0
    assert row["mask_iou_with_torch_fp32"] == 0.5
    assert row["peak_rss_gb"] == 2.0


def test_the_command_end_to_end(tiny_bundle: Bundle, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(pipeline_speed.main)
    out = tmp_path / "speed.json"
    arguments = [str(tiny_bundle.path), "--way", "onnxruntime", "--rounds", "1", "--out", str(out)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    ways = {row["way"]: row for row in json.loads(out.read_text())["ways"]}
    assert ways.keys() == {"torch:fp32", "torch:bf16", "onnxruntime"}
    assert ways["onnxruntime"]["mask_iou_with_torch_fp32"] == pytest.approx(1.0, abs=1e-3)
    assert all(row["seconds"]["middle"] > 0 for row in ways.values())
