"""Products with settings in an evaluation: what was decided, and how their frames were seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from zeroflaw_benchmarks.evaluate.metrics.metrics import image_metrics
from zeroflaw_benchmarks.evaluate.passes.inspecting_pass import InspectedSample
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.products.settings import ProductSettings
from zeroflaw_engines.errors import EvaluationError

if TYPE_CHECKING:
    from zeroflaw_benchmarks.evaluate.job import EvaluationOptions

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


def settings_of(bundle: Bundle, products: Collection[str]) -> dict[str, ProductSettings]:
    """Return the settings of those products that have some."""
    found = {name: bundle.manifest.products[name].settings for name in sorted(products)}
    return {name: settings for name, settings in found.items() if settings is not None}


def refuse_what_takes_whole_frames(
    settings: Mapping[str, ProductSettings], options: EvaluationOptions
) -> None:
    """Refuse ablations and shots of products with settings.

    Raises:
        EvaluationError: Both are measured on whole frames, which such products are not judged by.
    """
    asked = [name for name, given in (("--ablate", options.ablations), ("--shots", options.shots))
             if given]  # fmt: skip
    if not (settings and asked):
        return
    raise EvaluationError(
        f"{' and '.join(asked)} cannot be measured for {', '.join(map(repr, settings))}: they"
        " look at frames as a whole, and the settings say how frames are looked at",
        "leave them out, evaluate other classes (--class), or name a product without settings"
        " (--product)",
    )


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


def settings_note(product: str, settings: ProductSettings) -> str:
    """Say in a sentence how the frames of a product are seen."""
    return f"The product {product} has settings ({settings.digest[:16]}): {_seen(settings)}."


def _seen(settings: ProductSettings) -> str:
    return "; ".join(_parts(settings))


def _parts(settings: ProductSettings) -> Iterator[str]:
    yield f"frames of {settings.frame_width} x {settings.frame_height} px"
    tiles = settings.tiles
    if tiles is None:
        yield "seen as a whole"
    else:
        yield f"{tiles.rows} x {tiles.columns} tiles with an overlap of {tiles.overlap:g}"
        if tiles.coarse_to_fine:
            yield f"tiles left out where the whole frame's map is at most {tiles.coarse_limit:g}"
    for kind in ("include", "exclude"):
        names = [zone.name for zone in settings.zones if zone.kind == kind]
        if names:
            yield f"zones to {kind}: {', '.join(names)}"
    if settings.alignment is not None:
        yield f"aligned by {settings.alignment.method}"
    if settings.rules:
        yield f"rules: {', '.join(rule.name for rule in settings.rules)}"
