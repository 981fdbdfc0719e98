"""The Python side of the C ABI: what the library's functions do when C calls them."""

from __future__ import annotations

import ctypes
import itertools
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from zeroflaw.capi.abi import (
    Config,
    DecisionCode,
    FrameStruct,
    HealthStruct,
    PixelFormat,
    PolygonStruct,
    RegionStruct,
    State,
    Status,
    ViewStruct,
)
from zeroflaw.capi.configuration import (
    Configuration,
    configuration_of,
    read_configuration,
)
from zeroflaw.capi.connection import Connection, FunctionTable, connect
from zeroflaw.capi.errors import EmbeddingError, status_of
from zeroflaw.capi.frames import request_of
from zeroflaw.capi.hosted import HostedInspector
from zeroflaw.capi.outcome import Outcome
from zeroflaw.capi.views import OutcomeView
from zeroflaw.inspector import Inspector
from zeroflaw.pipeline.masks.regions import regions_of
from zeroflaw.records.record import InspectionRecord
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.errors import (
    EngineError,
    FrameError,
    ReferenceBankError,
    ZeroflawError,
)
from zeroflaw_engines.image_files.frame import rgb_frame

FORMATS = {
    PixelFormat.MONO8: (1, "rgb"),
    PixelFormat.RGB8: (3, "rgb"),
    PixelFormat.BGR8: (3, "bgr"),
    PixelFormat.RGBA8: (4, "rgb"),
    PixelFormat.BGRA8: (4, "bgr"),
}


def frame_of(image: np.ndarray[Any, Any], pixel_format: int, /, **fields: object) -> FrameStruct:
    frame = FrameStruct(
        struct_size=ctypes.sizeof(FrameStruct),
        pixels=image.ctypes.data,
        stride=image.strides[0],
        width=image.shape[1],
        height=image.shape[0],
        pixel_format=pixel_format,
    )
    for name, value in fields.items():
        setattr(frame, name, value)
    return frame


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_pixels_are_seen_where_they_are(
    rng: np.random.Generator, pixel_format: PixelFormat
) -> None:
    channels, order = FORMATS[pixel_format]
    padded = rng.integers(0, 256, (30, 47, channels), dtype=np.uint8)
    image = padded[:, :40]
    request = request_of(frame_of(image, pixel_format))
    assert np.shares_memory(request.image, padded)
    assert request.channel_order == order
    expected = rgb_frame(image, channel_order=order)  # type: ignore[arg-type]
    assert np.array_equal(rgb_frame(request.image, channel_order=request.channel_order), expected)


def test_sixteen_bits_with_their_white_level(rng: np.random.Generator) -> None:
    image = rng.integers(0, 4096, (20, 30), dtype=np.uint16)
    request = request_of(frame_of(image, PixelFormat.MONO16, white_level=4095))
    found = rgb_frame(request.image, white_level=request.white_level)
    assert np.array_equal(found, rgb_frame(image, white_level=4095))


def test_nothing_is_read_behind_the_last_pixel(rng: np.random.Generator) -> None:
    memory = rng.integers(0, 256, 10 * 100, dtype=np.uint8)
    frame = frame_of(memory.reshape(10, 100), PixelFormat.RGB8, width=20)
    request = request_of(frame)
    assert ctypes.sizeof(request.image.base) == 9 * 100 + 20 * 3


def test_texts_are_echoed_and_default_to_nothing() -> None:
    image = np.zeros((4, 4), np.uint8)
    request = request_of(frame_of(image, PixelFormat.MONO8))
    assert (request.product, request.frame_id, request.part_id) == (None, None, None)
    assert request.camera_id is None
    assert request.deadline_ms is None
    named = frame_of(image, 1, product="Schräubchen".encode(), frame_id=b"7", deadline_ms=20)
    request = request_of(named)
    assert (request.product, request.frame_id, request.deadline_ms) == ("Schräubchen", "7", 20)


def test_struct_defaults_are_the_inspector_s() -> None:
    size = ctypes.sizeof(Config)
    assert configuration_of(Config(struct_size=size)) == Configuration()
    given = Config(size, bundle=b"dir", threads=2, when_full=b"drop_oldest", queue_size=3, device=1)
    expected = Configuration(
        bundle="dir", threads=2, when_full="drop_oldest", queue_size=3, device=1
    )
    assert configuration_of(given) == expected
    given.struct_size = Config.device.offset  # that of the first header
    assert configuration_of(given) == msgspec.structs.replace(expected, device=0)


def test_configuration_file(tmp_path: Path) -> None:
    path = tmp_path / "station.toml"
    path.write_text('bundle = "my_bundle"\nthreads = 2\nwhen_full = "drop_oldest"\n')
    found = read_configuration(path)
    assert found.bundle == str(tmp_path / "my_bundle")
    assert (found.threads, found.when_full) == (2, "drop_oldest")
    path.write_text('bundle = "mini"\n')
    assert read_configuration(path) == Configuration()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("bundel = 'x'", "bundel"),
        ("threads = -1", "threads"),
        ("queue_size = 0", "queue_size"),
        ("threads = 'all'", "threads"),
        ("= ", "is not TOML"),
        ("encoder_schedule = 'both'", "both"),
    ],
)
def test_bad_configuration_file_is_told(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "station.toml"
    path.write_text(text)
    with pytest.raises(EmbeddingError, match=named) as told:
        read_configuration(path)
    assert told.value.status is Status.CONFIGURATION
    assert str(path) in str(told.value)


@pytest.fixture
def hosted(tiny_bundle: Bundle) -> Iterator[HostedInspector]:
    inspector = HostedInspector.load(
        Configuration(bundle=str(tiny_bundle.path), queue_size=2, when_full="drop_oldest")
    )
    yield inspector
    inspector.close()


@pytest.fixture
def image(rng: np.random.Generator) -> np.ndarray[Any, Any]:
    return rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)


def view_of(outcome: Outcome) -> ViewStruct:
    shown = ViewStruct(struct_size=ctypes.sizeof(ViewStruct))
    view = OutcomeView(outcome)
    view.copy_to(ctypes.addressof(shown))
    shown.shows = view  # whose memory the struct points to
    return shown


def test_late_inspection_is_no_decision(
    hosted: HostedInspector, image: np.ndarray[Any, Any]
) -> None:
    request = request_of(frame_of(image, PixelFormat.RGB8, product=b"object"))
    in_time = hosted.inspect(request)
    assert in_time.decision in (DecisionCode.ACCEPT, DecisionCode.REJECT)
    late = hosted.inspect(replace(request, deadline_ms=1e-9))
    assert (late.status, late.decision) == (Status.DEADLINE_MISSED, DecisionCode.INVALID)
    view = OutcomeView(late)
    shown = view_of(late)
    assert (shown.decision, shown.deadline_missed) == (0, 1)
    assert shown.frame_width == 80  # the record is there all the same
    assert InspectionRecord.from_json(view.to_json()).decision == "hold"


def test_dropped_frames_come_back_without_a_decision(
    hosted: HostedInspector, image: np.ndarray[Any, Any]
) -> None:
    request = request_of(frame_of(image, PixelFormat.RGB8, product=b"object", part_id=b"p"))
    tickets = [hosted.submit(request) for _ in range(30)]
    outcomes = []
    for ticket in tickets:
        outcome = hosted.poll(60)
        assert outcome is not None
        assert outcome.result.ticket == ticket
        outcomes.append(outcome)
    dropped = [outcome for outcome in outcomes if outcome.status is Status.DROPPED]
    assert dropped
    assert {outcome.status for outcome in outcomes} == {Status.DROPPED, Status.OK}
    for outcome in dropped:
        shown = view_of(outcome)
        assert (shown.decision, shown.status) == (DecisionCode.INVALID, Status.DROPPED)
        assert (shown.part_id, shown.mask, shown.region_count) == (b"p", None, 0)
        assert b"dropped" in shown.error
    report = HealthStruct(struct_size=ctypes.sizeof(HealthStruct))
    hosted.report_health(report)
    assert (report.dropped, report.inspected) == (len(dropped), 30 - len(dropped))
    assert (report.results, report.queued, report.running) == (0, 0, 0)
    assert report.state == State.READY


def test_failing_engine_is_told_and_shows_in_health(
    hosted: HostedInspector, image: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_of(frame_of(image, PixelFormat.RGB8, product=b"object"))

    def fail(*_: object, **__: object) -> None:
        raise EngineError("sam_encoder: the device is lost", "restart the process")

    report = HealthStruct(struct_size=ctypes.sizeof(HealthStruct))
    hosted.report_health(report)
    assert (report.state, report.last_error) == (State.INITIALIZED, b"")
    with monkeypatch.context() as patch:
        patch.setattr(Inspector, "inspect", fail)
        with pytest.raises(EngineError) as told:
            hosted.inspect(request)
    assert status_of(told.value) is Status.ENGINE
    hosted.report_health(report)
    assert (report.state, report.failed, report.heartbeat) == (State.FAILING, 1, 1)
    assert b"the device is lost" in report.last_error
    hosted.inspect(request)
    hosted.report_health(report)
    assert (report.state, report.heartbeat) == (State.READY, 2)


def test_bad_frame_says_nothing_against_the_engines(
    hosted: HostedInspector, image: np.ndarray[Any, Any]
) -> None:
    request = request_of(frame_of(image, PixelFormat.RGB8, product=b"unknown"))
    with pytest.raises(ZeroflawError):
        hosted.inspect(request)
    report = HealthStruct(struct_size=ctypes.sizeof(HealthStruct))
    hosted.report_health(report)
    assert (report.state, report.failed) == (State.INITIALIZED, 1)


def test_clones_share_the_engines_until_the_last_is_closed(
    tiny_bundle: Bundle, image: np.ndarray[Any, Any]
) -> None:
    first = HostedInspector.load(Configuration(bundle=str(tiny_bundle.path)))
    clone = first.clone()
    assert clone._shared.inspector is first._shared.inspector
    first.close()
    request = request_of(frame_of(image, PixelFormat.RGB8, product=b"object"))
    assert clone.inspect(request).status is Status.OK
    inspector = clone._shared.inspector
    clone.close()
    with pytest.raises(EngineError, match="closed"):
        inspector.inspect(image, product="object")
    with pytest.raises(EmbeddingError, match="destroyed"):
        clone.inspect(request)


def test_regions_with_holes_are_read_back(
    hosted: HostedInspector, image: np.ndarray[Any, Any]
) -> None:
    request = request_of(frame_of(image, PixelFormat.RGB8, product=b"object"))
    outcome = hosted.inspect(request)
    assert outcome.inspection is not None
    mask = np.zeros((60, 80), np.bool_)
    mask[10:40, 20:60] = True
    mask[15:20, 25:30] = mask[25:30, 40:50] = False
    mask[50:53, 5:9] = True
    regions = regions_of(mask, outcome.inspection.score_map)
    assert [len(region.holes) for region in regions] == [2, 0]
    inspection = replace(outcome.inspection, mask=mask, regions=regions)
    view = OutcomeView(replace(outcome, result=replace(outcome.result, inspection=inspection)))
    shown = ViewStruct(struct_size=ctypes.sizeof(ViewStruct))
    view.copy_to(ctypes.addressof(shown))

    def points(polygon: PolygonStruct) -> tuple[tuple[int, ...], ...]:
        flat = (ctypes.c_int32 * (2 * polygon.point_count)).from_address(polygon.points)
        return tuple(zip(flat[::2], flat[1::2], strict=True))

    addresses = (ctypes.c_void_p * shown.region_count).from_address(shown.regions)
    for address, region in zip(addresses, regions, strict=True):
        found = RegionStruct.from_address(address)
        assert found.struct_size == ctypes.sizeof(RegionStruct)
        assert (found.x, found.y, found.width, found.height) == (
            region.x, region.y, region.width, region.height
        )  # fmt: skip
        assert (found.area, found.peak_score) == (region.area, region.peak_score)
        assert (found.centroid_x, found.centroid_y) == region.centroid
        assert points(found.polygon) == region.polygon
        holes = (PolygonStruct * found.hole_count).from_address(found.holes)
        assert tuple(map(points, holes)) == region.holes
    assert ctypes.string_at(shown.mask, mask.size) == mask.tobytes()


def test_closing_during_calls_ends_them_in_order(
    tiny_bundle: Bundle, image: np.ndarray[Any, Any]
) -> None:
    hosted = HostedInspector.load(Configuration(bundle=str(tiny_bundle.path)))
    request = request_of(frame_of(image, PixelFormat.RGB8, product=b"object"))
    under_way = threading.Barrier(4)

    def inspect_until_closed() -> tuple[int, Status]:
        hosted.inspect(request)
        under_way.wait(60)
        for count in itertools.count():
            try:
                hosted.inspect(request)
            except EmbeddingError as error:
                return count, error.status
        raise AssertionError

    with ThreadPoolExecutor(3) as pool:
        ends = [pool.submit(inspect_until_closed) for _ in range(3)]
        under_way.wait(60)
        hosted.close()
        assert {end.result(60)[1] for end in ends} == {Status.INVALID_HANDLE}


def test_description_names_what_results_depend_on(hosted: HostedInspector) -> None:
    described = json.loads(json.dumps(hosted.describe()))
    assert described["products"] == ["metal_nut", "object"]
    assert described["references"] == {"metal_nut": None, "object": None}
    assert described["bundle_digest"] == hosted._shared.inspector.bundle.identity
    assert "onnxruntime" in described["versions"]


def test_a_bank_of_another_bundle_is_the_bundle_s_fault() -> None:
    assert status_of(ReferenceBankError("of another CLIP encoder", "learn anew")) is Status.BUNDLE


def test_connection_reports_what_is_raised_as_status_and_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts: list[bytes] = []
    setter = ctypes.PYFUNCTYPE(None, ctypes.c_char_p)(texts.append)
    table = FunctionTable(struct_size=ctypes.sizeof(FunctionTable))
    address = ctypes.cast(setter, ctypes.c_void_p).value
    assert address is not None

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Connection, "release", interrupted)
    kept = connect(ctypes.addressof(table), address, 1)
    assert kept
    assert table.struct_size == ctypes.sizeof(FunctionTable)
    assert table.destroy(77) == Status.INVALID_HANDLE
    assert b"destroyed, or never was one" in texts[-1]
    # Even what is no Exception must not become "no error".
    assert table.release(77) == Status.INTERNAL
    assert b"KeyboardInterrupt" in texts[-1]


def test_other_abi_is_refused() -> None:
    with pytest.raises(EmbeddingError, match="ABI 2") as told:
        connect(0, 0, 2)
    assert told.value.status is Status.ENVIRONMENT


@pytest.mark.parametrize("known", [0, ctypes.sizeof(FunctionTable) - 8])
def test_library_that_calls_other_functions_is_refused(known: int) -> None:
    """The table of an older library is shorter: nothing may be written behind it."""
    table = FunctionTable(struct_size=known)
    with pytest.raises(EmbeddingError, match="in the same version") as told:
        connect(ctypes.addressof(table), 0, 1)
    assert told.value.status is Status.ENVIRONMENT
    assert not table.create


def test_pixels_that_are_no_frame_are_refused() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    for changes in ({"stride": 11}, {"width": 0}, {"pixel_format": 7}, {"white_level": -1.0}):
        with pytest.raises(FrameError):
            request_of(frame_of(image, PixelFormat.RGB8, **changes))
    with pytest.raises(EmbeddingError, match="null pointer"):
        request_of(frame_of(image, PixelFormat.RGB8, pixels=None))
