"""FP16 graphs for TensorRT, added to bundles that exist."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from zeroflaw.cli.bundle import bundle_app
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.directory import variants as bundle_variants
from zeroflaw_engines.bundle.manifest import SCHEMA_VERSION
from zeroflaw_engines.errors import BundleError, ExportError, ParityError
from zeroflaw_export.cli.add_fp16 import add_fp16
from zeroflaw_export.graphs.add_fp16 import add_fp16_graphs
from zeroflaw_export.graphs.precision_recipe import FP16_RECIPE
from zeroflaw_export.graphs.variants import FP16_ENGINES, write_fp16_variant
from zeroflaw_export.parity import checks as parity


@pytest.fixture
def copied(tiny_bundle: Bundle, tmp_path: Path) -> Bundle:
    return open_bundle(shutil.copytree(tiny_bundle.path, tmp_path / "bundle"))


def files_of(bundle: Bundle) -> set[str]:
    return {path.name for path in bundle.path.iterdir()}


def test_fp16_graphs_are_half_as_large_and_checked(
    fp16_bundle: Bundle, tiny_bundle: Bundle
) -> None:
    assert fp16_bundle.manifest.schema_version == SCHEMA_VERSION
    added = files_of(fp16_bundle) - files_of(tiny_bundle)
    assert len(added) == 8
    for engine in ("clip_encoder", "sam_encoder", "sam_decoder"):
        half = fp16_bundle.graph(engine, "tensorrt")
        full = fp16_bundle.graph(engine, "onnxruntime")
        assert half.recipe == FP16_RECIPE.id
        assert half.weights_path is not None
        assert full.weights_path is not None
        ratio = half.weights_path.stat().st_size / full.weights_path.stat().st_size
        # The places of SAM's keys come on top, as many bytes as the weights of so small a model.
        assert 0.4 < ratio < (1.0 if engine == "sam_encoder" else 0.8)
    figures = [figure for figure in fp16_bundle.manifest.parity if figure.target == "tensorrt"]
    assert {figure.engine for figure in figures} == set(FP16_ENGINES)
    assert all(figure.value <= figure.tolerance for figure in figures)
    assert max(figure.value for figure in figures) > 1e-6, "FP16 is not FP32"


def test_graphs_are_added_once(fp16_bundle: Bundle, tmp_path: Path) -> None:
    bundle = open_bundle(shutil.copytree(fp16_bundle.path, tmp_path / "b"))
    before = files_of(bundle)
    with pytest.raises(BundleError, match="already"):
        add_fp16_graphs(bundle)
    assert files_of(bundle) == before
    assert open_bundle(bundle.path).manifest == bundle.manifest


def test_what_differs_too_much_is_not_added(copied: Bundle, monkeypatch) -> None:
    monkeypatch.setattr(parity, "FP16_TOLERANCES", parity.Tolerances(-1.0, -1.0, -1.0, "tensorrt"))
    before = files_of(copied)
    with pytest.raises(ParityError, match="of tensorrt"):
        add_fp16_graphs(copied)
    assert files_of(copied) == before
    assert {path.name for path in copied.path.parent.iterdir() if "partial" in path.name} == set()
    assert open_bundle(copied.path).manifest == copied.manifest


def test_a_failure_at_the_last_step_leaves_the_bundle(copied: Bundle, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle_variants, "replace_manifest", fail)
    before = files_of(copied)
    with pytest.raises(KeyboardInterrupt):
        add_fp16_graphs(copied)
    assert files_of(copied) == before


def test_the_shipped_bundle_is_not_changed() -> None:
    with pytest.raises(BundleError, match="part of the installation"):
        add_fp16_graphs(open_bundle("mini", verify_digests=False))


def test_the_commands(copied: Bundle) -> None:
    app = typer.Typer()
    app.command()(add_fp16)
    result = CliRunner().invoke(app, [str(copied.path)])
    assert result.exit_code == 0, result.output
    assert "FP16 graphs for TensorRT" in result.output
    shown = CliRunner().invoke(bundle_app, ["info", str(copied.path)], env={"COLUMNS": "200"})
    assert f"for tensorrt, recipe {FP16_RECIPE.id}" in shown.output


def test_a_damaged_graph_is_named(copied: Bundle, tmp_path: Path) -> None:
    (copied.path / "sam_encoder.onnx").write_bytes(b"no graph")
    with pytest.raises(ExportError, match="sam_encoder"):
        write_fp16_variant(
            copied.path, "sam_encoder", copied.manifest.engines["sam_encoder"], tmp_path
        )
