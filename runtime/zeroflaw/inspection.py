"""The result of one inspection, and its JSON form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

import msgspec

from zeroflaw.cascade import Stage
from zeroflaw.geometry import BoolArray, FloatArray
from zeroflaw.prompt_points import PointPrompts
from zeroflaw.regions import Region

INSPECTION_SCHEMA_VERSION: Final = 1

Status = Literal["ok", "no_region", "stage_1_empty", "stage_2_empty", "stage_3_empty"]
Decision = Literal["accept", "reject"]


@dataclass(frozen=True)
class Trace:
    """How a mask came about, for those who want to look.

    Attributes:
        points: The points that PPG gave, in frame pixels; None if there was no extreme region.
        stages: Of the cascade: low-res logits, predicted IoUs, chosen mask, boxes.
        kept_stage: 1 to 3, the stage whose mask is the result; 0 if none.
    """

    points: PointPrompts | None
    stages: tuple[Stage, ...]
    kept_stage: int


@dataclass(frozen=True, eq=False)
class Inspection:
    """The result of one inspection.

    Attributes:
        status: `ok`; `no_region` if no pixel of the map is extreme; `stage_N_empty` if stage N
            of the cascade gave an empty mask and the one before was kept (for N = 1, the
            extreme region itself).
        product: The product it was inspected as.
        decision: `reject` if the image score reaches the threshold, else `accept`.
        image_score: In [0, 1].
        threshold: The decision threshold that was applied.
        frame_size: Height and width, px.
        mask: bool [H, W], at the frame's size.
        anomaly_map: float32 [S, S] in [0, 1], CLIP's map of the squashed frame.
        score_map: float32 [S, S] in [0, 1], the map fused with SAM's mask.
        regions: Connected components of the mask, largest first.
        timings_ms: Milliseconds by stage; the encoders run side by side, so the parts add up
            to more than `total`.
        bundle: Digest of the engines and weights.
        backend: What ran the engines: name, version, device and precision.
        warnings: What a reader of the result must know.
        trace: Only if it was asked for.
    """

    status: Status
    product: str
    decision: Decision
    image_score: float
    threshold: float
    frame_size: tuple[int, int]
    mask: BoolArray = field(repr=False)
    anomaly_map: FloatArray = field(repr=False)
    score_map: FloatArray = field(repr=False)
    regions: tuple[Region, ...]
    timings_ms: dict[str, float] = field(repr=False)
    bundle: str
    backend: str
    warnings: tuple[str, ...]
    trace: Trace | None = field(default=None, repr=False)

    def record(self) -> InspectionRecord:
        """The result without its arrays, as it is serialised."""
        return InspectionRecord(
            schema_version=INSPECTION_SCHEMA_VERSION,
            status=self.status,
            product=self.product,
            decision=self.decision,
            image_score=self.image_score,
            threshold=self.threshold,
            frame_height=self.frame_size[0],
            frame_width=self.frame_size[1],
            mask_area=int(self.mask.sum()),
            anomaly_map_max=float(self.anomaly_map.max()),
            score_map_max=float(self.score_map.max()),
            regions=[
                RegionRecord(
                    x=region.x,
                    y=region.y,
                    width=region.width,
                    height=region.height,
                    area=region.area,
                    centroid=region.centroid,
                    peak_score=region.peak_score,
                    polygon=region.polygon,
                    holes=region.holes,
                )
                for region in self.regions
            ],
            trace=_trace_record(self.trace),
            timings_ms=self.timings_ms,
            bundle=self.bundle,
            backend=self.backend,
            warnings=self.warnings,
        )

    def to_json(self) -> bytes:
        """The result without its arrays as JSON; `docs/inspection.schema.json` describes it."""
        return msgspec.json.encode(self.record())


Coordinate = Annotated[int, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Score = Annotated[float, msgspec.Meta(ge=0, le=1)]
PointRecord = tuple[int, int]


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


class PromptPointRecord(_Record, frozen=True, kw_only=True):
    """One point prompt, in frame pixels."""

    x: float
    y: float
    positive: bool


class StageRecord(_Record, frozen=True, kw_only=True):
    """One stage of the cascade."""

    predicted_iou: tuple[tuple[float, ...], ...]
    chosen: tuple[int, ...]
    boxes: tuple[tuple[int, int, int, int], ...]
    empty: bool


class TraceRecord(_Record, frozen=True, kw_only=True):
    """How the mask came about."""

    points: tuple[PromptPointRecord, ...]
    stages: tuple[StageRecord, ...]
    kept_stage: Annotated[int, msgspec.Meta(ge=0, le=3)]


class InspectionRecord(_Record, frozen=True, kw_only=True):
    """An inspection without its arrays: the documented, versioned JSON form."""

    schema_version: Annotated[int, msgspec.Meta(ge=1)]
    status: Status
    product: str
    decision: Decision
    image_score: Score
    threshold: Score
    frame_height: Count
    frame_width: Count
    mask_area: Count
    anomaly_map_max: Score
    score_map_max: Score
    regions: list[RegionRecord]
    timings_ms: dict[str, float]
    bundle: str
    backend: str
    warnings: tuple[str, ...]
    trace: TraceRecord | None = None


def inspection_json_schema() -> dict[str, Any]:
    """The JSON schema of `Inspection.to_json`, as `docs/inspection.schema.json` holds it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"zeroflaw inspection, schema version {INSPECTION_SCHEMA_VERSION}",
        **msgspec.json.schema(InspectionRecord),
    }


def _trace_record(trace: Trace | None) -> TraceRecord | None:
    if trace is None:
        return None
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
    return TraceRecord(points=points, stages=stages, kept_stage=trace.kept_stage)
