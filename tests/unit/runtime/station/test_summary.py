"""The row of a picture in `summary.csv`."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import msgspec
import pytest

from zeroflaw.records.decision import Reason
from zeroflaw.records.record import InspectionRecord, RegionRecord, held_record
from zeroflaw.records.stamp import new_stamp
from zeroflaw.station.summary import SUMMARY_COLUMNS, inspected_row, summary_csv


def region(severity: str | None, *zones: str) -> RegionRecord:
    return RegionRecord(
        x=0, y=0, width=2, height=2, area=4, centroid=(0.5, 0.5), peak_score=0.5, polygon=(),
        holes=(), zones=zones, severity=severity,
    )  # fmt: skip


def record(**fields: object) -> InspectionRecord:
    return msgspec.structs.replace(
        held_record(new_stamp(), "failed", "text"),
        decision="reject", image_score=0.25, decision_score=0.25, threshold=0.125, **fields,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("regions", "worst"),
    [
        ([], ""),
        ([region(None)], ""),
        ([region("minor", "face"), region("critical", "rim"), region("major", "thread")],
         "critical"),
    ],
)  # fmt: skip
def test_rule_and_worst_severity_come_last(regions: list[RegionRecord], worst: str) -> None:
    ruled = record(
        regions=regions, reason=Reason("rule", "the rule rejects"), rule="a, b", product="nut"
    )
    text = summary_csv([inspected_row(Path("a.png"), "a", ruled)]).decode()
    (row,) = csv.DictReader(io.StringIO(text))
    assert SUMMARY_COLUMNS[-3:] == ("decision_score", "rule", "severity")
    assert (row["rule"], row["severity"], row["reason"]) == ("a, b", worst, "rule")
    assert (row["decision_score"], row["image_score"]) == ("0.250000", "0.250000")


def test_without_rules_there_is_none() -> None:
    row = inspected_row(Path("a.png"), "a", record())
    assert (row["rule"], row["severity"]) == ("", "")
