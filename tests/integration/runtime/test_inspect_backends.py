"""`zeroflaw inspect` on every backend that runs here gives the same masks; and `doctor`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import openvino
import pytest
from typer.testing import CliRunner

from zeroflaw import Inspector
from zeroflaw.cli import commands as cli
from zeroflaw.pictures.images import read_image
from zeroflaw_engines.backends import RANKING
from zeroflaw_engines.builder.differences import mask_iou
from zeroflaw_engines.errors import BackendUnavailableError, EngineError, ZeroflawError
from zeroflaw_engines.image_files.frame import rgb_frame
from zeroflaw_engines.sessions.openvino_session import precisions_of

FRAMES = sorted((Path(__file__).parents[3] / "examples" / "frames").glob("*.jpg"))
CASES = [("openvino", "fp32", 0.999)] + [
    ("openvino", precision, 0.97)  # of bf16, whose masks move at their boundaries
    for precision in precisions_of(openvino.Core())
    if precision != "fp32"
]


@pytest.fixture(scope="module")
def frames():
    return [rgb_frame(read_image(path)) for path in FRAMES]


@pytest.fixture(scope="module")
def reference(frames):
    with Inspector.load() as inspector:
        return [inspector.inspect(frame, product="object") for frame in frames]


@pytest.fixture(scope="module", autouse=True)
def commands():
    if not cli.app.registered_commands:
        cli.all_commands()


def run(*words: object):
    return CliRunner().invoke(cli.app, [str(word) for word in words])


@pytest.mark.parametrize(("backend", "precision", "least"), CASES)
def test_masks_are_those_of_onnx_runtime(frames, reference, backend, precision, least) -> None:
    with Inspector.load(backend=backend, precision=precision) as inspector:
        inspector.warm_up()
        got = [inspector.inspect(frame, product="object") for frame in frames]
    ious = [mask_iou(have.mask, want.mask) for want, have in zip(reference, got, strict=True)]
    print(f"{backend} {precision}: mask IoU {np.mean(ious):.5f} mean, {min(ious):.5f} least")
    assert np.mean(ious) >= least
    assert any(want.mask.any() for want in reference)
    for want, have in zip(reference, got, strict=True):
        assert have.backend.endswith(f"CPU {precision}")
        assert have.decision == want.decision
        tolerance = 1e-4 if precision == "fp32" else 0.2
        np.testing.assert_allclose(have.anomaly_map, want.anomaly_map, atol=tolerance)


def test_inspect_by_command(tmp_path: Path) -> None:
    words = ["inspect", "mini", FRAMES[0], "--product", "object"]
    plain = run(*words, "--out", tmp_path / "a")
    assert plain.exit_code == 0, plain.output
    other = run(*words, "--out", tmp_path / "b", "--backend", "openvino", "--precision", "fp32")
    assert other.exit_code == 0, other.output
    assert "engines on openvino" in other.output
    records = [json.loads(next((tmp_path / d).glob("*.json")).read_text()) for d in "ab"]
    assert records[0]["backend"].startswith("onnxruntime ")
    assert records[1]["backend"].startswith("openvino ")
    assert records[0]["mask_area"] == pytest.approx(records[1]["mask_area"], rel=1e-3)
    auto = run(*words, "--out", tmp_path / "c", "--backend", "auto")
    assert auto.exit_code == 0, auto.output
    assert "auto chose openvino in fp32: the fastest available" in auto.output


@pytest.mark.parametrize("backend", ["tensorrt", "onnxruntime-cuda", "cpu"])
def test_a_backend_that_is_missing_is_never_replaced(tmp_path: Path, backend: str) -> None:
    result = run(
        "inspect", "mini", FRAMES[0], "--product", "object", "--out", tmp_path, "--backend", backend
    )
    assert isinstance(result.exception, ZeroflawError)
    assert isinstance(result.exception, BackendUnavailableError)
    assert not list(tmp_path.glob("*.json"))


def test_doctor_says_what_runs_and_what_is_missing() -> None:
    result = run("doctor")
    assert result.exit_code == 0, result.output
    for backend in RANKING:
        assert re.search(rf"^\s*{backend.name}\s+(available|missing)", result.output, re.MULTILINE)
    assert re.search(r"^auto: openvino in fp32: the fastest available", result.output, re.MULTILINE)
    assert "GiB" in result.output


def test_doctor_as_json_and_for_a_bundle(tmp_path: Path) -> None:
    result = run("doctor", "mini", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 0
    assert [backend["found"]["backend"] for backend in found["backends"]] == [
        backend.name for backend in RANKING
    ]
    assert found["machine"]["cores"] >= 1
    assert found["bundle_error"] is None
    assert found["engines"] == []
    broken = run("doctor", tmp_path)
    assert broken.exit_code == 0
    assert "is not a bundle" in broken.output


def test_a_closed_inspector_is_not_warmed_up() -> None:
    inspector = Inspector.load()
    inspector.close()
    with pytest.raises(EngineError, match="closed"):
        inspector.warm_up()
