"""Products with settings in an evaluation: what was decided, and how their frames were seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np

from zeroflaw_benchmarks.evaluate.metrics.metrics import image_metrics
from zeroflaw_benchmarks.evaluate.passes.inspecting_pass import InspectedSample
from zeroflaw_engines.bundle.products.settings import ProductSettings

SETTINGS_CONVENTIONS: Final = (
    (
        "Images of a product with settings are inspected as a station inspects them: aligned, in"
        " tiles, and with its rules. Its score maps cover the frame; to {size} x {size} px finer"
        " ones are averaged by area, coarser ones interpolated bilinearly."
    ),
    (
        "Where a product has zones, only pixels that are judged count, at {size} x {size} px those"
        " of which at least half is judged. A defect outside of what is judged is none: an image"
        " whose defects lie wholly outside counts as good, one that reaches inside as defective."
    ),
)


@dataclass(frozen=True)
class DecisionFigures:
    """What was decided about the images of a class whose product has settings.

    Attributes:
        product: As which they were inspected.
        threshold: Decision score from which on they are rejected.
        auroc: Area under the ROC curve of the decision score; NaN where undefined.
        good: Good images by decision.
        defective: Defective images by decision.
        rules: Numbers of good and of defective images that each rule rejected, by its name.
    """

    product: str
    threshold: float
    auroc: float
    good: dict[str, int]
    defective: dict[str, int]
    rules: dict[str, tuple[int, int]]


def decision_figures(
    product: str, settings: ProductSettings, inspected: Collection[InspectedSample]
) -> DecisionFigures:
    """Count what was decided about the images of a class."""
    anomalous = np.array([one.anomalous for one in inspected], np.bool_)
    scores = np.array([one.decision_score for one in inspected], np.float32)

    def counted(*, defective: bool) -> dict[str, int]:
        found = Counter(one.decision for one in inspected if one.anomalous == defective)
        return {name: found[name] for name in ("accept", "reject", "hold")}

    rejected = Counter((one.rule, one.anomalous) for one in inspected)
    return DecisionFigures(
        product=product,
        threshold=next(iter(inspected)).threshold,
        auroc=image_metrics(scores, anomalous).auroc,
        good=counted(defective=False),
        defective=counted(defective=True),
        rules={
            rule.name: (rejected[rule.name, False], rejected[rule.name, True])
            for rule in settings.rules
        },
    )
