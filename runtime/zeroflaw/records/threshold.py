"""Which decision threshold applies to a product, and what to know about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from zeroflaw_engines.bundle.manifest import Calibration, Product
from zeroflaw_engines.parameters import MethodParameters

# Scores end at 1: a threshold this near to it accepts nearly every part.
NEAR_ONE: Final = 1e-3

# Left out of the comparison: what the threshold itself replaces, and what is warned of by itself.
_NOT_COMPARED: Final = frozenset({"decision_threshold", "image_scoring"})


def decision_threshold(
    name: str,
    product: Product,
    parameters: MethodParameters,
    *,
    backend: str | None = None,
    explicit: bool = False,
) -> tuple[float, tuple[str, ...]]:
    """Give the image score at and above which frames of a product are rejected.

    A product's own threshold goes before `decision_threshold`, unless the user gave that one for
    this inspection. A calibrated threshold lies on the scale of one kind of image score; it says
    nothing about another kind and is set aside there. Under another backend or other parameters
    than it was calibrated with it is applied. Whatever a reader of the result must know of this
    is in the warnings.

    Args:
        backend: What runs the CLIP encoder, as its session describes itself; None is not compared.
        explicit: Whether `decision_threshold` was given for this inspection.

    Returns:
        The threshold, in [0, 1], and the warnings.
    """
    given, own, calibration = parameters.decision_threshold, product.threshold, product.calibration
    warnings: list[str] = []
    threshold = given if own is None else own
    if calibration and calibration.image_scoring != parameters.image_scoring:
        threshold = given
        warnings.append(
            f"the threshold of {name!r} was calibrated with image_scoring="
            f"{calibration.image_scoring} and does not hold with image_scoring="
            f"{parameters.image_scoring}: decision_threshold={given:g} is applied instead"
        )
    elif own is not None and explicit:
        threshold = given
        if given != own:
            kind = "own" if calibration is None else "calibrated"
            warnings.append(
                f"decision_threshold={given:g} was given and replaces the {kind} threshold"
                f" {own:.6f} of {name!r}"
            )
    elif calibration:
        unused = () if product.reference else ("reference_",)
        differences = tuple(_differences(calibration, parameters, backend, unused))
        if differences:
            warnings.append(
                f"the threshold of {name!r} was calibrated with other settings than those of this"
                f" inspection: {'; '.join(differences)}; calibrate it again with these"
            )
    if is_near_one(threshold):
        warnings.append(
            f"the threshold {threshold:.9g} of {name!r} is within {NEAR_ONE:g} of 1, the highest"
            " score there is: nearly every part is accepted"
        )
    return threshold, tuple(warnings)


def is_near_one(threshold: float) -> bool:
    """Tell whether a threshold leaves hardly any score to reject."""
    # Without the margin, 0.999 would lie outside by the rounding of 1 - 0.999.
    return 1 - threshold <= NEAR_ONE * (1 + 1e-9)


def _differences(
    calibration: Calibration,
    parameters: MethodParameters,
    backend: str | None,
    unused: tuple[str, ...],
) -> Iterator[str]:
    """Yield what differs from the calibration; what that did not record is not known."""
    if None not in {backend, calibration.backend} and backend != calibration.backend:
        yield f"backend {calibration.backend}, now {backend}"
    for name, value in (calibration.parameters or {}).items():
        now = getattr(parameters, name, value)
        if name not in _NOT_COMPARED and not name.startswith(unused) and now != value:
            yield f"{name}={value}, now {now}"
