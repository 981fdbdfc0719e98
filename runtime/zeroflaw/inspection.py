"""The result of one inspection."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property

import numpy as np

from zeroflaw.pipeline.geometry import BoolArray, FloatArray
from zeroflaw.pipeline.masks.regions import Region
from zeroflaw.pipeline.trace import Status, Trace
from zeroflaw.records.decision import Decision, Reason
from zeroflaw.records.record import (
    RECORD_SCHEMA_VERSION,
    AlignmentRecord,
    InspectionRecord,
    TilesRecord,
    region_record,
    trace_record,
)
from zeroflaw.records.stamp import Stamp
from zeroflaw_engines.bundle.products.settings import Zone
from zeroflaw_engines.image_files.frame import Frame


@dataclass(frozen=True, eq=False)
class Inspection:
    """The result of one inspection.

    Attributes:
        id: UUID of this inspection, 32 hexadecimal digits.
        time: UTC at which the frame was handed over, ISO 8601 with microseconds and `Z`.
        monotonic_ns: The same moment on the machine's monotonic clock, ns, for intervals.
        part_id: The caller's name of the part; None if none was given.
        frame_id: The caller's name of the frame; None if none was given.
        camera_id: The caller's name of the camera; None if none was given.
        status: `ok`; `no_region` if no pixel of the map is extreme; `stage_N_empty` if stage N
            of the refiner gave an empty mask and the one before was kept (for N = 1, the
            extreme region itself).
        product: The product it was inspected as.
        decision: `hold` if the frame shows nothing that could be judged; else `reject` if the
            decision score reaches the threshold; else `accept`.
        reason: Why.
        image_score: In [0, 1].
        decision_score: In [0, 1], what the product's rules make of regions and image score; of a
            product without rules the image score.
        rule: The rule that rejected the frame, the first of the table that does; None if it is
            not rejected, or the product has no rules.
        threshold: The decision threshold that was applied, in [0, 1].
        frame_size: Height and width, px.
        frame: uint8 [H, W, 3], RGB: the frame as it was inspected.
        mask: bool [H, W], at the frame's size; of a product with rules by regions, with the parts
            of the extreme region that SAM left out.
        anomaly_map: float32 [S, S] in [0, 1], CLIP's map of the squashed frame; of a product with
            a reference bank, fused with the reference map. The trace has both.
        score_map: float32 [S, S] in [0, 1], what the refiner made of map and masks.
        regions: Connected components of the mask, largest first.
        timings_ms: Milliseconds by stage; the encoders run side by side, so the parts add up
            to more than `total`.
        software: Version of zeroflaw.
        bundle: Digest of the engines and weights.
        text_embeddings: Digest of the product's text embeddings.
        reference: Digest of the product's reference bank; None if it has none.
        calibration: Digest of the product's threshold and where it comes from; None if it has
            no threshold of its own.
        settings: Digest of the product's settings; None if it has none.
        parameters: Digest of the method's parameters.
        backend: What ran the engines: name, version, device and precision.
        warnings: What a reader of the result must know.
        trace: Only if it was asked for.
        zones: The product's zones, with their corners in pixels of the frame.
        tiles: In which tiles the encoders saw the frame; None: as a whole.
        alignment: Where the part was found; None if the product's frames are taken as they are.
    """

    id: str
    time: str
    monotonic_ns: int = field(repr=False)
    part_id: str | None
    frame_id: str | None
    camera_id: str | None
    status: Status
    product: str
    decision: Decision
    reason: Reason
    image_score: float
    decision_score: float
    rule: str | None
    threshold: float
    frame_size: tuple[int, int]
    frame: Frame = field(repr=False)
    mask: BoolArray = field(repr=False)
    anomaly_map: FloatArray = field(repr=False)
    score_map: FloatArray = field(repr=False)
    regions: tuple[Region, ...]
    timings_ms: dict[str, float] = field(repr=False)
    software: str = field(repr=False)
    bundle: str
    text_embeddings: str = field(repr=False)
    reference: str | None = field(repr=False)
    calibration: str | None = field(repr=False)
    settings: str | None = field(repr=False)
    parameters: str = field(repr=False)
    backend: str
    warnings: tuple[str, ...]
    trace: Trace | None = field(default=None, repr=False)
    zones: tuple[Zone, ...] = field(default=(), repr=False)
    tiles: TilesRecord | None = None
    alignment: AlignmentRecord | None = None

    @cached_property
    def frame_sha256(self) -> str:
        """SHA-256 of the frame's bytes: RGB, 8 bits a channel, row by row from the top left.

        It is computed when it is first asked for, after the decision has gone out.
        """
        return hashlib.sha256(np.ascontiguousarray(self.frame).data).hexdigest()

    def record(self) -> InspectionRecord:
        """Give the result without its arrays, as it is serialised."""
        height, width = self.frame_size
        return InspectionRecord(
            schema_version=RECORD_SCHEMA_VERSION,
            id=self.id,
            time=self.time,
            monotonic_ns=self.monotonic_ns,
            part_id=self.part_id,
            frame_id=self.frame_id,
            camera_id=self.camera_id,
            decision=self.decision,
            reason=self.reason,
            product=self.product,
            software=self.software,
            status=self.status,
            image_score=self.image_score,
            decision_score=self.decision_score,
            rule=self.rule,
            threshold=self.threshold,
            frame_height=height,
            frame_width=width,
            frame_sha256=self.frame_sha256,
            mask_area=int(np.count_nonzero(self.mask)),
            anomaly_map_max=float(self.anomaly_map.max()),
            score_map_max=float(self.score_map.max()),
            regions=[region_record(region) for region in self.regions],
            timings_ms=self.timings_ms,
            bundle=self.bundle,
            text_embeddings=self.text_embeddings,
            reference=self.reference,
            calibration=self.calibration,
            settings=self.settings,
            parameters=self.parameters,
            backend=self.backend,
            warnings=self.warnings,
            tiles=self.tiles,
            alignment=self.alignment,
            trace=None if self.trace is None else trace_record(self.trace),
        )

    def to_json(self) -> bytes:
        """Give the result without its arrays as JSON; see `docs/inspection.schema.json`."""
        return self.record().to_json()


def stamped(inspection: Inspection, stamp: Stamp) -> Inspection:
    """Give an inspection the stamp of a frame that was handed over before its inspection began."""
    return replace(inspection, **asdict(stamp))
