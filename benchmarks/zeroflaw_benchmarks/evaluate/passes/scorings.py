"""What can be scored of each refiner's result, and which refiners whole frames take."""

from __future__ import annotations

from typing import Final

from zeroflaw_engines.parameters import MethodParameters, Refiner

# The values of `scoring` that mean something, the refiner's own score map first.
SCORINGS_OF_REFINER: Final[dict[Refiner, tuple[str, ...]]] = {
    "cascade": ("fused", "map", "mask", "sam_probability"),
    "mmr": ("fused", "map", "mask", "sam_probability"),
    "box_proposals": ("fused", "map"),
    "none": ("map",),
}
IMAGE_SCORINGS: Final = ("cls", "map_max")

# Their inputs are not all in the cache: boxes are of the frame itself, and so each image is
# inspected whole.
INSPECTED_REFINERS: Final[tuple[Refiner, ...]] = ("box_proposals",)


def own_scoring(parameters: MethodParameters) -> str:
    """Return what an inspection with these parameters scores: `map` of the refiner `none`."""
    scorings = SCORINGS_OF_REFINER[parameters.refiner]
    return parameters.scoring if parameters.scoring in scorings else scorings[0]
