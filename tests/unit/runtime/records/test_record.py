"""Records: what is kept of a frame, whatever became of it."""

import datetime as dt
import hashlib
import json
import time
from pathlib import Path

import jsonschema
import msgspec
import numpy as np
import pytest

from zeroflaw.records.record import InspectionRecord, calibration_digest, held_record
from zeroflaw.records.stamp import new_stamp
from zeroflaw_engines.bundle.manifest import Product
from zeroflaw_engines.errors import RecordError

SCHEMA = json.loads((Path(__file__).parents[4] / "docs" / "inspection.schema.json").read_text())

OF_VERSION_4 = ("decision_score", "rule", "settings", "tiles", "alignment")


def test_a_stamp_tells_frames_apart():
    before, tick = dt.datetime.now(dt.UTC), time.monotonic_ns()
    stamps = [new_stamp(part_id="4711", camera_id="left") for _ in range(50)]
    assert len({stamp.id for stamp in stamps}) == 50
    for stamp in stamps:
        at = dt.datetime.fromisoformat(stamp.time)
        assert stamp.time.endswith("Z")
        assert before <= at <= dt.datetime.now(dt.UTC)
        assert tick <= stamp.monotonic_ns <= time.monotonic_ns()
        assert (stamp.part_id, stamp.frame_id, stamp.camera_id) == ("4711", None, "left")


@pytest.mark.parametrize("code", ["failed", "late", "dropped"])
def test_a_frame_that_was_not_inspected_is_held(code):
    record = held_record(new_stamp(frame_id="7"), code, "the camera -- look", product="nut")
    document = json.loads(record.to_json())
    jsonschema.validate(document, SCHEMA)
    assert document["decision"] == "hold"
    assert document["reason"] == {"code": code, "text": "the camera -- look"}
    assert document["image_score"] is None
    assert document["frame_sha256"] is None
    assert InspectionRecord.from_json(record.to_json()) == record


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"schema_version": 1}, "schema version 1, and 2, 3, 4 are read"),
        ({"schema_version": 5}, "schema version 5, and 2, 3, 4 are read"),
        ({"decision": "good"}, "does not fit schema version 4"),
        ({"id": "7"}, "does not fit"),
        ({"image_score": 1.5}, "does not fit"),
        ({"colour": "red"}, "does not fit"),
        ({"schema_version": None}, "not a record"),
    ],
)
def test_other_documents_are_refused(change, complaint):
    document = json.loads(held_record(new_stamp(), "dropped", "too many").to_json())
    with pytest.raises(RecordError, match=complaint):
        InspectionRecord.from_json(json.dumps({**document, **change}).encode())
    with pytest.raises(RecordError, match="not a record"):
        InspectionRecord.from_json(b"[]")


def test_records_of_version_2_are_read_as_those_of_products_without_a_bank():
    record = held_record(new_stamp(frame_id="7"), "failed", "the camera -- look", product="nut")
    document = json.loads(record.to_json())
    for field in ("reference", *OF_VERSION_4):
        assert document.pop(field) is None
    document["schema_version"] = 2
    document["trace"] = {"points": [], "stages": [], "kept_stage": 0}
    read = InspectionRecord.from_json(json.dumps(document).encode())
    trace = read.trace
    assert (trace.kept_stage, trace.zero_shot_map_max, trace.reference_map_max) == (0, None, None)
    assert msgspec.structs.replace(read, trace=None) == record
    jsonschema.validate(json.loads(read.to_json()), SCHEMA)


@pytest.mark.parametrize("version", [2, 3])
def test_earlier_records_are_read_as_those_of_products_without_settings(version):
    region = {
        "x": 1, "y": 2, "width": 3, "height": 4, "area": 5, "centroid": [1.5, 2.5],
        "peak_score": 0.75, "polygon": [[1, 2]], "holes": [],
    }  # fmt: skip
    document = json.loads(held_record(new_stamp(), "failed", "no light -- look").to_json())
    for field in OF_VERSION_4:
        del document[field]
    document |= {
        "schema_version": version, "decision": "accept", "image_score": 0.25, "threshold": 0.5,
        "reason": {"code": "below_threshold", "text": "it lies below"}, "regions": [region],
    }  # fmt: skip
    read = InspectionRecord.from_json(json.dumps(document).encode())
    assert read.schema_version == 4
    # The image score decided.
    assert (read.decision_score, read.rule, read.settings) == (0.25, None, None)
    assert (read.tiles, read.alignment) == (None, None)
    (one,) = read.regions
    assert (one.area, one.zones, one.severity, one.area_mm2) == (5, (), None, None)
    jsonschema.validate(json.loads(read.to_json()), SCHEMA)
    assert InspectionRecord.from_json(read.to_json()) == read


def test_the_calibration_digest_names_the_threshold():
    assert calibration_digest(Product(sentences=(1, 1))) is None
    digests = {
        calibration_digest(Product(sentences=(1, 1), threshold=threshold))
        for threshold in (0.25, 0.5, float(np.nextafter(0.5, 1)))
    }
    assert len(digests) == 3
    document = msgspec.json.encode({"calibration": None, "threshold": 0.25})
    assert hashlib.sha256(document).hexdigest() in digests
