"""Zones, tiles and alignment with the refiners that are not the cascade, on mini."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from zeroflaw import Inspection, Inspector
from zeroflaw.pictures.images import read_image
from zeroflaw.pipeline.masks.of_map import map_above
from zeroflaw.pipeline.view.zones import zone_layout
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.bundle.products.settings import ProductSettings, Rule, Tiles, Zone
from zeroflaw_engines.bundle.products.writer import set_settings
from zeroflaw_engines.bundle.writer import copy_bundle
from zeroflaw_engines.parameters import MethodParameters

FRAMES = Path(__file__).parents[4] / "examples" / "frames"
PRODUCT = "object"
ZONES = (
    Zone(
        name="part",
        polygon=((0.1, 0.15), (0.9, 0.1), (0.85, 0.9), (0.15, 0.8)),
        units="relative",
    ),
    Zone(
        name="label",
        polygon=((0.45, 0.05), (0.6, 0.05), (0.6, 0.3), (0.45, 0.3)),
        units="relative",
        kind="exclude",
    ),
)
TILES = Tiles(rows=2, columns=2)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_bundle(open_bundle("mini"), tmp_path_factory.mktemp("refiners") / "bundle").path


@pytest.fixture(scope="module", params=["mmr", "none"])
def inspector(bundle: Path, request: pytest.FixtureRequest) -> Iterator[Inspector]:
    parameters = MethodParameters(refiner=request.param)
    with Inspector.load(bundle, parameters=parameters) as loaded:
        yield loaded


def use(inspector: Inspector, frame: np.ndarray, **parts: object) -> ProductSettings:
    height, width = frame.shape[:2]
    settings = ProductSettings(frame_width=width, frame_height=height, **parts)
    set_settings(open_bundle(inspector.bundle.path, verify_digests=False), PRODUCT, settings)
    inspector.reload()
    return settings


def what_it_says(inspection: Inspection) -> tuple:
    record = json.loads(inspection.to_json())
    for of_the_call in ("id", "time", "monotonic_ns", "timings_ms", "frame_sha256"):
        del record[of_the_call]
    trace = inspection.trace
    points = b"" if trace.points is None else trace.points.coords.tobytes()
    boxes = [stage.boxes for stage in trace.stages]
    arrays = (inspection.mask, inspection.anomaly_map, inspection.score_map)
    return record, points, boxes, *(array.tobytes() for array in arrays)


@pytest.mark.parametrize("tiles", [None, TILES])
@pytest.mark.parametrize("rules", [(), (Rule(name="any", min_area_px=4),)], ids=["score", "rules"])
def test_nothing_outside_of_the_zones_influences_mask_points_or_scores(
    inspector, tiles, rules, rng
) -> None:
    frame = read_image(FRAMES / "printed_board_pinhole.jpg")
    settings = use(inspector, frame, zones=ZONES, tiles=tiles, rules=rules)
    judged = zone_layout(ZONES, settings.frame_size).judged
    found = inspector.inspect(frame, product=PRODUCT, trace=True)
    assert found.status == "ok"
    assert found.mask.any()
    noise = rng.integers(0, 256, frame.shape, dtype=np.uint8)
    for paint in (noise, np.full_like(frame, 255)):
        other = np.where(judged[..., None], frame, paint)
        again = inspector.inspect(other, product=PRODUCT, trace=True)
        assert what_it_says(again) == what_it_says(found)
    # Not because nothing does.
    inside = np.where(judged[..., None], noise, frame)
    assert inspector.inspect(inside, product=PRODUCT).image_score != found.image_score
    assert not found.mask[~judged].any()
    assert found.regions


def test_frames_in_tiles_are_refined_and_nothing_else_runs(inspector) -> None:
    frame = read_image(FRAMES / "casting_dent.jpg")
    use(inspector, frame, tiles=TILES)
    found = inspector.inspect(frame, product=PRODUCT, trace=True)
    assert found.tiles.run == 4
    stages = found.timings_ms.keys()
    if inspector.parameters.refiner == "none":
        assert not [name for name in stages if name.startswith("sam") or name == "cascade"]
        np.testing.assert_array_equal(
            found.mask, map_above(found.anomaly_map, 0.5, frame.shape[:2])
        )
        np.testing.assert_array_equal(found.score_map, found.anomaly_map)
        assert found.trace.stages == ()
        return
    assert "sam_decoder_1" in stages
    assert "sam_decoder_2" not in stages
    assert "cascade" not in stages
    assert found.trace.stages
    assert (found.trace.points.labels == 1).all()
    # Eq. 9 on the joined map: what the masks add is at most 3 for each box, and nothing elsewhere.
    added = 4 * found.score_map - found.anomaly_map
    assert (added[found.score_map < 1] >= -1e-6).all()
    assert (added > 0.5).any()
    far = np.abs(added) < 1e-6
    assert far.mean() > 0.5


def test_one_tile_is_the_frame_as_a_whole(inspector) -> None:
    frame = read_image(FRAMES / "casting_dent.jpg")
    use(inspector, frame)
    whole = inspector.inspect(frame, product=PRODUCT, trace=True)
    use(inspector, frame, tiles=Tiles(rows=1, columns=1))
    one = inspector.inspect(frame, product=PRODUCT, trace=True)
    for name in ("mask", "anomaly_map", "score_map"):
        np.testing.assert_array_equal(getattr(one, name), getattr(whole, name))
    assert one.status == whole.status == "ok"


def test_what_contradicts_an_acceptance_is_said(inspector, bundle) -> None:
    frame = read_image(FRAMES / "casting_dent.jpg")
    use(inspector, frame)
    refiner = inspector.parameters.refiner
    for contradiction, decision in (("warn", "accept"), ("hold", "hold")):
        parameters = MethodParameters(refiner=refiner, contradiction=contradiction)
        with Inspector(
            inspector.bundle, inspector.sessions.clone(), parameters=parameters,
            decision_threshold=1.0,
        ) as other:  # fmt: skip
            found = other.inspect(frame, product=PRODUCT)
        assert found.decision == decision
        text = found.reason.text if decision == "hold" else " ".join(found.warnings)
        assert "the mask covers" in text
