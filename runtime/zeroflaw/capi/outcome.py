"""What became of one frame, as the C side is told: a status, a decision and a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from zeroflaw.capi.abi import DecisionCode, Status
from zeroflaw.capi.errors import status_of, text_of
from zeroflaw.inspection import Inspection
from zeroflaw.stream.result import StreamResult

_DECISIONS: Final = {"accept": DecisionCode.ACCEPT, "reject": DecisionCode.REJECT}
_HOLDING: Final = {
    "dropped": (
        Status.DROPPED,
        "hold the part; submit more slowly, or poll before you destroy the inspector",
    ),
    "late": (Status.DEADLINE_MISSED, "hold the part; allow more time, or give fewer frames"),
    "failed": (Status.ENGINE, "hold the part"),
}


@dataclass(frozen=True)
class Outcome:
    """What became of one frame.

    Attributes:
        status: `OK`, or why there is no decision.
        error: Cause and remedy; empty if `OK`.
        result: As a stream gives it; the ticket is 0 if the frame was not submitted.
    """

    status: Status
    error: str
    result: StreamResult

    @property
    def decision(self) -> DecisionCode:
        """`INVALID` for every frame that is held."""
        if self.status is not Status.OK:
            return DecisionCode.INVALID
        return _DECISIONS.get(self.result.decision, DecisionCode.INVALID)

    @property
    def inspection(self) -> Inspection | None:
        """None if the frame was not inspected. With a status other than `OK` it is no decision."""
        return self.result.inspection or self.result.late_inspection


def outcome_of(result: StreamResult) -> Outcome:
    """Find the status and the text that stand for a result in the C ABI.

    Args:
        result: Of a stream, or of an inspection that was called for.
    """
    if result.error is not None:
        return Outcome(status_of(result.error), text_of(result.error), result)
    if result.decision != "hold":
        return Outcome(Status.OK, "", result)
    reason = result.reason
    status, remedy = _HOLDING.get(reason.code, (Status.HELD, "hold the part, and see to the cause"))
    return Outcome(status, f"{reason.text} -- {remedy}", result)
