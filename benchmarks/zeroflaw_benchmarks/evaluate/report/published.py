"""Figures that others have published: pixel level, percent, means over the classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True)
class PublishedFigures:
    """Figures of one method on one dataset, %; None where none was published.

    Attributes:
        auroc: Pixel AUROC.
        f1_max: Best F1 over all thresholds.
        average_precision: Average precision, step-wise.
        pro: Per-region overlap up to a false-positive rate of 0.3.
    """

    auroc: float | None
    f1_max: float | None
    average_precision: float | None
    pro: float | None = None

    @property
    def cells(self) -> list[str]:
        """The four figures as a table shows them, in the order of the paper."""
        values = (self.auroc, self.f1_max, self.average_precision, self.pro)
        return ["-" if value is None else f"{value:.1f}" for value in values]


@dataclass(frozen=True)
class PublishedMethod:
    """One line of Table 1.

    Attributes:
        name: As the paper calls it.
        mvtec: On MVTec-AD.
        visa: On VisA.
    """

    name: str
    mvtec: PublishedFigures
    visa: PublishedFigures


def _method(
    name: str,
    mvtec: tuple[float | None, float | None, float | None, float | None],
    visa: tuple[float | None, float | None, float | None, float | None],
) -> PublishedMethod:
    return PublishedMethod(name, PublishedFigures(*mvtec), PublishedFigures(*visa))


# Hou et al., Table 1. PRO is from ClipSAM's Table 1, whose other figures are the same.
TABLE_1: Final = (
    _method("WinCLIP", (85.1, 31.7, None, 64.6), (79.6, 14.8, None, 56.8)),
    _method("APRIL-GAN", (87.6, 43.3, 40.8, 44.0), (94.2, 32.3, 25.7, 86.8)),
    _method("SDP", (88.7, 35.3, 28.5, 79.1), (84.1, 16.0, 9.6, 63.4)),
    _method("SDP+", (91.2, 41.9, 39.4, 85.6), (94.8, 26.5, 20.3, 85.3)),
    _method("AnomalyCLIP", (91.1, 39.1, 34.5, None), (95.5, 28.3, 21.3, None)),
    _method("SAA", (67.7, 23.8, 15.2, 31.9), (83.7, 12.8, 5.5, 41.9)),
    _method("SAA+", (73.2, 37.8, 28.8, 42.8), (74.0, 27.1, 22.4, 36.8)),
    _method("ClipSAM", (92.3, 47.8, 45.9, 88.3), (95.6, 33.1, 26.0, 87.5)),
    _method("Hou et al.", (89.5, 48.8, 46.4, None), (94.8, 36.5, 28.0, None)),
)

# VisualAD (arXiv 2603.07952): without texts, the map alone.
VISUALAD: Final = (
    _method("VisualAD (CLIP)", (90.8, 43.9, 41.2, 87.5), (95.8, 34.6, 28.4, 91.0)),
    _method("VisualAD (DINOv2)", (91.3, 47.4, 45.4, 88.6), (95.3, 35.2, 29.9, 88.2)),
)

Kernel = Literal["ellipse", "rectangle", "cross"]

# Hou et al., Table 2: the dilation kernel, on MVTec-AD.
TABLE_2: Final[dict[tuple[Kernel, int], PublishedFigures]] = {
    ("cross", 20): PublishedFigures(89.5, 46.8, 44.1),
    ("cross", 25): PublishedFigures(89.2, 46.5, 44.1),
    ("cross", 30): PublishedFigures(89.3, 46.3, 44.5),
    ("rectangle", 20): PublishedFigures(89.5, 47.7, 45.6),
    ("rectangle", 25): PublishedFigures(89.4, 46.9, 43.9),
    ("rectangle", 30): PublishedFigures(89.0, 45.0, 42.2),
    ("ellipse", 20): PublishedFigures(89.1, 47.2, 45.3),
    ("ellipse", 25): PublishedFigures(89.5, 48.8, 46.4),
    ("ellipse", 30): PublishedFigures(89.4, 46.9, 44.5),
}

# Hou et al., Table 3: stages of the cascade, on MVTec-AD. The AP of stage 1 is blank in the text
# we have and follows from its prose (44.8 - 5.6).
TABLE_3: Final[dict[int, PublishedFigures]] = {
    1: PublishedFigures(88.7, 42.5, 39.2),
    2: PublishedFigures(88.1, 46.8, 44.8),
    3: PublishedFigures(89.5, 48.8, 46.4),
}
STAGE_PROMPTS: Final = {
    1: "points (M1)",
    2: "points, logits 1 (M2)",
    3: "points, box, logits 2 (M3)",
}
