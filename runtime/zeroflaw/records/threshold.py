"""Which decision threshold applies to a product, and what to know about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from zeroflaw_engines.bundle.manifest import Calibration, Product
from zeroflaw_engines.bundle.products.settings import ProductSettings
from zeroflaw_engines.parameters import MethodParameters

# Scores end at 1: a threshold this near to it accepts nearly every part.
NEAR_ONE: Final = 1e-3

# The parameters that change the image score of a product with a bank, beside `image_scoring`.
_CHANGE_SCORES: Final = ("reference_distance", "reference_image_scoring")
# Left out of the comparison: what the threshold itself replaces, and what is warned of by itself.
_NOT_COMPARED: Final = frozenset({"decision_threshold", "image_scoring", *_CHANGE_SCORES})
# Parameters that only products with a bank know.
_OF_BANKS: Final = "reference_"


def decision_threshold(
    name: str,
    product: Product,
    parameters: MethodParameters,
    *,
    backend: str | None = None,
    explicit: bool = False,
    reference: str | None = None,
) -> tuple[float, tuple[str, ...]]:
    """Give the decision score at and above which frames of a product are rejected.

    A product's own threshold goes before `decision_threshold`, unless the user gave that one for
    this inspection. A calibrated threshold lies on the scale of one kind of image score, with one
    reference bank or with none; it says nothing about another and is set aside there. Under another
    backend or other parameters than it was calibrated with it is applied. Whatever a reader of the
    result must know of this is in the warnings.

    Args:
        backend: What runs the CLIP encoder, as its session describes itself; None is not compared.
        explicit: Whether `decision_threshold` was given for this inspection.
        reference: Digest of the reference bank that frames are scored with; None without one.

    Returns:
        The threshold, in [0, 1], and the warnings.
    """
    given, own, calibration = parameters.decision_threshold, product.threshold, product.calibration
    warnings: list[str] = []
    threshold = given if own is None else own
    other = None if calibration is None else _other_score(calibration, parameters, reference)
    if other:
        threshold = given
        warnings.append(
            f"the threshold of {name!r} was calibrated {other}: decision_threshold={given:g} is"
            " applied instead"
        )
    elif own is not None and explicit:
        threshold = given
        if given != own:
            kind = "own" if calibration is None else "calibrated"
            warnings.append(
                f"decision_threshold={given:g} was given and replaces the {kind} threshold"
                f" {shown_threshold(own)} of {name!r}"
            )
    elif calibration:
        differences = tuple(_differences(calibration, parameters, backend))
        if differences:
            warnings.append(
                f"the threshold of {name!r} was calibrated with other settings than those of this"
                f" inspection: {'; '.join(differences)}; calibrate it again with these"
            )
    if threshold != own:
        warnings += uncalibrated_peaks(name, product.settings, threshold)
    if is_near_one(threshold):
        warnings.append(
            f"the threshold {threshold:.9g} of {name!r} is within {NEAR_ONE:g} of 1, the highest"
            " score there is: nearly every part is accepted"
        )
    return threshold, tuple(warnings)


def uncalibrated_peaks(
    name: str, settings: ProductSettings | None, threshold: float
) -> tuple[str, ...]:
    """Warn where a threshold that is not the product's own is the limit of the peaks of regions.

    `decision_threshold` is made for image scores. The peak of a region lies lower: the fused score
    of a plain defect hardly reaches it.

    Args:
        threshold: In [0, 1], that is applied.
    """
    rules = () if settings is None else settings.rules
    bare = [repr(rule.name) for rule in rules if rule.by == "regions" and rule.min_peak is None]
    if not bare:
        return ()
    many = "s" if len(bare) > 1 else ""
    text = (
        f"decision_threshold={threshold:g} is made for image scores, and the"
        f" rule{many} {', '.join(bare)} of {name!r}"
        f" {'compare' if many else 'compares'} peaks of regions with it, which lie lower: plain"
        " defects may be accepted; calibrate the product with `zeroflaw calibrate`, or give the"
        f" rule{many} a min_peak"
    )
    return (text,)


def shown_threshold(threshold: float) -> str:
    """Write a threshold with six digits, and one that these would call 0 as it is."""
    return f"{threshold:.6f}" if threshold >= 1e-6 or threshold == 0 else f"{threshold:.3g}"


def is_near_one(threshold: float) -> bool:
    """Tell whether a threshold leaves hardly any score to reject."""
    # Without the margin, 0.999 would lie outside by the rounding of 1 - 0.999.
    return 1 - threshold <= NEAR_ONE * (1 + 1e-9)


def _other_score(
    calibration: Calibration, parameters: MethodParameters, reference: str | None
) -> str | None:
    """Say how the calibrated score is another than this inspection's; None if it is the same."""
    if calibration.image_scoring != parameters.image_scoring:
        return (
            f"with image_scoring={calibration.image_scoring} and does not hold with"
            f" image_scoring={parameters.image_scoring}"
        )
    if calibration.reference != reference:
        return (
            f"with {_bank_text(calibration.reference)} and does not hold with"
            f" {_bank_text(reference)}"
        )
    if reference is not None:
        for name in _CHANGE_SCORES:
            now = getattr(parameters, name)
            then = (calibration.parameters or {}).get(name, now)
            if then != now:
                return f"with {name}={then} and does not hold with {name}={now}"
    return None


def _bank_text(digest: str | None) -> str:
    return "no reference bank" if digest is None else f"the reference bank {digest[:12]}"


def _differences(
    calibration: Calibration, parameters: MethodParameters, backend: str | None
) -> Iterator[str]:
    """Yield what differs from the calibration; what that did not record is not known."""
    if None not in {backend, calibration.backend} and backend != calibration.backend:
        yield f"backend {calibration.backend}, now {backend}"
    recorded = calibration.parameters
    # The cascade is not recorded by name; what another refiner alone reads says nothing here.
    recorded = {"refiner": "cascade", **recorded} if recorded else {}
    values = {"refiner": parameters.refiner, **parameters.relevant}
    for name, value in recorded.items():
        if calibration.reference is None and name.startswith(_OF_BANKS):
            continue
        now = values.get(name, value)
        if name not in _NOT_COMPARED and now != value:
            yield f"{name}={value}, now {now}"
