"""Which decision threshold applies to a product."""

from __future__ import annotations

from zeroflaw_engines.manifest import Product
from zeroflaw_engines.parameters import MethodParameters


def decision_threshold(
    name: str, product: Product, parameters: MethodParameters
) -> tuple[float, tuple[str, ...]]:
    """The image score at and above which frames of a product are rejected.

    A calibrated threshold lies on the scale of one kind of image score. It says nothing about
    another kind, so that it is set aside there, and the warning says so.

    Args:
        name: The product's name, for the warning.
        product: Its entry in the manifest.
        parameters: `image_scoring` and `decision_threshold`.

    Returns:
        The threshold, in [0, 1], and what a reader of the result must know about it.
    """
    calibration = product.calibration
    if calibration and calibration.image_scoring != parameters.image_scoring:
        void = (
            f"the threshold of {name!r} was calibrated with image_scoring="
            f"{calibration.image_scoring} and does not hold with image_scoring="
            f"{parameters.image_scoring}: decision_threshold={parameters.decision_threshold:g} is"
            " applied instead"
        )
        return parameters.decision_threshold, (void,)
    if product.threshold is None:
        return parameters.decision_threshold, ()
    return product.threshold, ()
