"""The columns of a comparison: what can be the best of."""

from __future__ import annotations

from typing import Final, Literal

from zeroflaw_benchmarks.evaluate.metrics.metrics import ImageMetrics, PixelMetrics

Column = Literal[
    "auroc", "f1-max", "ap", "pro", "within-image", "image-auroc", "image-f1-max", "image-ap"
]  # fmt: skip

COLUMNS: Final[dict[Column, str]] = {
    "auroc": "AUROC",
    "f1-max": "F1-max",
    "ap": "AP",
    "pro": "PRO",
    "within-image": "within-image AUROC",
    "image-auroc": "image AUROC",
    "image-f1-max": "image F1-max",
    "image-ap": "image AP",
}


def figures_of(pixels: PixelMetrics, images: ImageMetrics, within: float) -> dict[Column, float]:
    """Gather the figures of one class, each in [0, 1], NaN where undefined.

    Args:
        within: Mean within-image AUROC of its defective images.
    """
    return {
        "auroc": pixels.auroc,
        "f1-max": pixels.f1_max,
        "ap": pixels.average_precision,
        "pro": pixels.pro,
        "within-image": within,
        "image-auroc": images.auroc,
        "image-f1-max": images.f1_max,
        "image-ap": images.average_precision,
    }
