"""What tells one frame from every other: an identifier, the time, and the caller's own names."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from dataclasses import dataclass

from zeroflaw_engines import arguments
from zeroflaw_engines.errors import FrameError


@dataclass(frozen=True)
class Stamp:
    """Marks one frame from the moment it was handed over.

    Attributes:
        id: UUID, 32 hexadecimal digits.
        time: UTC, ISO 8601 with microseconds and `Z`.
        monotonic_ns: The same moment on the machine's monotonic clock, ns: for intervals, which
            a corrected wall clock would falsify.
    """

    id: str
    time: str
    monotonic_ns: int
    part_id: str | None
    frame_id: str | None
    camera_id: str | None


def new_stamp(
    *, part_id: str | None = None, frame_id: str | None = None, camera_id: str | None = None
) -> Stamp:
    """Mark a frame now.

    Args:
        part_id: The caller's name of the part.
        frame_id: The caller's name of the frame.
        camera_id: The caller's name of the camera.

    Raises:
        FrameError: A name is not text.
    """
    for name, given in (("part_id", part_id), ("frame_id", frame_id), ("camera_id", camera_id)):
        if given is not None:
            arguments.text(name, given, error=FrameError)
    now = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")
    return Stamp(
        id=uuid.uuid4().hex,
        time=now.removesuffix("+00:00") + "Z",
        monotonic_ns=time.monotonic_ns(),
        part_id=part_id,
        frame_id=frame_id,
        camera_id=camera_id,
    )
