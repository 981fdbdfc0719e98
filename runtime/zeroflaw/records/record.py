"""Records: what is kept of a frame, in the documented, versioned JSON form.

Every frame that was handed over has a record. That of a frame that was not inspected, or not in
time, says `hold`, and why.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Final

import msgspec

from zeroflaw.pipeline.masks.regions import Region
from zeroflaw.pipeline.trace import Status, Trace
from zeroflaw.records.decision import Decision, Reason, ReasonCode
from zeroflaw.records.stamp import Stamp
from zeroflaw_engines.bundle.manifest import Product
from zeroflaw_engines.bundle.products.settings import Severity
from zeroflaw_engines.errors import RecordError
from zeroflaw_engines.version import __version__

RECORD_SCHEMA_VERSION: Final = 4
# Version 2 had no reference banks, version 3 no settings of products: what they lack has the
# default that says so.
_READ_VERSIONS: Final = frozenset({2, 3, RECORD_SCHEMA_VERSION})
_WITH_DECISION_SCORE: Final = 4

Coordinate = Annotated[int, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Score = Annotated[float, msgspec.Meta(ge=0, le=1)]
PointRecord = tuple[int, int]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Uuid = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
UtcTime = Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$")]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class RegionRecord(_Record, frozen=True, kw_only=True):
    """One region, in frame pixels; see `Region`."""

    x: Coordinate
    y: Coordinate
    width: Count
    height: Count
    area: Count
    centroid: tuple[float, float]
    peak_score: Score
    polygon: tuple[PointRecord, ...]
    holes: tuple[tuple[PointRecord, ...], ...]
    zones: tuple[str, ...] = ()
    severity: Severity | None = None
    area_mm2: float | None = None


class PromptPointRecord(_Record, frozen=True, kw_only=True):
    """One point prompt, in frame pixels."""

    x: float
    y: float
    positive: bool


class StageRecord(_Record, frozen=True, kw_only=True):
    """One stage of the cascade, or that of MMR."""

    predicted_iou: tuple[tuple[float, ...], ...]
    chosen: tuple[int, ...]
    boxes: tuple[tuple[int, int, int, int], ...]
    empty: bool


class TraceRecord(_Record, frozen=True, kw_only=True):
    """How the mask came about; `Trace` describes the maps."""

    points: tuple[PromptPointRecord, ...]
    stages: tuple[StageRecord, ...]
    kept_stage: Annotated[int, msgspec.Meta(ge=0, le=3)]
    zero_shot_map_max: Score | None = None
    reference_map_max: Score | None = None


class TilesRecord(_Record, frozen=True, kw_only=True):
    """In which tiles the encoders saw a frame.

    Attributes:
        rows: Tiles from top to bottom.
        columns: Tiles from left to right.
        run: Of them, those that CLIP was run on.
    """

    rows: Count
    columns: Count
    run: Count


class AlignmentRecord(_Record, frozen=True, kw_only=True):
    """Where the part was found in a frame, against the product's reference photo.

    Attributes:
        x: Translation of the frame's middle to the right, px.
        y: The same downwards.
        rotation: Degrees, counter-clockwise.
        correlation: With the reference photo, in [-1, 1].
    """

    x: float
    y: float
    rotation: float
    correlation: float


class InspectionRecord(_Record, frozen=True, kw_only=True):
    """What is kept of a frame, without arrays; `Inspection` describes the fields.

    Of a frame that was not inspected, `decision` is `hold`, and what only an inspection knows is
    null. Of a frame that was inspected too late, `decision` is `hold` and the rest is there.
    """

    schema_version: Annotated[int, msgspec.Meta(ge=1)]
    id: Uuid
    time: UtcTime
    monotonic_ns: Count
    part_id: str | None
    frame_id: str | None
    camera_id: str | None
    decision: Decision
    reason: Reason
    product: str | None
    software: str
    status: Status | None = None
    image_score: Score | None = None
    decision_score: Score | None = None
    rule: str | None = None
    threshold: Score | None = None
    frame_height: Count | None = None
    frame_width: Count | None = None
    frame_sha256: Sha256 | None = None
    mask_area: Count | None = None
    anomaly_map_max: Score | None = None
    score_map_max: Score | None = None
    regions: list[RegionRecord] = []
    timings_ms: dict[str, float] = {}
    bundle: Sha256 | None = None
    text_embeddings: Sha256 | None = None
    reference: Sha256 | None = None
    calibration: Sha256 | None = None
    settings: Sha256 | None = None
    parameters: Sha256 | None = None
    backend: str | None = None
    warnings: tuple[str, ...] = ()
    tiles: TilesRecord | None = None
    alignment: AlignmentRecord | None = None
    trace: TraceRecord | None = None

    def to_json(self) -> bytes:
        """Give the record as JSON; `docs/inspection.schema.json` describes it."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> InspectionRecord:
        """Read a record, and bring one of an earlier version to the current one.

        Args:
            data: What `to_json` gave.

        Raises:
            RecordError: It is not JSON, of another schema version, or does not fit its schema.
        """
        try:
            version = msgspec.json.decode(data, type=_Version).schema_version
        except msgspec.DecodeError as error:
            raise RecordError(
                f"this is not a record of an inspection: {error}", "give what `to_json` wrote"
            ) from error
        if version not in _READ_VERSIONS:
            raise RecordError(
                f"the record has schema version {version}, and"
                f" {', '.join(map(str, sorted(_READ_VERSIONS)))} are read here",
                "upgrade zeroflaw"
                if version > RECORD_SCHEMA_VERSION
                else "inspect the frame again: older records say neither what judged the frame"
                " nor that it was held",
            )
        try:
            record = msgspec.json.decode(data, type=cls)
        except msgspec.DecodeError as error:
            raise RecordError(
                f"the record does not fit schema version {version}: {error}",
                "compare it with docs/inspection.schema.json",
            ) from error
        if version < _WITH_DECISION_SCORE:
            # There were no rules: the image score decided.
            record = msgspec.structs.replace(record, decision_score=record.image_score)
        return msgspec.structs.replace(record, schema_version=RECORD_SCHEMA_VERSION)


class _Version(msgspec.Struct):
    schema_version: int


def region_record(region: Region) -> RegionRecord:
    """Keep what is serialised of a region."""
    return RegionRecord(
        x=region.x,
        y=region.y,
        width=region.width,
        height=region.height,
        area=region.area,
        centroid=region.centroid,
        peak_score=region.peak_score,
        polygon=region.polygon,
        holes=region.holes,
        zones=region.zones,
        severity=region.severity,
        area_mm2=region.area_mm2,
    )


def trace_record(trace: Trace) -> TraceRecord:
    """Keep what is serialised of a trace."""
    points: tuple[PromptPointRecord, ...] = ()
    if trace.points is not None:
        points = tuple(
            PromptPointRecord(x=float(x), y=float(y), positive=bool(label == 1))
            for (x, y), label in zip(trace.points.coords, trace.points.labels, strict=True)
        )
    stages = tuple(
        StageRecord(
            predicted_iou=tuple(tuple(map(float, row)) for row in stage.predicted_iou),
            chosen=stage.chosen,
            boxes=stage.boxes,
            empty=stage.empty,
        )
        for stage in trace.stages
    )
    reference = trace.reference_map
    return TraceRecord(
        points=points,
        stages=stages,
        kept_stage=trace.kept_stage,
        zero_shot_map_max=float(trace.zero_shot_map.max()),
        reference_map_max=None if reference is None else float(reference.max()),
    )


def held_record(
    stamp: Stamp,
    code: ReasonCode,
    text: str,
    *,
    product: str | None = None,
    late: InspectionRecord | None = None,
) -> InspectionRecord:
    """Record a frame that was not inspected in time: it is held.

    Args:
        code: `failed`, `late` or `dropped`.
        text: Cause and remedy, or what happened.
        late: That of its inspection, if it came after all.
    """
    reason = Reason(code, text)
    if late is not None:
        return msgspec.structs.replace(late, decision="hold", reason=reason)
    return InspectionRecord(
        schema_version=RECORD_SCHEMA_VERSION,
        id=stamp.id,
        time=stamp.time,
        monotonic_ns=stamp.monotonic_ns,
        part_id=stamp.part_id,
        frame_id=stamp.frame_id,
        camera_id=stamp.camera_id,
        decision="hold",
        reason=reason,
        product=product,
        software=__version__,
    )


def calibration_digest(product: Product) -> str | None:
    """Name a product's threshold and where it comes from, by SHA-256.

    Returns:
        64 hexadecimal digits; None if the product has no threshold of its own.
    """
    if product.threshold is None:
        return None
    document = {"threshold": product.threshold, "calibration": product.calibration}
    return hashlib.sha256(msgspec.json.encode(document, order="sorted")).hexdigest()


def inspection_json_schema() -> dict[str, Any]:
    """Give the JSON schema of `InspectionRecord`, as `docs/inspection.schema.json` holds it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"zeroflaw inspection, schema version {RECORD_SCHEMA_VERSION}",
        **msgspec.json.schema(InspectionRecord),
    }
