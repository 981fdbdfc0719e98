"""The result of an evaluation: figures, and what they were measured with and on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from zeroflaw_benchmarks.evaluate.decisions import DecisionFigures
from zeroflaw_benchmarks.evaluate.metrics.metrics import ImageMetrics, PixelMetrics
from zeroflaw_benchmarks.evaluate.passes.rows import Table
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_export.datasets import Skipped

Metrics = TypeVar("Metrics", PixelMetrics, ImageMetrics)

CONVENTIONS: Final = (
    (
        "Pixel metrics are over all pixels of all images of a class at {size} x {size} px; the "
        "mean is over classes, unweighted, without those for which a figure is undefined."
    ),
    (
        "Truth: mask > 0, resized to {size} x {size} px with Pillow's bilinear filter, then > 0.5 "
        "(APRIL-GAN)."
    ),
    (
        "AP is average precision, step-wise (scikit-learn's), not the trapezoid under the "
        "precision-recall curve (anomalib's AUPR)."
    ),
    (
        "PRO is APRIL-GAN's: 200 linear thresholds, FPR < 0.3, FPR rescaled to its own range; "
        "exact PRO is anomalib's AUPRO: every threshold, FPR up to 0.3, normalised by 0.3."
    ),
    "Scores are never stretched to an image's or a class's own range.",
    (
        "Image scores do not depend on the scoring of pixels: cls is CLIP's CLS softmax, map_max "
        "the peak of the anomaly map at the bundle's own size."
    ),
)


@dataclass(frozen=True)
class ClassCount:
    """How many images of a class were evaluated, and as which product."""

    name: str
    product: str
    good: int
    defective: int


@dataclass(frozen=True)
class Row:
    """Pixel metrics of one row of a table.

    Attributes:
        table: `scoring`, or the ablation.
        name: Of the row.
        parameters: An Inspector with these gives the score maps that were measured.
        classes: Metrics by class.
        mean: Means over the classes, without NaN; `f1_threshold` is a mean as well.
    """

    table: Table
    name: str
    parameters: MethodParameters
    classes: dict[str, PixelMetrics]
    mean: PixelMetrics


@dataclass(frozen=True)
class ImageRow:
    """Image metrics of one `image_scoring`."""

    name: str
    classes: dict[str, ImageMetrics]
    mean: ImageMetrics


@dataclass(frozen=True)
class ShotRun:
    """What one draw of reference photos gave.

    Attributes:
        shots: Photos of each class.
        seed: Of the draw.
        photos: By class, relative to the dataset's directory.
        pixels: Pixel metrics by scoring, `map` or `fused`, and class.
        images: Metrics of the image score, by class.
    """

    shots: int
    seed: int
    photos: dict[str, tuple[str, ...]]
    pixels: dict[str, dict[str, PixelMetrics]]
    images: dict[str, ImageMetrics]

    def pixel_mean(self, scoring: str) -> PixelMetrics:
        """Average the pixel metrics of one scoring over the classes."""
        return mean_of(PixelMetrics, self.pixels[scoring])

    @property
    def image_mean(self) -> ImageMetrics:
        """Metrics of the image score, averaged over the classes."""
        return mean_of(ImageMetrics, self.images)


@dataclass(frozen=True)
class Evaluation:
    """What was measured, and on what.

    Attributes:
        zeroflaw_version: Version that measured.
        bundle: The bundle's directory.
        bundle_identity: Digest of its engines and weights.
        models: Names of its CLIP and its SAM.
        random_weights: Seed, if any part of the weights is random.
        demonstration: What the bundle is, if it is only one to try zeroflaw with.
        backend: What ran the engines.
        dataset: The dataset's directory.
        layout: How it is laid out.
        split: Which part of it.
        dataset_digest: Of the images and masks that were evaluated.
        size: Side at which scores were measured, px.
        parameters: The method's parameters.
        classes: Images that were evaluated.
        statuses: How many images had which `Inspection.status`.
        rows: Pixel metrics.
        image_rows: Image metrics.
        own_banks: Digests of the reference banks that the bundle has, by product; all rows but
            those of `shot_runs` are with them.
        shot_runs: What was measured with reference photos of the dataset, whatever bank a product
            has itself; ascending by shots, then by seed.
        settings: Digests of the settings of products that have some, by product.
        decisions: What was decided, by class, where the product has settings.
        skipped: Files that were left out, and why.
        notes: Which figures are undefined and left out of means.
        conventions: How the figures are defined.
    """

    zeroflaw_version: str
    bundle: str
    bundle_identity: str
    models: str
    random_weights: int | None
    demonstration: str | None
    backend: str
    dataset: str
    layout: str
    split: str
    dataset_digest: str
    size: int
    parameters: MethodParameters
    classes: tuple[ClassCount, ...]
    statuses: dict[str, int]
    rows: tuple[Row, ...]
    image_rows: tuple[ImageRow, ...]
    own_banks: dict[str, str]
    shot_runs: tuple[ShotRun, ...]
    settings: dict[str, str]
    decisions: dict[str, DecisionFigures]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]
    conventions: tuple[str, ...]

    def table(self, table: Table) -> tuple[Row, ...]:
        """Return the rows of one table."""
        return tuple(row for row in self.rows if row.table == table)


def spread_of(kind: type[Metrics], runs: Sequence[Metrics]) -> tuple[Metrics, Metrics]:
    """Return the mean and the standard deviation of metrics over draws.

    Returns:
        Both; the deviation is of the sample (n - 1), NaN for one draw. A figure that is undefined
        in a draw is undefined in both.
    """
    values = np.array([dataclasses.astuple(metrics) for metrics in runs], np.float64)
    deviations = values.std(axis=0, ddof=1) if len(runs) > 1 else np.full(values.shape[1], np.nan)
    return kind(*map(float, values.mean(axis=0))), kind(*map(float, deviations))


def mean_of(kind: type[Metrics], classes: Mapping[str, Metrics]) -> Metrics:
    """Average over classes, unweighted, without NaN; NaN where a figure is undefined for all."""
    means: dict[str, float] = {}
    for field in dataclasses.fields(kind):
        values = [getattr(metrics, field.name) for metrics in classes.values()]
        defined = [value for value in values if not math.isnan(value)]
        means[field.name] = float(np.mean(defined)) if defined else math.nan
    return kind(**means)
