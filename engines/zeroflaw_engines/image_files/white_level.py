"""Which value is white: what files say of it, and what follows for their number type."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from zeroflaw_engines.errors import ImageFileError
from zeroflaw_engines.image_files.refusals import unsupported

_ASK: Final = "say which value is white with --white-level, or save it as 8- or 16-bit"
_DEEPEST: Final = 65535


def white_of_significant_bits(pixels: NDArray[Any], bits: int, depth: int) -> float | None:
    """Return the white level of samples of which only some bits mean something.

    PNG wants such samples at the upper end of their range, where white is white already. Files
    whose samples lie at the lower end instead are known by values that cannot have been scaled
    up: none above 2^bits - 1, and some with low bits that scaling would have left zero.

    Args:
        pixels: uint8 or uint16.
        bits: How many bits the file calls significant.
        depth: Bits of a stored sample.

    Returns:
        2^bits - 1 for samples at the lower end, else None.
    """
    if not 0 < bits < depth:
        return None
    white = (1 << bits) - 1
    if int(pixels.max()) > white or not np.any(pixels & ((1 << (depth - bits)) - 1)):
        return None
    return float(white)


def white_of_largest_value(
    pixels: NDArray[Any], largest: float
) -> tuple[float | None, tuple[str, ...]]:
    """Return the white level by a tag that names the largest sample value, and a warning of it.

    By the standard, TIFF's MaxSampleValue is a statistic; cameras write the end of their range.
    Only an end of a range, 2^n - 1, is taken as white.

    Args:
        pixels: Of any number type.
        largest: The tag's value.
    """
    if pixels.dtype in (np.uint8, np.uint16) and largest == np.iinfo(pixels.dtype).max:
        return None, ()
    whole = int(largest)
    if whole != largest or whole < 1 or whole & (whole + 1):
        return None, (f"its MaxSampleValue {largest:g} is no end of a range and was not used",)
    if float(pixels.max()) > whole:
        return None, (f"its MaxSampleValue is {whole}, but there are values above it",)
    return float(whole), ()


def settled(
    pixels: NDArray[Any], white_level: float | None, name: str
) -> tuple[NDArray[Any], float | None]:
    """Settle pixels on a type that frames are made of.

    Args:
        pixels: Of any number type.
        white_level: As the caller or the file says; None for neither.

    Returns:
        uint8, uint16 or float32 pixels of the same values, and the white level; None where it is
        the largest of the type, or 1.0 for floats.

    Raises:
        ImageFileError: The type has no defined white and nobody says one, or values are outside
            what can be represented.
    """
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels, None if white_level == np.iinfo(pixels.dtype).max else white_level
    low, high = (float(pixels.min()), float(pixels.max())) if pixels.size else (0.0, 0.0)
    if np.issubdtype(pixels.dtype, np.floating):
        return _settled_floats(pixels, white_level, (low, high), name)
    if not np.issubdtype(pixels.dtype, np.integer):
        raise unsupported(name, f"has samples of the type {pixels.dtype}", _ASK)
    if white_level is None:
        raise unsupported(
            name, f"has samples of the type {pixels.dtype}, whose white is not defined", _ASK
        )
    if low < 0 or high > _DEEPEST or white_level > _DEEPEST:
        raise unsupported(
            name,
            f"has values from {low:g} to {high:g} with white at {white_level:g}, which 16 bits"
            " do not hold",
            "scale it to 16 bits, 0 black and 65535 white",
        )
    return pixels.astype(np.uint16), white_level


def _settled_floats(
    pixels: NDArray[Any], white_level: float | None, ends: tuple[float, float], name: str
) -> tuple[NDArray[np.float32], float | None]:
    white = 1.0 if white_level is None else white_level
    low, high = ends
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageFileError(
            f"{name} has values that are not finite", "check how the file was written"
        )
    if low < 0 or high > white:
        raise unsupported(
            name, f"has floats from {low:g} to {high:g}, outside black 0 and white {white:g}", _ASK
        )
    return pixels.astype(np.float32), None if white == 1.0 else white


def inverted(pixels: NDArray[Any], white_level: float | None) -> NDArray[Any]:
    """Turn samples of which 0 is white into samples of which 0 is black.

    Args:
        pixels: uint8, uint16 or float32, as `settled` gives them.
        white_level: As `settled` gives it; the value that is black in them.
    """
    if pixels.dtype == np.float32:
        white = np.float32(1.0 if white_level is None else white_level)
        return np.asarray(white - pixels)
    top = int(np.iinfo(pixels.dtype).max if white_level is None else white_level)
    return np.asarray(top - np.minimum(pixels, top), pixels.dtype)
