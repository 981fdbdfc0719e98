"""Zones and rules with mini on real pictures: what is outside influences nothing."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from zeroflaw import Inspection, InspectionStream, Inspector, draw_overlay
from zeroflaw.capi.abi import (
    DecisionCode,
    FrameStruct,
    PixelFormat,
    RegionStruct,
    Status,
    ViewStruct,
)
from zeroflaw.capi.configuration import Configuration
from zeroflaw.capi.frames import request_of
from zeroflaw.capi.hosted import HostedInspector
from zeroflaw.capi.views import OutcomeView
from zeroflaw.pictures.images import read_image
from zeroflaw.pipeline.view.alignment import AlignedFrame
from zeroflaw.pipeline.view.product_view import FrameView, ProductView
from zeroflaw.pipeline.view.zones import ZoneLayout, zone_layout
from zeroflaw.records.decision import Reason
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.bundle.products.settings import ProductSettings, Rule, Tiles, Zone
from zeroflaw_engines.bundle.products.writer import set_settings
from zeroflaw_engines.bundle.writer import copy_bundle

FRAMES = Path(__file__).parents[4] / "examples" / "frames"
PRODUCT = "object"
ZONES = (
    Zone(
        name="part",
        polygon=((0.1, 0.15), (0.9, 0.1), (0.85, 0.9), (0.15, 0.8)),
        units="relative",
        severity="critical",
    ),
    Zone(
        name="label",
        polygon=((0.45, 0.05), (0.6, 0.05), (0.6, 0.3), (0.45, 0.3)),
        units="relative",
        kind="exclude",
    ),
)
RULES = (
    Rule(name="any", zones=("part",), min_area_mm2=0.05),
    Rule(name="sure", min_peak=0.9, min_regions=2),
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_bundle(open_bundle("mini"), tmp_path_factory.mktemp("zones") / "bundle").path


@pytest.fixture(scope="module")
def inspector(bundle: Path) -> Iterator[Inspector]:
    with Inspector.load(bundle) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def frame() -> np.ndarray:
    return read_image(FRAMES / "casting_dent.jpg")


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
    arrays = (inspection.mask, inspection.anomaly_map, inspection.score_map)
    return record, *(array.tobytes() for array in arrays)


def painted(frame: np.ndarray, outside: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    noise = rng.integers(0, 256, frame.shape, dtype=np.uint8)
    text = frame.copy()
    for row in range(40, frame.shape[0], 60):
        cv2.putText(
            text, "DEFECT crack hole", (5, row), cv2.FONT_HERSHEY_SIMPLEX, 2, (255, 0, 0), 5
        )
    white = np.full_like(frame, 255)
    return [np.where(outside[..., None], paint, frame) for paint in (noise, text, white)]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("casting_dent", {}),
        ("casting_dent", {"rules": RULES}),
        ("printed_board_pinhole", {"rules": RULES}),
        ("printed_board_pinhole", {"rules": RULES, "tiles": Tiles(rows=2, columns=2)}),
        (
            "casting_dent",
            {"tiles": Tiles(rows=1, columns=2, coarse_to_fine=True, coarse_limit=0.05)},
        ),
    ],
    ids=["image score", "rules", "other frame", "tiles", "coarse to fine"],
)
def test_nothing_outside_of_the_zones_influences_a_bit(inspector, name, parts, rng):
    frame = read_image(FRAMES / f"{name}.jpg")
    settings = use(inspector, frame, mm_per_pixel=0.05, zones=ZONES, **parts)
    layout = zone_layout(ZONES, settings.frame_size)
    inspection = inspector.inspect(frame, product=PRODUCT)
    assert inspection.settings == settings.digest
    for other in painted(frame, ~layout.judged, rng):
        assert (other != frame).any()
        assert what_it_says(inspector.inspect(other, product=PRODUCT)) == what_it_says(inspection)
    # Not because nothing does: what is inside counts.
    inside = painted(frame, layout.judged, rng)[0]
    assert inspector.inspect(inside, product=PRODUCT).image_score != inspection.image_score
    assert not inspection.mask[~layout.judged].any()
    for values in (inspection.anomaly_map, inspection.score_map):
        assert not values[~layout.at_map(values.shape)].any()
    tiles = inspection.tiles
    assert (tiles is None) == ("tiles" not in parts)
    assert tiles is None or (tiles.rows, tiles.columns, tiles.run > 0) == (
        parts["tiles"].rows, parts["tiles"].columns, True,
    )  # fmt: skip
    for region in inspection.regions:
        assert (region.zones, region.severity) == (("part",), "critical")
        assert region.area_mm2 == pytest.approx(region.area * 0.0025)


def test_a_rule_decides_and_says_so(inspector, frame):
    use(inspector, frame, zones=ZONES)
    regions = inspector.inspect(frame, product=PRODUCT).regions
    assert regions
    largest = regions[0].area
    hit = Rule(name="large", min_area_px=largest, min_peak=0.01)
    use(inspector, frame, zones=ZONES, rules=(Rule(name="never", min_regions=999), hit))
    found = inspector.inspect(frame, product=PRODUCT)
    assert (found.decision, found.reason.code, found.rule) == ("reject", "rule", "large")
    assert found.decision_score == 1.0
    assert "'large'" in found.reason.text
    assert f"{largest} px" in found.reason.text
    miss = Rule(name="large", min_area_px=largest + 1)
    use(inspector, frame, zones=ZONES, rules=(miss,))
    found = inspector.inspect(frame, product=PRODUCT)
    assert (found.decision, found.rule, found.decision_score) == ("accept", None, 0.0)
    assert found.reason.code == "below_threshold"
    assert found.image_score > 0


def test_rules_alone_change_neither_maps_nor_regions(inspector, frame):
    use(inspector, frame)
    plain = inspector.inspect(frame, product=PRODUCT)
    set_settings(open_bundle(inspector.bundle.path, verify_digests=False), PRODUCT, None)
    inspector.reload()
    without = inspector.inspect(frame, product=PRODUCT)
    use(inspector, frame, rules=(Rule(name="r", min_peak=0.01),))
    ruled = inspector.inspect(frame, product=PRODUCT)
    assert without.settings is None
    assert without.decision_score == without.image_score == plain.decision_score
    for one in (plain, ruled):
        assert one.image_score == without.image_score
        assert one.regions == without.regions
        assert one.mask.tobytes() == without.mask.tobytes()
        assert one.score_map.tobytes() == without.score_map.tobytes()
    assert ruled.rule == "r"


def test_overlays_show_zones(inspector, frame):
    use(inspector, frame, zones=ZONES)
    found = inspector.inspect(frame, product=PRODUCT)
    assert [zone.name for zone in found.zones] == ["part", "label"]
    picture = draw_overlay(frame, found)
    height, width = frame.shape[:2]
    # On the outline of each, and in the middle of what is judged.
    for x, y, drawn in ((0.1, 0.15, True), (0.9, 0.1, True), (0.6, 0.2, True), (0.3, 0.5, False)):
        at = (
            slice(int(y * height) - 3, int(y * height) + 3),
            slice(int(x * width) - 3, int(x * width) + 3),
        )
        assert (picture[at] != frame[at]).any() == drawn


def test_a_frame_of_another_size_is_held_by_every_way(inspector, bundle, frame):
    use(inspector, frame, zones=ZONES, mm_per_pixel=0.05, rules=RULES)
    smaller = np.ascontiguousarray(frame[:-2])
    found = inspector.inspect(smaller, product=PRODUCT)
    assert (found.decision, found.reason.code, found.rule) == ("hold", "wrong_frame_size", None)
    height, width = frame.shape[:2]
    assert f"{width} x {height - 2} px" in found.reason.text
    assert f"{width} x {height}:" in found.reason.text
    with InspectionStream(inspector) as stream:
        stream.submit(smaller, product=PRODUCT)
        result = stream.poll()
    assert (result.decision, result.reason.code) == ("hold", "wrong_frame_size")
    assert json.loads(result.to_json())["decision"] == "hold"


@pytest.mark.parametrize("code", ["misaligned", "zone_out_of_view"])
def test_what_the_view_holds_is_held_by_every_way(inspector, bundle, frame, monkeypatch, code):
    reason = Reason(code, "the part is shifted by 99 px")
    held = lambda view, given: FrameView(given, reason, None, None, None)  # noqa: E731
    monkeypatch.setattr(ProductView, "look", held)
    hosted = None
    try:
        # Whether the score would reject or accept it.
        for least in (0.001, 0.999):
            rule = Rule(name="r", by="image_score", min_image_score=least)
            use(inspector, frame, rules=(rule,))
            found = inspector.inspect(frame, product=PRODUCT)
            assert (found.decision, found.reason, found.rule) == ("hold", reason, None)
            with InspectionStream(inspector) as stream:
                stream.submit(frame, product=PRODUCT)
                assert (result := stream.poll()).decision == "hold"
            assert result.reason == reason
            hosted = hosted or HostedInspector.load(Configuration(bundle=str(bundle)))
            outcome = hosted.inspect(request_for(frame))
            assert (outcome.status, outcome.decision) == (Status.HELD, DecisionCode.INVALID)
            assert outcome.result.reason == reason
    finally:
        if hosted is not None:
            hosted.close()


@dataclass(frozen=True, eq=False)
class Shifted(AlignedFrame):
    """A frame that was shifted by whole pixels."""

    def lost_zone(self, zones: ZoneLayout) -> None:
        del zones

    def mask_in_frame(self, mask: np.ndarray) -> np.ndarray:
        return np.roll(mask, np.rint(self.shift[::-1]).astype(int), axis=(0, 1))

    def map_in_frame(self, values: np.ndarray, judged: np.ndarray | None = None) -> np.ndarray:
        del judged
        by = np.multiply(self.shift[::-1], values.shape) / self.frame.shape[:2]
        return np.roll(values, np.rint(by).astype(int), axis=(0, 1))


def test_what_is_found_on_an_aligned_frame_is_brought_back(inspector, frame, monkeypatch):
    use(inspector, frame, zones=ZONES, rules=(Rule(name="r", zones=("part",), min_peak=0.01),))
    still = inspector.inspect(frame, product=PRODUCT, trace=True)
    # Of whole pixels of the map too.
    assert frame.shape == (640, 640, 3)
    assert still.score_map.shape == (448, 448)
    shift = 30, -20
    moved = np.roll(frame, shift[::-1], axis=(0, 1))
    matrix = np.array([[1.0, 0, shift[0]], [0, 1, shift[1]]])

    class Aligner:
        def align(self, given: np.ndarray) -> AlignedFrame:
            back = np.roll(given, (-shift[1], -shift[0]), axis=(0, 1))
            return Shifted(np.ascontiguousarray(back), matrix, shift, 0.0, 0.875)

    look = ProductView.look
    monkeypatch.setattr(
        ProductView, "look", lambda view, given: look(replace(view, aligner=Aligner()), given)
    )
    found = inspector.inspect(moved, product=PRODUCT, trace=True)
    assert (found.decision, found.rule, found.image_score) == (
        still.decision, still.rule, still.image_score,
    )  # fmt: skip
    assert found.frame is moved or (found.frame == moved).all()
    assert (found.mask == np.roll(still.mask, shift[::-1], axis=(0, 1))).all()
    by = (-14, 21)
    assert (found.score_map == np.roll(still.score_map, by, axis=(0, 1))).all()
    assert (found.anomaly_map == np.roll(still.anomaly_map, by, axis=(0, 1))).all()
    for one, was in zip(found.regions, still.regions, strict=True):
        assert (one.x, one.y) == (was.x + shift[0], was.y + shift[1])
        assert (one.area, one.zones, one.severity) == (was.area, ("part",), "critical")
    for zone, was in zip(found.zones, still.zones, strict=True):
        assert np.array(zone.polygon) == pytest.approx(np.array(was.polygon) + shift)
    there = np.array(found.trace.points.coords)
    assert there == pytest.approx(np.array(still.trace.points.coords) + shift, abs=1e-3)
    for stage, was in zip(found.trace.stages, still.trace.stages, strict=True):
        for box, before in zip(stage.boxes, was.boxes, strict=True):
            assert np.subtract(box, before).tolist() == [30, -20, 30, -20]
    record = json.loads(found.to_json())["alignment"]
    assert record == {"x": 30.0, "y": -20.0, "rotation": 0.0, "correlation": 0.875}


def request_for(frame: np.ndarray) -> FrameStruct:
    return request_of(
        FrameStruct(
            ctypes.sizeof(FrameStruct), frame.ctypes.data, frame.strides[0], frame.shape[1],
            frame.shape[0], PixelFormat.RGB8, product=PRODUCT.encode(),
        )
    )  # fmt: skip


def test_c_shows_rules_and_zones_and_holds(inspector, bundle, frame):
    settings = use(
        inspector, frame, zones=ZONES, mm_per_pixel=0.1, rules=(Rule(name="r", min_peak=0.01),)
    )
    expected = inspector.inspect(frame, product=PRODUCT)
    hosted = HostedInspector.load(Configuration(bundle=str(bundle)))
    try:
        shown = ViewStruct(struct_size=ctypes.sizeof(ViewStruct))
        view = OutcomeView(hosted.inspect(request_for(frame)))
        view.copy_to(ctypes.addressof(shown))
        assert (shown.rule, shown.reason, shown.decision_score) == (b"r", b"rule", 1.0)
        assert shown.settings.decode() == settings.digest
        assert (shown.tile_rows, shown.aligned, shown.score) == (0, 0, expected.image_score)
        addresses = (ctypes.c_void_p * shown.region_count).from_address(shown.regions)
        for address, region in zip(addresses, expected.regions, strict=True):
            found = RegionStruct.from_address(address)
            names = (ctypes.c_char_p * found.zone_count).from_address(found.zones)
            assert tuple(name.decode() for name in names) == region.zones == ("part",)
            assert (found.severity, found.area_mm2) == (b"critical", region.area_mm2)
        smaller = np.ascontiguousarray(frame[:-2])
        held = hosted.inspect(request_for(smaller))
        assert held.status is Status.HELD
        assert held.result.reason.code == "wrong_frame_size"
    finally:
        hosted.close()
