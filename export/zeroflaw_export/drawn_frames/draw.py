"""One frame from one seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from zeroflaw_export.drawn_frames.camera import draw_camera
from zeroflaw_export.drawn_frames.defects import TEST_DEFECTS, TRAIN_DEFECTS, Areas, Defect
from zeroflaw_export.drawn_frames.surfaces import TEST_SURFACES, TRAIN_SURFACES, Surface

Split = Literal["train", "test"]

SURFACES: Final[dict[Split, dict[str, Surface]]] = {"train": TRAIN_SURFACES, "test": TEST_SURFACES}
DEFECTS: Final[dict[Split, Mapping[str, tuple[Defect, Areas]]]] = {
    "train": TRAIN_DEFECTS,
    "test": TEST_DEFECTS,
}

_SMALLEST: Final = 0.0005
_LARGEST: Final = 0.2
# Mean change of the photo inside the mask, in grey levels: less is no defect to a camera.
VISIBLE: Final = 14.0
_TRIES: Final = 12


@dataclass(frozen=True)
class DrawnFrame:
    """A frame and its truth.

    Attributes:
        image: uint8 [H, W, 3], RGB.
        mask: bool [H, W], True where defective.
        surface: Family of the surface.
        defect: Type of the defect, or `good`.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    surface: str
    defect: str


def draw_frame(split: Split, surface: str, defect: str, *, seed: int, size: int) -> DrawnFrame:
    """Draw a frame; the same arguments give the same frame.

    A defect is drawn anew until the camera can see it and it covers 0.05 % to 20 % of the frame.

    Args:
        split: `train` and `test` share no surface, no texture and no defect.
        surface: A name in `SURFACES[split]`.
        defect: A name in `DEFECTS[split]`, or `good`.
        seed: Any whole number from 0.
        size: Side of the frame, px.
    """
    rng = np.random.default_rng([seed, *surface.encode(), *split.encode()])
    scene = np.clip(SURFACES[split][surface](rng, size), 0.02, 1).astype(np.float32)
    camera = draw_camera(rng, size)
    good = camera.exposed(scene)
    if defect == "good":
        return DrawnFrame(good, np.zeros((size, size), np.bool_), surface, defect)
    draw, (low, high) = DEFECTS[split][defect]
    spoiler = np.random.default_rng([seed, *defect.encode()])
    for _ in range(_TRIES):
        area = float(np.exp(spoiler.uniform(np.log(low), np.log(high))))
        spoiled, depth = draw(spoiler, scene, area)
        mask = depth >= 0.5
        if not _SMALLEST <= mask.mean() <= _LARGEST:
            continue
        image = camera.exposed(spoiled.astype(np.float32))
        change = np.abs(image[mask].astype(np.float32) - good[mask]).mean()
        if change >= VISIBLE:
            return DrawnFrame(image, mask, surface, defect)
    # This scene hides every such defect: another one of the same family is drawn.
    return draw_frame(split, surface, defect, seed=seed + 1_000_003, size=size)
