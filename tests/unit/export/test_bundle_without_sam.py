"""Bundles for the map alone: exported, inspected with, and refused where SAM is needed."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from support.exported_bundle import tiny_job
from zeroflaw import Inspector
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.products.settings import ProductSettings, Tiles
from zeroflaw_engines.bundle.products.writer import set_settings
from zeroflaw_engines.bundle.writer import copy_bundle
from zeroflaw_engines.errors import EngineError, EngineMissingError, ExportError
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_export.export import export_bundle

NONE = MethodParameters(refiner="none")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    job = dataclasses.replace(
        tiny_job("object"), sam_architecture=None, sam_weights=None, parameters=NONE,
        text_encoder=False,
    )  # fmt: skip
    target = tmp_path_factory.mktemp("alone") / "bundle"
    export_bundle(job, target)
    return open_bundle(target)


@pytest.fixture(scope="module")
def frame() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (130, 170, 3), np.uint8)


def test_it_has_the_clip_encoder_and_says_which_refiner_it_is_for(bundle):
    assert set(bundle.manifest.engines) == {"clip_encoder", "reference_matcher"}
    assert not [path.name for path in bundle.path.iterdir() if path.name.startswith("sam")]
    document = json.loads((bundle.path / "bundle.json").read_text())
    assert document["schema_version"] == 9
    assert document["sam"] is None
    assert document["parameters"]["refiner"] == "none"
    assert bundle.manifest.random_weights == 7
    assert {figure.engine for figure in bundle.manifest.parity} == set(bundle.manifest.engines)


def test_what_it_says_of_a_frame_is_what_a_bundle_with_sam_says_without_it(
    bundle, tiny_bundle, frame
):
    found = []
    for path in (bundle.path, tiny_bundle.path):
        with Inspector.load(path, parameters=NONE) as inspector:
            inspector.warm_up()
            sessions = inspector.sessions
            assert sessions.sam_encoder is sessions.sam_decoder is None
            found.append(inspector.inspect(frame, product="object", trace=True))
            with inspector.clone() as clone:
                again = clone.inspect(frame, product="object")
            assert again.mask.tobytes() == found[-1].mask.tobytes()
    one, other = found
    for name in ("mask", "anomaly_map", "score_map"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.image_score == other.image_score
    assert "sam_encoder" not in one.timings_ms


@pytest.mark.parametrize("schedule", ["side_by_side", "clip_first"])
def test_its_own_refiner_is_taken_and_tiles_are_seen(bundle, tmp_path, frame, schedule):
    tiled = copy_bundle(bundle, tmp_path / "tiled")
    settings = ProductSettings(frame_width=170, frame_height=130, tiles=Tiles(rows=1, columns=2))
    set_settings(tiled, "object", settings)
    with Inspector.load(tiled.path, encoder_schedule=schedule) as inspector:
        assert inspector.parameters.refiner == "none"
        found = inspector.inspect(frame)
    assert found.tiles.run == 2
    np.testing.assert_array_equal(found.score_map, found.anomaly_map)
    # Settings keep what the bundle is.
    assert open_bundle(tiled.path).manifest.schema_version == 9
    assert open_bundle(tiled.path).manifest.sam is None


@pytest.mark.parametrize("refiner", ["cascade", "mmr"])
def test_another_refiner_is_refused_with_the_way_out(bundle, tiny_bundle, refiner):
    parameters = MethodParameters(refiner=refiner)
    with pytest.raises(EngineMissingError, match="exported without") as caught:
        Inspector.load(bundle.path, parameters=parameters)
    assert "set the refiner to none" in caught.value.remedy
    assert f"--refiner {refiner}" in caught.value.remedy
    with Inspector.load(tiny_bundle.path, parameters=NONE) as inspector:
        with pytest.raises(EngineMissingError, match=f"{refiner} runs sam_encoder") as caught:
            Inspector(inspector.bundle, inspector.sessions, parameters=parameters)
        assert "Inspector.load" in caught.value.remedy
    with pytest.raises(EngineError, match="has no sam_encoder") as missing:
        bundle.onnx_path("sam_encoder")
    assert "set refiner to none" in missing.value.remedy


@pytest.mark.parametrize("refiner", ["cascade", "mmr", "box_proposals"])
def test_an_export_without_sam_for_a_refiner_that_runs_it_is_refused(tmp_path, refiner):
    job = dataclasses.replace(
        tiny_job("object"), sam_architecture=None, sam_weights=None,
        parameters=MethodParameters(refiner=refiner),
    )  # fmt: skip
    with pytest.raises(ExportError, match=f"{refiner} runs SAM") as caught:
        export_bundle(job, tmp_path / "b")
    assert "--sam" in caught.value.remedy
    with pytest.raises(ExportError, match="one alone"):
        export_bundle(dataclasses.replace(tiny_job("object"), sam_weights=None), tmp_path / "b")
    assert not (tmp_path / "b").exists()
