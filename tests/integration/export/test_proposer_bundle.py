"""A bundle with a proposal graph, from its manifest to masks: SAA's refiner on real engines."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from skimage import data

from support.exported_bundle import with_proposer
from support.manifests import decode
from support.small_graphs import CELLS, cell_boxes
from zeroflaw import Inspector, MethodParameters
from zeroflaw_benchmarks.verify.tampered_outputs import tampered_inspectors
from zeroflaw_engines.built_engines.cache import build_command
from zeroflaw_engines.built_engines.key import bundle_graph
from zeroflaw_engines.built_engines.options import BuildOptions
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.manifest import LOCALIZERS_SINCE
from zeroflaw_engines.bundle.manifest_text import encode_manifest
from zeroflaw_engines.bundle.products.settings import ProductSettings, Tiles, Zone
from zeroflaw_engines.bundle.writer import write_manifest
from zeroflaw_engines.contract import BOX_PROPOSER
from zeroflaw_engines.errors import (
    BundleSchemaError,
    EngineError,
    EngineMissingError,
    ParametersError,
    SettingsError,
)

FRAME = np.ascontiguousarray(data.coffee()[:240, :360])


@pytest.fixture(scope="module")
def proposing(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_proposer(tiny_bundle, tmp_path_factory.mktemp("proposing"))


def inspected(bundle: Path, backend: str = "onnxruntime", **settings: object):
    given = {"encoder_schedule": "clip_first", **settings}
    with Inspector.load(bundle, backend, **given) as inspector:  # type: ignore[arg-type]
        return inspector.inspect(FRAME, product="object", trace=True)


def brightest(frame: np.ndarray, count: int) -> list[tuple[int, int, int, int]]:
    """Inclusive boxes of the brightest cells, in pixels."""
    height, width = frame.shape[0] // CELLS, frame.shape[1] // CELLS
    cells = frame.reshape(CELLS, height, CELLS, width, 3).mean(axis=(1, 3, 4))
    order = np.argsort(-cells.ravel())[:count]
    return [
        (x * width, y * height, (x + 1) * width - 1, (y + 1) * height - 1)
        for y, x in (divmod(int(number), CELLS) for number in order)
    ]


def test_the_boxes_of_the_graph_are_what_is_segmented(proposing: Path) -> None:
    chosen = MethodParameters(refiner="box_proposals", proposal_saliency="none", proposal_masks=3)
    result = inspected(proposing, parameters=chosen)
    assert result.status == "ok"
    assert [one.box for one in result.trace.proposals] == brightest(FRAME, 3)
    assert result.mask.any()
    assert 0 < result.score_map.max() < 1
    assert {"box_proposer", "proposals", "sam_decoder"} <= result.timings_ms.keys()
    # The localizer still gives map and image score.
    alone = inspected(proposing, parameters=MethodParameters())
    np.testing.assert_array_equal(result.anomaly_map, alone.anomaly_map)
    assert result.image_score == alone.image_score
    assert not alone.trace.proposals


def test_backends_and_schedules_agree(proposing: Path) -> None:
    want = inspected(proposing)
    assert want.trace.proposals
    for backend, schedule in (("onnxruntime", "side_by_side"), ("openvino", "clip_first")):
        got = inspected(proposing, backend, encoder_schedule=schedule)
        assert [one.box for one in got.trace.proposals] == [one.box for one in want.trace.proposals]
        np.testing.assert_allclose(got.score_map, want.score_map, atol=1e-4)
        assert np.count_nonzero(got.mask != want.mask) < 20


def test_where_no_box_stands_sam_is_left_out(proposing: Path) -> None:
    strict = MethodParameters(refiner="box_proposals", proposal_score=1.0)
    result = inspected(proposing, parameters=strict)
    assert result.status == "no_region"
    assert "sam_encoder" not in result.timings_ms
    assert not result.mask.any()
    assert not result.score_map.any()


def test_engines_that_fail_give_no_result(proposing: Path, rng: np.random.Generator) -> None:
    seen = set()
    with Inspector.load(proposing, encoder_schedule="clip_first") as inspector:
        for what, tampered in tampered_inspectors(inspector, rng):
            output = what.split(":")[0]
            if output in {"boxes", "scores", "patch_tokens"}:
                seen.add(output)
                with pytest.raises(EngineError):
                    tampered.inspect(FRAME, product="object")
    assert len(seen) == 3


def test_the_engine_is_loaded_for_its_refiner_alone(proposing: Path, tiny_bundle: Bundle) -> None:
    with Inspector.load(proposing) as inspector:
        assert inspector.sessions.box_proposer in inspector.sessions.models
        assert inspector.parameters.refiner == "box_proposals"
        inspector.warm_up()
        with inspector.clone() as clone:
            assert clone.inspect(FRAME, product="object").status == "ok"
    with Inspector.load(proposing, parameters=MethodParameters()) as inspector:
        assert inspector.sessions.box_proposer is None
        assert inspector.inspect(FRAME, product="object").status != "no_region"
    with pytest.raises(EngineMissingError, match=BOX_PROPOSER) as caught:
        Inspector.load(tiny_bundle.path, parameters=MethodParameters(refiner="box_proposals"))
    assert "--proposals" in caught.value.remedy
    with pytest.raises(ParametersError, match="proposal_masks"):
        MethodParameters(proposal_masks=3)


def test_batches_are_as_one_by_one(batch_bundle: Bundle, tmp_path: Path) -> None:
    bundle = with_proposer(batch_bundle, tmp_path)
    frames = [FRAME, data.coffee()[100:300, 50:250], np.full((64, 64, 3), 9, np.uint8)]
    for schedule in ("clip_first", "side_by_side"):
        with Inspector.load(bundle, encoder_schedule=schedule) as inspector:  # type: ignore[arg-type]
            many = inspector.inspect_batch(frames, trace=True)
            each = [inspector.inspect(frame, trace=True) for frame in frames]
        assert [one.status for one in many] == ["ok", "ok", "no_region"]
        for got, want in zip(many, each, strict=True):
            assert [one.box for one in got.trace.proposals] == [
                one.box for one in want.trace.proposals
            ]
            np.testing.assert_allclose(got.score_map, want.score_map, atol=1e-4)


def with_settings(bundle: Path, target: Path, settings: ProductSettings) -> Path:
    shutil.copytree(bundle, target)
    manifest = open_bundle(target).manifest
    product = msgspec.structs.replace(manifest.products["object"], settings=settings)
    products = {**manifest.products, "object": product}
    write_manifest(target, msgspec.structs.replace(manifest, products=products))
    return target


def test_tiles_are_refused(proposing: Path, tmp_path: Path) -> None:
    tiled = ProductSettings(frame_width=360, frame_height=240, tiles=Tiles(rows=1, columns=2))
    bundle = with_settings(proposing, tmp_path / "tiled", tiled)
    with pytest.raises(SettingsError, match="in tiles") as caught:
        Inspector.load(bundle)
    assert "refiner=cascade" in caught.value.remedy
    with Inspector.load(bundle, parameters=MethodParameters()) as inspector:
        assert inspector.inspect(FRAME, product="object").tiles is not None


def test_what_is_not_judged_has_no_influence_on_the_result(proposing: Path, tmp_path: Path) -> None:
    left = Zone(name="left", kind="include", polygon=((0, 0), (180, 0), (180, 240), (0, 240)))
    settings = ProductSettings(frame_width=360, frame_height=240, zones=(left,))
    bundle = with_settings(proposing, tmp_path / "zoned", settings)
    other = FRAME.copy()
    other[:, 180:] = 255 - other[:, 180:]
    with Inspector.load(bundle) as inspector:
        one, two = (
            inspector.inspect(frame, product="object", trace=True) for frame in (FRAME, other)
        )
    assert one.mask.any()
    assert not one.mask[:, 180:].any()
    assert not one.score_map[:, one.score_map.shape[1] // 2 + 1 :].any()
    np.testing.assert_array_equal(one.mask, two.mask)
    np.testing.assert_array_equal(one.score_map, two.score_map)
    assert all(box[0] < 180 for box in (kept.box for kept in one.trace.proposals))


# The manifest, and the graph that engines are built from


def test_the_manifest_says_what_it_holds(proposing: Path) -> None:
    bundle = open_bundle(proposing)
    manifest = bundle.manifest
    assert manifest.schema_version == LOCALIZERS_SINCE
    assert (manifest.proposals.image_size, manifest.proposals.boxes) == (32, CELLS**2)
    assert manifest.proposals.weights.name == "detector.onnx"
    assert manifest.parameters["refiner"] == "box_proposals"
    assert manifest.parameters["proposal_masks"] == 5
    assert "mmr_seed" not in manifest.parameters
    assert bundle.contract(BOX_PROPOSER).outputs[0].shape == (1, len(cell_boxes()), 4)


def test_a_manifest_that_contradicts_itself_is_refused(proposing: Path) -> None:
    raw = msgspec.json.decode(encode_manifest(open_bundle(proposing).manifest))
    assert decode(raw).proposals is not None
    engines = {name: one for name, one in raw["engines"].items() if name != BOX_PROPOSER}
    own = ("proposal", "saliency")
    cascade = {n: v for n, v in raw["parameters"].items() if n.split("_")[0] not in own}
    cascade["refiner"] = "cascade"
    for change, text in (
        ({"engines": engines}, "contradicts it"),
        ({"proposals": None}, "contradicts it"),
        ({"proposals": None, "engines": engines}, "contradicts it"),
        ({"proposals": None, "parameters": cascade}, "contradicts it"),
        ({"parameters": cascade}, "contradicts it"),
        ({"schema_version": 8, "parameters": cascade}, "version 8 does not know"),
        ({"proposals": {**raw["proposals"], "boxes": 0}}, "boxes"),
    ):
        with pytest.raises(BundleSchemaError, match=text):
            decode({**raw, **change})


def test_the_same_graph_is_built_for_every_precision(proposing: Path) -> None:
    bundle = open_bundle(proposing)
    for precision in ("fp16", "fp32"):
        graph = bundle_graph(bundle, BOX_PROPOSER, precision)
        assert graph.precision == "fp32"
        assert graph.path == bundle.onnx_path(BOX_PROPOSER)
    command = build_command(
        bundle, BuildOptions(backend="tensorrt-rtx", precision="fp32"), BOX_PROPOSER
    )
    assert command.endswith("--engine box_proposer")
