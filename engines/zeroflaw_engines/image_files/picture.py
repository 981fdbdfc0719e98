"""What a reader of image files gives back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Orientation = Literal["as_stored", "apply"]


@dataclass(frozen=True)
class Picture:
    """The one picture of a file, as its decoder gives it.

    Attributes:
        pixels: [H, W] grey, [H, W, 3] RGB or [H, W, 4] RGB and alpha, of any number type; values
            as the file has them, without scaling.
        white_level: The value that the file calls white; None where it is the largest of the
            number type (1.0 for floats), or where the type has no defined white.
        white_is_zero: Whether the samples are to be subtracted from the white level.
        orientation: EXIF orientation 1 to 8; 1 where the file has none.
        warnings: What a user must know of the file, each without the file's name.
    """

    pixels: NDArray[Any]
    white_level: float | None = None
    white_is_zero: bool = False
    orientation: int = 1
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageFile:
    """An image file that was read completely.

    Attributes:
        format: Name of the format that its content has, as "JPEG".
        pixels: uint8, uint16, or float32 (not negative, at most the white level); [H, W] grey,
            [H, W, 3] RGB or [H, W, 4] RGB with alpha. Values as the file has them.
        white_level: The value that is white, where the file (or the caller) says one; None where
            it is the largest of the number type, 1.0 for floats. `rgb_frame` takes it.
        orientation_tag: EXIF orientation 1 to 8 that the file carries; 1 where it carries none.
        orientation: "as_stored", or "apply" where the pixels were turned as the tag says.
        warnings: What its user must know, each with the file's name.
    """

    path: Path
    format: str
    pixels: NDArray[Any]
    white_level: float | None
    orientation_tag: int
    orientation: Orientation
    warnings: tuple[str, ...]

    def full_range_pixels(self) -> NDArray[Any]:
        """Scale the pixels so that white is the largest value of their type (1.0 for floats)."""
        top = _largest(self.pixels.dtype)
        if self.white_level is None or self.white_level == top:
            return self.pixels
        if self.pixels.dtype == np.float32:
            return self.pixels / np.float32(self.white_level)
        levels = np.arange(int(top) + 1, dtype=np.float64) * (top / self.white_level)
        table = np.minimum(np.floor(levels + 0.5), top).astype(self.pixels.dtype)
        return np.asarray(table[self.pixels])


def _largest(dtype: np.dtype[Any]) -> float:
    return 1.0 if dtype == np.float32 else float(np.iinfo(dtype).max)
