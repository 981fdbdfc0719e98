"""Decisions: accept, reject or hold, each with its reason.

A frame is accepted only if it was seen: inspected in time, with information in the picture, with
finite outputs of every engine, and with a decision score below the threshold. Whatever else becomes
of it, it is rejected or held.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np

from zeroflaw.pipeline.encoding.frame_information import FrameInformation
from zeroflaw.pipeline.geometry import BoolArray, FloatArray
from zeroflaw.pipeline.view.zones import ZoneLayout
from zeroflaw.records.rules import Firing
from zeroflaw.records.threshold import shown_threshold
from zeroflaw_engines.bundle.products.settings import Rule
from zeroflaw_engines.errors import EngineError
from zeroflaw_engines.parameters import MethodParameters

Decision = Literal["accept", "reject", "hold"]
ReasonCode = Literal[
    "below_threshold",
    "reaches_threshold",
    "rule",
    "low_contrast",
    "clipped",
    "dark",
    "contradiction",
    "wrong_frame_size",
    "misaligned",
    "zone_out_of_view",
    "failed",
    "late",
    "dropped",
]

_MORE_LIKELY_ABNORMAL: Final = 0.5


@dataclass(frozen=True)
class Reason:
    """Why a frame was accepted, rejected or held.

    Attributes:
        code: Stable name of the kind of reason. `below_threshold` accepts, `reaches_threshold`
            and `rule` reject, every other holds.
        text: One sentence for people.
    """

    code: ReasonCode
    text: str


@dataclass(frozen=True)
class Verdict:
    """What is to be done with a part.

    Attributes:
        decision: `accept`, `reject` or `hold`.
        reason: Why.
        warnings: What a reader of the result must know about it.
    """

    decision: Decision
    reason: Reason
    warnings: tuple[str, ...] = ()


def verdict_of(
    score: float,
    threshold: float,
    *,
    information: FrameInformation,
    mask: BoolArray,
    anomaly_map: FloatArray,
    parameters: MethodParameters,
    held: Reason | None = None,
    zones: ZoneLayout | None = None,
    rules: Sequence[Rule] = (),
    firing: Firing | None = None,
) -> Verdict:
    """Decide on an inspected frame.

    A frame that cannot be judged, or has no information, is held whatever its score is. A decision
    score at or above the threshold rejects. One below it accepts, unless mask or map contradict
    and `contradiction` is `hold`.

    Args:
        score: The decision score, in [0, 1]; without rules it is the image score.
        threshold: In [0, 1].
        mask: bool [H, W], empty where nothing is judged.
        anomaly_map: float32 [S, S] in [0, 1], 0 where nothing is judged.
        parameters: Limits of blind frames, and what a contradiction does.
        held: Why the frame cannot be judged; None if it can.
        zones: What is judged of the frame; None: all of it.
        firing: The rule that rejects, if one does.

    Raises:
        EngineError: The score or the threshold is not finite.
    """
    kind = "decision score" if rules else "image score"
    if not (math.isfinite(score) and math.isfinite(threshold)):
        raise EngineError(
            f"the {kind} {score} cannot be compared with the threshold {threshold}",
            "check the bundle with `zeroflaw bundle verify`, and the backend with"
            " `zeroflaw doctor`",
        )
    held = held or blind_reason(information, parameters)
    if held is not None:
        return Verdict("hold", held)
    if not score < threshold:
        if firing is not None:
            text = f"the rule {firing.rule!r} rejects: {firing.text}"
            return Verdict("reject", Reason("rule", text))
        text = f"the {kind} {score:.6f} reaches the threshold {shown_threshold(threshold)}"
        return Verdict("reject", Reason("reaches_threshold", text))
    text = f"the {kind} {score:.6f} lies below the threshold {shown_threshold(threshold)}"
    against = _contradiction(mask, anomaly_map, zones, parameters)
    if against is None:
        return Verdict("accept", Reason("below_threshold", text))
    if parameters.contradiction == "hold":
        return Verdict("hold", Reason("contradiction", f"{text}, but {against}"))
    return Verdict(
        "accept", Reason("below_threshold", text), (f"accepted since {text}: {against}",)
    )


def decision_fault(
    decision: str, image_score: float, decision_score: float, threshold: float
) -> str | None:
    """Say what is wrong with a decision that was made elsewhere; None if nothing is.

    Where a decision leaves the runtime it is looked at once more: an acceptance whose score does
    not lie below its threshold must not get out, whoever made it.

    Args:
        image_score: Must be in [0, 1].
        decision_score: That it was made on; must be in [0, 1].
        threshold: That it was made with; must be in [0, 1].
    """
    if decision not in get_args(Decision):
        return f"{decision!r} is no decision"
    values = {
        "image score": image_score,
        "decision score": decision_score,
        "threshold": threshold,
    }
    for name, value in values.items():
        if not 0 <= value <= 1:
            return f"the {name} {value} is not in [0, 1]"
    if decision == "accept" and not decision_score < threshold:
        return (
            f"accepted, though the decision score {decision_score} reaches the threshold"
            f" {threshold}"
        )
    return None


def blind_reason(information: FrameInformation, parameters: MethodParameters) -> Reason | None:
    """Return why a frame has no information, or None if it has.

    Args:
        parameters: `min_contrast`, `max_clipped` and `min_peak`.
    """
    seen, limits = information, parameters
    # The frame has 256 levels: one that ends at 1/16 of white shows 16 of 255.
    if seen.peak <= math.floor(255 * limits.min_peak + 0.5) / 255 and limits.min_peak > 0:
        return Reason(
            "dark",
            f"no pixel is brighter than {seen.peak:.3f} of white (min_peak={limits.min_peak:g}):"
            " give the camera's white level, or check light and exposure",
        )
    if seen.clipped > limits.max_clipped:
        return Reason(
            "clipped",
            f"{seen.clipped:.1%} of the pixels are black or white"
            f" (max_clipped={limits.max_clipped:g}): check light and exposure",
        )
    if seen.contrast < limits.min_contrast:
        return Reason(
            "low_contrast",
            f"the frame's contrast is {seen.contrast:.4f} of white"
            f" (min_contrast={limits.min_contrast:g}): check that the camera sees the part",
        )
    return None


def _contradiction(
    mask: BoolArray,
    anomaly_map: FloatArray,
    zones: ZoneLayout | None,
    parameters: MethodParameters,
) -> str | None:
    """Return what speaks against an acceptance: the area that mask or map call defective."""
    if parameters.contradiction == "ignore":
        return None
    pixels, of_map, whole = mask.size, anomaly_map.size, "the frame"
    if zones is not None:
        pixels, whole = zones.judged_pixels, "what is judged of the frame"
        of_map = int(np.count_nonzero(zones.at_map(anomaly_map.shape)))
    masked = np.count_nonzero(mask) / pixels
    abnormal = np.count_nonzero(anomaly_map > _MORE_LIKELY_ABNORMAL) / of_map
    if max(masked, abnormal) <= parameters.contradiction_area:
        return None
    return (
        f"the mask covers {masked:.2%} of {whole}, and the anomaly map exceeds"
        f" {_MORE_LIKELY_ABNORMAL} on {abnormal:.2%} of it with a peak of {anomaly_map.max():.3f}"
    )
