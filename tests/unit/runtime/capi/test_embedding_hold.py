"""Held frames in the C ABI: what engines make up, blind frames, and records of every outcome."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any

import jsonschema
import numpy as np
import pytest

from zeroflaw.capi.abi import (
    DecisionCode,
    FrameStruct,
    HealthStruct,
    PixelFormat,
    Status,
    ViewStruct,
)
from zeroflaw.capi.configuration import Configuration
from zeroflaw.capi.errors import status_of
from zeroflaw.capi.frames import Request, request_of
from zeroflaw.capi.hosted import HostedInspector
from zeroflaw.capi.outcome import Outcome, outcome_of
from zeroflaw.capi.views import OutcomeView
from zeroflaw.inspector import Inspector
from zeroflaw.records.record import inspection_json_schema
from zeroflaw.stream.result import StreamResult
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.errors import EngineError


@pytest.fixture
def hosted(tiny_bundle: Bundle) -> Iterator[HostedInspector]:
    inspector = HostedInspector.load(Configuration(bundle=str(tiny_bundle.path)))
    yield inspector
    inspector.close()


@pytest.fixture
def image(rng: np.random.Generator) -> np.ndarray[Any, Any]:
    return rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)


def request_for(image: np.ndarray[Any, Any], **fields: object) -> Request:
    frame = FrameStruct(
        ctypes.sizeof(FrameStruct), image.ctypes.data, image.strides[0], image.shape[1],
        image.shape[0], PixelFormat.RGB8,
    )  # fmt: skip
    for name, value in {"product": b"object", **fields}.items():
        setattr(frame, name, value)
    return request_of(frame)


def view_of(outcome: Outcome) -> ViewStruct:
    shown = ViewStruct(struct_size=ctypes.sizeof(ViewStruct))
    view = OutcomeView(outcome)
    view.copy_to(ctypes.addressof(shown))
    shown.shows = view  # whose memory the struct points to
    return shown


def health_of(hosted: HostedInspector) -> HealthStruct:
    report = HealthStruct(struct_size=ctypes.sizeof(HealthStruct))
    hosted.report_health(report)
    return report


def record_of(outcome: Outcome) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(OutcomeView(outcome).to_json())
    jsonschema.validate(record, inspection_json_schema())
    return record


def test_blind_frame_is_held(hosted: HostedInspector, image: np.ndarray[Any, Any]) -> None:
    black = np.zeros_like(image)  # alive for as long as the request looks at it
    blind = request_for(black, frame_id=b"f", part_id=b"p", camera_id="Kamera 1 süd".encode())
    called = hosted.inspect(blind)
    hosted.submit(blind)
    polled = hosted.poll(60)
    assert polled is not None
    for outcome in (called, polled):
        shown = view_of(outcome)
        assert (shown.status, shown.decision) == (Status.HELD, DecisionCode.INVALID)
        assert (shown.reason, shown.deadline_missed) == (b"dark", 0)
        assert shown.reason_text in shown.error
        assert b" -- hold the part" in shown.error
        assert shown.frame_width == 80  # it was inspected
        record = record_of(outcome)
        assert (record["decision"], record["reason"]["code"]) == ("hold", "dark")
        assert record["camera_id"] == shown.camera_id.decode() == "Kamera 1 süd"
        assert record["image_score"] == shown.score
    hosted.inspect(request_for(image))
    report = health_of(hosted)
    assert (report.inspected, report.held, report.failed, report.heartbeat) == (3, 2, 0, 3)


@pytest.mark.parametrize("output", ["image_score", "anomaly_map"])
@pytest.mark.parametrize("value", [math.nan, -math.inf, -0.5, 1.5])
def test_engine_that_makes_up_values_is_no_acceptance(
    hosted: HostedInspector, image: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch,
    output: str, value: float,
) -> None:  # fmt: skip
    session = hosted._shared.inspector.sessions.clip_encoder
    execute = session.execute

    def tampered(inputs: Any, **options: Any) -> dict[str, Any]:
        outputs = dict(execute(inputs, **options))
        outputs[output] = np.full_like(outputs[output], value)
        return outputs

    monkeypatch.setattr(session, "execute", tampered)
    with pytest.raises(EngineError) as told:
        hosted.inspect(request_for(image))
    assert status_of(told.value) is Status.ENGINE
    hosted.submit(request_for(image))
    outcome = hosted.poll(60)
    assert outcome is not None
    shown = view_of(outcome)
    assert (shown.status, shown.decision) == (Status.ENGINE, DecisionCode.INVALID)
    assert shown.reason == b"failed"
    record = record_of(outcome)
    assert (record["decision"], record["image_score"]) == ("hold", None)
    assert health_of(hosted).failed == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"image_score": math.nan},
        {"decision_score": math.nan},
        {"threshold": math.nan},
        {"decision_score": 0.9},
        {"decision": "ok"},
    ],
    ids=["nan", "nan by rules", "nan threshold", "reaches", "other decision"],
)
def test_acceptance_that_does_not_follow_from_its_score_does_not_get_out(
    hosted: HostedInspector, image: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
) -> None:  # fmt: skip
    sound = {"decision": "accept", "image_score": 0.9, "decision_score": 0.1, "threshold": 0.5}
    good = hosted.inspect(request_for(image)).inspection
    assert good is not None
    accepted = dataclasses.replace(good, **sound)
    assert outcome_of(StreamResult(1, inspection=accepted)).decision is DecisionCode.ACCEPT
    tampered = dataclasses.replace(good, **{**sound, **changes})
    outcome = outcome_of(StreamResult(1, inspection=tampered))
    assert outcome.decision is DecisionCode.INVALID
    assert view_of(outcome).status == Status.ENGINE
    assert record_of(outcome)["decision"] == "hold"
    monkeypatch.setattr(Inspector, "inspect", lambda *_, **__: tampered)
    with pytest.raises(EngineError, match="cannot be used"):
        hosted.inspect(request_for(image))


def test_every_outcome_has_a_record(hosted: HostedInspector, image: np.ndarray[Any, Any]) -> None:
    names = {"frame_id": b"f", "part_id": b"p", "camera_id": b"c"}
    late = hosted.inspect(request_for(image, deadline_ms=1e-6, **names))
    hosted.submit(request_for(image, product=b"unknown", **names))
    failed = hosted.poll(60)
    hosted.submit(request_for(image, **names))
    good = hosted.poll(60)
    assert failed is not None
    assert good is not None
    for outcome, code in ((late, "late"), (failed, "failed")):
        record, shown = record_of(outcome), view_of(outcome)
        assert (record["decision"], shown.decision) == ("hold", DecisionCode.INVALID)
        assert record["reason"]["code"] == shown.reason.decode() == code
    for outcome in (late, failed, good):
        record, shown = record_of(outcome), view_of(outcome)
        assert (record["frame_id"], record["part_id"], record["camera_id"]) == ("f", "p", "c")
        assert (shown.id.decode(), shown.time.decode()) == (record["id"], record["time"])
        assert shown.monotonic_ns == record["monotonic_ns"]
        assert shown.software.decode() == record["software"]
        for digest in ("parameters", "text_embeddings", "calibration", "bundle"):
            assert getattr(shown, digest).decode() == (record[digest] or "")
        assert OutcomeView(outcome).frame_sha256.decode() == (record["frame_sha256"] or "")
    assert record_of(failed)["frame_sha256"] is None
    assert len(record_of(late)["frame_sha256"]) == 64


def test_structs_of_older_programs_are_not_overrun(
    hosted: HostedInspector, image: np.ndarray[Any, Any]
) -> None:
    frame = FrameStruct(
        FrameStruct.camera_id.offset, image.ctypes.data, image.strides[0], 80, 60,
        PixelFormat.RGB8, product=b"object", camera_id=b"not the program's",
    )  # fmt: skip
    request = request_of(frame)
    assert request.camera_id is None
    shown = ViewStruct(struct_size=ViewStruct.reason.offset, monotonic_ns=77)
    OutcomeView(hosted.inspect(request)).copy_to(ctypes.addressof(shown))
    assert (shown.struct_size, shown.monotonic_ns) == (ViewStruct.reason.offset, 77)
    assert shown.frame_width == 80
    report = HealthStruct(struct_size=HealthStruct.held.offset, held=77)
    hosted.report_health(report)
    assert (report.inspected, report.held) == (1, 77)
