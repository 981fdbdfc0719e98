"""One frame on its way through a stream."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from zeroflaw.records.stamp import Stamp
from zeroflaw.stream.result import StreamResult


@dataclass(eq=False)
class FrameJob:
    """One frame on its way through the stream."""

    ticket: int
    image: Any
    options: dict[str, Any]
    trace: bool
    stamp: Stamp
    submitted: float
    deadline_ms: float | None
    begun: float | None = None

    def is_late(self) -> bool:
        """Tell whether the deadline has passed."""
        if self.deadline_ms is None:
            return False
        return 1e3 * (time.perf_counter() - self.submitted) > self.deadline_ms

    def result(self, **outcome: Any) -> StreamResult:  # noqa: ANN401
        """Return the frame's result, with its times.

        Args:
            outcome: What became of the frame, as fields of `StreamResult`.
        """
        now = time.perf_counter()
        product = self.options["product"]
        return StreamResult(
            ticket=self.ticket,
            stamp=self.stamp,
            # Of another type it is an error, and that names it.
            product=product if isinstance(product, str) else None,
            deadline_ms=self.deadline_ms,
            queue_ms=1e3 * ((self.begun or now) - self.submitted),
            latency_ms=1e3 * (now - self.submitted),
            **outcome,
        )
