"""What a stream gives back: the result of each frame, and counts of what became of all."""

from __future__ import annotations

from dataclasses import dataclass, field

from zeroflaw.inspection import Inspection
from zeroflaw.records.decision import Decision, Reason, decision_fault
from zeroflaw.records.record import InspectionRecord, held_record
from zeroflaw.records.stamp import Stamp, new_stamp
from zeroflaw_engines.errors import EngineError, ZeroflawError


def _fault_of(inspection: Inspection) -> str | None:
    return decision_fault(
        inspection.decision,
        inspection.image_score,
        inspection.decision_score,
        inspection.threshold,
    )


def require_sound(inspection: Inspection) -> None:
    """Refuse an inspection whose decision does not follow from its scores.

    Raises:
        EngineError: It is none of the three, a score is not in [0, 1], or an acceptance's score
            reaches its threshold.
    """
    fault = _fault_of(inspection)
    if fault is not None:
        raise EngineError(
            f"the inspection of a frame cannot be used: {fault}",
            "inspect the frame again; if it happens again, try another --backend or --precision",
        )


@dataclass(frozen=True, eq=False)
class StreamResult:
    """What became of one frame: exactly one of four things.

    It was inspected in time (`inspection`), it failed (`error`), it was `dropped`, or its
    deadline had passed (`deadline_missed`). Only the first can be "accept"; the others are "hold".

    Attributes:
        ticket: What `submit` returned.
        stamp: Identifier and time of the frame, made at `submit`, and the caller's own names;
            the inspection has the same.
        product: That was asked for.
        inspection: Of a frame that was inspected in time, else None.
        error: Why there is no inspection: the frame, the product or an engine.
        dropped: Whether it was thrown away before it was looked at, for a newer one or because
            the stream was closed.
        deadline_missed: Whether its deadline passed before its inspection had ended.
        late_inspection: What came after the deadline, for records alone; None if the inspection
            was given up when the deadline passed.
        deadline_ms: That was given, from `submit` on; None without one.
        queue_ms: How long it waited before its inspection began, or it was given up.
        latency_ms: From `submit` until this result was made.
    """

    ticket: int
    stamp: Stamp = field(default_factory=new_stamp)
    product: str | None = None
    inspection: Inspection | None = None
    error: ZeroflawError | None = None
    dropped: bool = False
    deadline_missed: bool = False
    late_inspection: Inspection | None = field(default=None, repr=False)
    deadline_ms: float | None = None
    queue_ms: float = 0.0
    latency_ms: float = 0.0

    @property
    def frame_id(self) -> str | None:
        """As given."""
        return self.stamp.frame_id

    @property
    def part_id(self) -> str | None:
        """As given."""
        return self.stamp.part_id

    @property
    def camera_id(self) -> str | None:
        """As given."""
        return self.stamp.camera_id

    @property
    def decision(self) -> Decision:
        """Of the inspection, if the frame was inspected in time; `hold` for every other."""
        if self.inspection is None or self._failure() is not None:
            return "hold"
        return self.inspection.decision

    @property
    def reason(self) -> Reason:
        """Why: the inspection's own reason, or `failed`, `late` or `dropped`."""
        failure = self._failure()
        if failure is not None:
            return failure
        if self.inspection is None:
            return Reason("failed", "there is neither an inspection nor an error")
        return self.inspection.reason

    def record(self) -> InspectionRecord:
        """Give what is kept of the frame; there is a record of every frame."""
        if self.inspection is not None and self._failure() is None:
            return self.inspection.record()
        reason, late = self.reason, self.late_inspection
        return held_record(
            self.stamp,
            reason.code,
            reason.text,
            product=self.product,
            late=late.record() if late is not None and reason.code == "late" else None,
        )

    def to_json(self) -> bytes:
        """Give the record as JSON; see `docs/inspection.schema.json`."""
        return self.record().to_json()

    def _failure(self) -> Reason | None:
        """Return why the inspection, if there is one, must not count."""
        if self.error is not None:
            return Reason("failed", str(self.error))
        if self.dropped:
            return Reason("dropped", "the frame was dropped before it was looked at")
        if self.deadline_missed:
            named = "" if self.deadline_ms is None else f" of {self.deadline_ms:g} ms"
            return Reason("late", f"the frame missed its deadline{named}")
        if self.inspection is None:
            return None
        fault = _fault_of(self.inspection)
        return None if fault is None else Reason("failed", fault)


@dataclass(frozen=True)
class StreamHealth:
    """Counts since the stream was opened.

    `submitted` is the sum of `finished`, `failed`, `dropped`, `late`, `queued` and `running`;
    `held` counts some of the `finished` once more.

    Attributes:
        submitted: Frames that were taken.
        finished: Inspected in time.
        failed: That ended in an error.
        dropped: Thrown away before they were looked at.
        late: Whose deadline had passed.
        queued: That wait for their inspection to begin.
        running: Under way.
        held: Inspected in time and held, since there was nothing that could be judged.
    """

    submitted: int = 0
    finished: int = 0
    failed: int = 0
    dropped: int = 0
    late: int = 0
    queued: int = 0
    running: int = 0
    held: int = 0
