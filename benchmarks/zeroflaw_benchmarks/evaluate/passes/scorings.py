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
# Those whose score map is the one that `scoring` names; of others it is always the first of these.
_READ_SCORING: Final[tuple[Refiner, ...]] = ("cascade", "mmr")
IMAGE_SCORINGS: Final = ("cls", "map_max")

# Their inputs are not all in the cache: boxes are of the frame itself, and so each image is
# inspected whole.
INSPECTED_REFINERS: Final[tuple[Refiner, ...]] = ("box_proposals",)


def kept_scorings(parameters: MethodParameters, *, of_draws: bool = False) -> tuple[str, ...]:
    """List the score maps that are kept of a refiner other than the cascade: all but the map.

    Args:
        of_draws: Of draws of reference photos, of which there are many: those that are measured.
    """
    if parameters.refiner == "cascade":
        return ()
    scorings = SCORINGS_OF_REFINER[parameters.refiner]
    wanted = dict.fromkeys((scorings[0], own_scoring(parameters))) if of_draws else scorings
    return tuple(name for name in wanted if name != "map")


def own_scoring(parameters: MethodParameters) -> str:
    """Return what an inspection with these parameters scores: `map` of the refiner `none`."""
    if parameters.refiner in _READ_SCORING:
        return parameters.scoring
    return SCORINGS_OF_REFINER[parameters.refiner][0]
