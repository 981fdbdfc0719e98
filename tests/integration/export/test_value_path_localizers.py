"""Localizers with a path of values: exported with FP16 graphs, inspected, and compiled for GPUs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.command_line import zeroflaw
from support.exported_bundle import export
from zeroflaw.inspector import Inspector
from zeroflaw_engines.built_engines.lookup import find_engine
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_export.parity.checks import parity_image

TINY_BLOCKS = 4


@pytest.mark.long
@pytest.mark.parametrize("localizer", ["anomalyclip", "sdp", "sdp_plus"])
def test_a_bundle_is_exported_inspected_and_compiled(localizer: str, tmp_path: Path) -> None:
    path = export(
        tmp_path / "bundle", "tiny", "tiny", "--localizer", localizer, "--localizer-set", "sigma=3",
        "--precision", "fp16", "--no-text-encoder",
    ).path  # fmt: skip
    manifest = open_bundle(path).manifest
    assert manifest.localizer_name == localizer
    assert manifest.localizer is not None
    assert manifest.localizer.parameters["sigma"] == 3.0
    figures = [figure for figure in manifest.parity if figure.engine == "clip_encoder"]
    assert {figure.target for figure in figures} == {"onnxruntime", "tensorrt"}
    assert all(figure.value <= figure.tolerance for figure in figures)

    with Inspector.load(path) as inspector:
        inspection = inspector.inspect(parity_image("real", 120, 160))
    assert inspection.score_map.shape == (120, 160)
    assert np.ptp(inspection.score_map) > 1e-3

    built = zeroflaw("build", path, "--engine", "clip_encoder", "--gpu", "sm89")
    assert built.returncode == 0, built.stderr
    census = find_engine(
        open_bundle(path), "clip_encoder", backend="tensorrt-rtx", architecture="sm89"
    ).sidecar.census
    assert census.source == "plan"
    # Both paths of every block, but for AnomalyCLIP's where its path of values begins.
    assert census.count("attention", "float16") == 2 * TINY_BLOCKS
    assert census.unfused_attention == 0
