"""What a stream holds: failed, late and dropped frames, and whatever an engine makes up."""

from __future__ import annotations

import dataclasses
import json
import math
import threading
import time
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest
from skimage import data

from zeroflaw import InspectionRecord, InspectionStream, Inspector
from zeroflaw.records.record import inspection_json_schema
from zeroflaw.stream.result import StreamHealth, StreamResult
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.errors import EngineError, StreamError, ZeroflawError


@pytest.fixture(scope="module")
def inspector(tiny_bundle: Bundle):
    with Inspector.load(tiny_bundle.path) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.ascontiguousarray(data.coffee()[:200, :300])


class Tampered:
    """An Inspector whose results are changed on their way out."""

    def __init__(self, inspector: Inspector, change) -> None:
        self.inspector, self.change = inspector, change

    def encode_frame(self, image, **options):
        return self.inspector.encode_frame(image, **options)

    def decode_frame(self, encoded, **options):
        return self.change(self.inspector.decode_frame(encoded, **options))


def result_of(inspector, frame, **options) -> tuple[StreamResult, StreamHealth]:
    with InspectionStream(inspector) as stream:
        stream.submit(frame, product="object", **options)
        result = stream.poll(60)
        assert result is not None
        return result, stream.health()


TAMPERED = {
    "nan": {"image_score": math.nan},
    "minus infinity": {"image_score": -math.inf},
    "negative": {"image_score": -0.5},
    "above one": {"image_score": 1.5, "threshold": 0.5},
    "nan threshold": {"threshold": math.nan},
    "infinite threshold": {"threshold": math.inf},
    "reaches": {"decision_score": 0.7, "threshold": 0.7},
    "nan by rules": {"decision_score": math.nan},
    "above one by rules": {"decision_score": 1.5},
    "no decision": {"decision": None},
    "unknown decision": {"decision": "good"},
    "other case": {"decision": "ACCEPT"},
}


@pytest.mark.parametrize("changes", TAMPERED.values(), ids=TAMPERED)
def test_a_tampered_acceptance_is_a_failure(inspector, photo, changes) -> None:
    accepted = {
        "decision": "accept", "image_score": 0.1, "decision_score": 0.1, "threshold": 0.5,
    }  # fmt: skip
    sound = Tampered(inspector, lambda done: dataclasses.replace(done, **accepted))
    assert result_of(sound, photo)[0].decision == "accept"

    tampered = Tampered(
        inspector, lambda done: dataclasses.replace(done, **{**accepted, **changes})
    )
    result, health = result_of(tampered, photo)
    assert (result.decision, result.reason.code) == ("hold", "failed")
    assert isinstance(result.error, EngineError)
    assert (health.failed, health.finished) == (1, 0)
    assert InspectionRecord.from_json(result.to_json()).decision == "hold"

    # And where a result is made by hand, without the stream's own look at it.
    made = StreamResult(
        ticket=1, inspection=tampered.decode_frame(inspector.encode_frame(photo, product="object"))
    )
    assert (made.decision, made.reason.code) == ("hold", "failed")
    assert InspectionRecord.from_json(made.to_json()).decision == "hold"


@pytest.mark.parametrize("thing", [None, "accept", SimpleNamespace(decision="accept")])
def test_what_is_no_inspection_is_a_failure(inspector, photo, thing, caplog) -> None:
    result, _ = result_of(Tampered(inspector, lambda _: thing), photo)
    assert (result.decision, result.reason.code) == ("hold", "failed")
    assert isinstance(result.error, StreamError)


@pytest.mark.parametrize(
    "outcome",
    [{"deadline_missed": True}, {"dropped": True}, {"error": EngineError("a", "b")}],
    ids=["late", "dropped", "failed"],
)
def test_an_acceptance_beside_another_outcome_is_none(inspector, photo, outcome) -> None:
    inspection = dataclasses.replace(
        inspector.inspect(photo, product="object"),
        decision="accept", image_score=0.1, decision_score=0.1, threshold=0.5,
    )  # fmt: skip
    assert StreamResult(ticket=1, inspection=inspection).decision == "accept"
    result = StreamResult(ticket=1, inspection=inspection, **outcome)
    assert result.decision == result.record().decision == "hold"


class NanSession:
    """A session whose outputs are NaN."""

    def __init__(self, session) -> None:
        self.session = session

    def __getattr__(self, name: str):
        return getattr(self.session, name)

    def execute(self, inputs, **options):
        outputs = self.session.execute(inputs)  # none is kept where it cannot be changed
        return {name: np.full_like(value, np.nan) for name, value in outputs.items()}


@pytest.mark.parametrize("engine", ["clip_encoder", "sam_encoder", "sam_decoder"])
def test_nan_of_an_engine_is_a_failure(inspector, photo, engine: str) -> None:
    broken = dataclasses.replace(
        inspector.sessions, **{engine: NanSession(getattr(inspector.sessions, engine))}
    )
    result, health = result_of(Inspector(inspector.bundle, broken), photo)
    assert (result.decision, result.reason.code) == ("hold", "failed")
    assert isinstance(result.error, EngineError)
    assert health.failed == 1


def test_a_blind_frame_is_finished_and_held(inspector, photo) -> None:
    with InspectionStream(inspector) as stream:
        for frame in (np.zeros_like(photo), photo, np.full_like(photo, 128)):
            stream.submit(frame, product="object")
        results = list(stream.drain())
        health = stream.health()
    assert [r.decision == "hold" for r in results] == [True, False, True]
    assert [r.reason.code for r in results[::2]] == ["dark", "low_contrast"]
    assert all(r.inspection is not None and r.error is None for r in results)
    assert (health.finished, health.held) == (3, 2)
    assert health.submitted == (
        health.finished + health.failed + health.dropped + health.late + health.queued
        + health.running
    )  # fmt: skip


def test_every_frame_has_a_record_with_its_stamp(inspector, photo) -> None:
    names = {"frame_id": "f", "part_id": "p", "camera_id": "c"}
    gate = threading.Event()
    decoding = threading.Event()

    def hold_back(done):
        decoding.set()
        assert gate.wait(30)
        return done

    before = time.monotonic_ns()
    with InspectionStream(
        Tampered(inspector, hold_back), capacity=1, when_full="drop_oldest", pipelined=False
    ) as stream:
        stream.submit(photo, product="object", deadline_ms=500, **names)  # late in its cascade
        assert decoding.wait(30)
        handed_over = time.monotonic_ns()
        stream.submit(photo, product="object", **names)  # dropped
        stream.submit(photo, product="screw", **names)  # fails
        time.sleep(0.6)
        gate.set()
        late, dropped, failed = stream.drain()
        stream.submit(photo, product="object", **names)
        good = stream.poll()
    records = [json.loads(r.to_json()) for r in (late, dropped, failed, good)]
    for record in records:
        jsonschema.validate(record, inspection_json_schema())
        assert record["schema_version"] == 4
        assert {name: record[name] for name in names} == names
        assert before <= record["monotonic_ns"] <= time.monotonic_ns()
    assert len({record["id"] for record in records}) == 4
    assert [record["decision"] for record in records[:3]] == ["hold"] * 3
    assert [r["reason"]["code"] for r in records[:3]] == ["late", "dropped", "failed"]
    # The time is that of `submit`, however long the inspection took or had to wait.
    assert records[0]["monotonic_ns"] < handed_over
    assert [r["image_score"] is None for r in records] == [False, True, True, False]
    assert [r["frame_sha256"] is None for r in records] == [False, True, True, False]
    assert [r["product"] for r in records] == ["object", "object", "screw", "object"]
    assert "500 ms" in records[0]["reason"]["text"]
    assert "unknown product 'screw'" in records[2]["reason"]["text"]
    assert good.record() == good.inspection.record()
    assert (good.inspection.id, good.inspection.time) == (good.stamp.id, good.stamp.time)
    assert (good.frame_id, good.part_id, good.camera_id) == ("f", "p", "c")


@pytest.mark.parametrize("name", ["frame_id", "part_id", "camera_id"])
def test_names_are_text(inspector, photo, name: str) -> None:
    with InspectionStream(inspector) as stream:
        with pytest.raises(ZeroflawError, match=f"{name} is 7"):
            stream.submit(photo, product="object", **{name: 7})
        assert stream.health().submitted == 0
    with pytest.raises(ZeroflawError, match=f"{name} is 7"):
        inspector.inspect(photo, product="object", **{name: 7})
