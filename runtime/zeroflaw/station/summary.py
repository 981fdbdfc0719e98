"""`summary.csv`: one line a picture, in columns that programs read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from zeroflaw.pipeline.view.zones import worst_severity
from zeroflaw.records.record import InspectionRecord
from zeroflaw.station.picture_search import LeftOut
from zeroflaw.station.truth.judgement import JUDGEMENT_COLUMNS, Judgement

# New columns go to the end: readers may count.
SUMMARY_COLUMNS: Final = (
    "file", "status", "decision", "image_score", "threshold", "regions", "mask_area",
    "frame_width", "frame_height", "total_ms", "output", "error",
    "id", "time", "part_id", "frame_id", "camera_id", "frame_sha256", "reason", "reason_text",
    "software", "bundle", "calibration", "parameters", "backend", *JUDGEMENT_COLUMNS,
    "decision_score", "rule", "severity",
)  # fmt: skip


def inspected_row(
    source: Path, stem: str, record: InspectionRecord, judgement: Judgement | None = None
) -> dict[str, str]:
    """Return the row of a picture that was inspected.

    Args:
        stem: Path of its results below the folder of the summary, without their suffixes.
        judgement: The inspection against the truth, where that is known.
    """
    total = record.timings_ms.get("total")
    return {
        **_common(source, stem, record),
        "status": _text(record.status),
        "image_score": _decimal(record.image_score, 6),
        "threshold": _decimal(record.threshold, 6),
        "decision_score": _decimal(record.decision_score, 6),
        "rule": _text(record.rule),
        "severity": _text(worst_severity(record.regions)),
        "regions": str(len(record.regions)),
        "mask_area": _text(record.mask_area),
        "frame_width": _text(record.frame_width),
        "frame_height": _text(record.frame_height),
        "total_ms": _decimal(total, 1),
        **({} if judgement is None else judgement.columns()),
    }


def failed_row(source: Path, stem: str, record: InspectionRecord) -> dict[str, str]:
    """Return the row of a picture that was not inspected, or whose results could not be written.

    Args:
        stem: As in `inspected_row`; empty if not even its record could be written.
        record: Its record, whose reason says what is wrong and what can be done.
    """
    return {
        **_common(source, stem, record),
        "status": "failed",
        "error": " ".join(record.reason.text.split()),
    }


def left_out_row(left_out: LeftOut) -> dict[str, str]:
    """Return the row of a file that may be a picture and was not looked at: it is held."""
    text = f"it {left_out.why}"
    return {
        "file": left_out.path.as_posix(),
        "status": "left_out",
        "decision": "hold",
        "error": text,
        "reason": "left_out",
        "reason_text": text,
    }


def summary_csv(rows: Iterable[Mapping[str, str]]) -> bytes:
    """Return the summary as a file.

    Names of files need not be UTF-8 on Linux; their bytes are written back as they are.
    """
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, SUMMARY_COLUMNS, restval="", extrasaction="ignore")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


def _common(source: Path, stem: str, record: InspectionRecord) -> dict[str, str]:
    return {
        "file": source.as_posix(),
        "decision": record.decision,
        "output": stem,
        "id": record.id,
        "time": record.time,
        "part_id": _text(record.part_id),
        "frame_id": _text(record.frame_id),
        "camera_id": _text(record.camera_id),
        "frame_sha256": _text(record.frame_sha256),
        "reason": record.reason.code,
        "reason_text": " ".join(record.reason.text.split()),
        "software": record.software,
        "bundle": _text(record.bundle),
        "calibration": _text(record.calibration),
        "parameters": _text(record.parameters),
        "backend": _text(record.backend),
    }


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _decimal(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
