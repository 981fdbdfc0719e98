"""An inspection against the truth: right or wrong, and how well the defect is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from PIL import Image

from zeroflaw.inspection import Inspection
from zeroflaw.pipeline.geometry import BoolArray, FloatArray
from zeroflaw.records.decision import Decision

Verdict = Literal["right_accept", "right_reject", "false_reject", "missed", "hold"]
# Columns of the summary; what `Judgement.columns` gives and `judgement_in` reads.
JUDGEMENT_COLUMNS: Final = ("truth", "judgement", "map_auroc", "mask_iou", "defect_found")

_VERDICTS: Final[dict[str, Verdict]] = {verdict: verdict for verdict in get_args(Verdict)}
_RIGHT: Final = ("right_accept", "right_reject")


@dataclass(frozen=True)
class Judgement:
    """An inspection against the truth.

    Attributes:
        defective: Whether the part is defective by its truth mask.
        verdict: `right_accept`, `right_reject`, `false_reject` (a good part rejected), `missed`
            (a defective one accepted), or `hold`, which is neither right nor wrong.
        map_auroc: Pixel AUROC of the anomaly map in this photo alone; None for a good part, and
            where the defect is less than a pixel of the map.
        mask_iou: Intersection over union of the mask and the truth; None for a good part.
        defect_found: Share of the defect's pixels that the mask covers; None for a good part.
    """

    defective: bool
    verdict: Verdict
    map_auroc: float | None = None
    mask_iou: float | None = None
    defect_found: float | None = None

    @property
    def right(self) -> bool:
        """Whether the decision is the right one."""
        return self.verdict in _RIGHT

    @property
    def wrong(self) -> bool:
        """Whether it is the wrong one; a part that is held is neither."""
        return self.verdict in ("false_reject", "missed")

    def columns(self) -> dict[str, str]:
        """Return it as columns of the summary."""
        figures = (self.map_auroc, self.mask_iou, self.defect_found)
        texts = ("" if figure is None else f"{figure:.4f}" for figure in figures)
        truth = "defective" if self.defective else "good"
        return dict(zip(JUDGEMENT_COLUMNS, (truth, self.verdict, *texts), strict=True))


@dataclass(frozen=True)
class Tally:
    """How many of several inspections are right, and how well their defects are shown.

    Attributes:
        right: How many decisions are the right ones.
        defective: How many parts are defective, by the truth.
        good: How many are good.
        false_rejects: How many good parts are rejected.
        missed: How many defective parts are accepted.
        held: How many parts are held.
        map_auroc: Mean over the defective parts that have it; None without any.
        mask_iou: Mean over the defective parts; None without any.
        defect_found: Mean over the defective parts; None without any.
    """

    right: int
    defective: int
    good: int
    false_rejects: int
    missed: int
    held: int
    map_auroc: float | None
    mask_iou: float | None
    defect_found: float | None

    @property
    def total(self) -> int:
        """How many inspections were judged."""
        return self.defective + self.good


def judge(inspection: Inspection, truth: BoolArray) -> Judgement:
    """Judge an inspection by the truth.

    Args:
        truth: bool [H, W], of the frame's size, True where the part is defective.
    """
    area = int(np.count_nonzero(truth))
    verdict = _verdict(inspection.decision, defective=area > 0)
    if not area:
        return Judgement(False, verdict)
    shared = int(np.count_nonzero(inspection.mask & truth))
    either = int(np.count_nonzero(inspection.mask | truth))
    return Judgement(
        True,
        verdict,
        map_auroc=pixel_auroc(
            inspection.anomaly_map, _at_size(truth, inspection.anomaly_map.shape)
        ),
        mask_iou=shared / either,
        defect_found=shared / area,
    )


def judgement_in(row: Mapping[str, str]) -> Judgement | None:
    """Return what a row of the summary says of the truth; None if it says nothing."""
    verdict = _VERDICTS.get(row.get("judgement", ""))
    if verdict is None:
        return None
    figures = (row.get(name) for name in JUDGEMENT_COLUMNS[2:])
    return Judgement(
        row.get("truth") == "defective",
        verdict,
        *(float(text) if text else None for text in figures),
    )


def tally(judgements: Sequence[Judgement]) -> Tally:
    """Count judgements, and average their figures."""
    verdicts = [one.verdict for one in judgements]
    defective = sum(one.defective for one in judgements)
    return Tally(
        right=sum(one.right for one in judgements),
        defective=defective,
        good=len(judgements) - defective,
        false_rejects=verdicts.count("false_reject"),
        missed=verdicts.count("missed"),
        held=verdicts.count("hold"),
        map_auroc=_mean([one.map_auroc for one in judgements]),
        mask_iou=_mean([one.mask_iou for one in judgements]),
        defect_found=_mean([one.defect_found for one in judgements]),
    )


def pixel_auroc(scores: FloatArray, truth: BoolArray) -> float | None:
    """Return the area under the ROC curve of the pixels of one map, exactly.

    It is the share of pairs of a defective and a good pixel in which the defective one scores
    higher, ties counting one half (Mann and Whitney 1947): sklearn.metrics.roc_auc_score.

    Args:
        scores: float [S, S], finite.
        truth: bool [S, S].

    Returns:
        In [0, 1]; None where all the pixels are good, or all defective.
    """
    good, defective = np.sort(scores[~truth]), scores[truth]
    pairs = good.size * defective.size
    if not pairs:
        return None
    lower = np.searchsorted(good, defective, side="left").sum(dtype=np.int64)
    not_higher = np.searchsorted(good, defective, side="right").sum(dtype=np.int64)
    return float(lower + not_higher) / (2 * pairs)


def _verdict(decision: Decision, *, defective: bool) -> Verdict:
    if decision == "hold":
        return "hold"
    if decision == "reject":
        return "right_reject" if defective else "false_reject"
    return "missed" if defective else "right_accept"


def _at_size(truth: BoolArray, size: tuple[int, ...]) -> BoolArray:
    """Resize the truth to a map's grid as `zeroflaw evaluate` does, so that figures compare."""
    height, width = size
    picture = Image.fromarray(truth.astype(np.uint8) * 255)
    resized: BoolArray = (
        np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR)) > 127
    )
    return resized


def _mean(figures: Sequence[float | None]) -> float | None:
    known = [figure for figure in figures if figure is not None]
    return sum(known) / len(known) if known else None
