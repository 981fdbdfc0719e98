"""The photos that frames are made of: found, split by file, read, and cut to textures."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from zeroflaw_engines.errors import DatasetError
from zeroflaw_export.drawn_frames.noise import FloatArray, Rng, as_floats

PhotoSplit = Literal["train", "validation"]

_SUFFIXES: Final = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
# One photo in that many is kept for validation.
_VALIDATION_EVERY: Final = 20
_LARGEST_ZOOM: Final = 1.5
# A window of fewer grey levels than that shows nothing.
_LEAST_CONTRAST: Final = 4.0
# Most of a window is no black nothing, as beside a decal.
_DARK: Final = 14.0
_LEAST_LIT: Final = 0.6
_TRIES: Final = 8


@dataclass(frozen=True)
class Photos:
    """Photos of one split.

    Attributes:
        sources: The files of each source (a folder of photos), in sorted order.
        shares: How often each source is drawn from; their sum is 1.
    """

    sources: tuple[tuple[Path, ...], ...]
    shares: tuple[float, ...]

    def drawn(self, rng: Rng) -> NDArray[np.uint8]:
        """Draw a photo, uint8 [H, W, 3] RGB."""
        files = self.sources[int(rng.choice(len(self.sources), p=self.shares))]
        return read_photo(files[int(rng.integers(len(files)))])

    def texture(self, rng: Rng, size: int) -> FloatArray:
        """Draw a window of a photo that shows something, float32 [size, size, 3] in [0, 1]."""
        return self._cut(rng, texture_window, size)

    def whole(self, rng: Rng, size: int) -> FloatArray:
        """Draw a photo as it is that shows something, float32 [size, size, 3] in [0, 1]."""
        return self._cut(rng, whole_photo, size)

    def _cut(
        self, rng: Rng, cut: Callable[[Rng, NDArray[np.uint8], int], FloatArray], size: int
    ) -> FloatArray:
        for _ in range(_TRIES):
            window = cut(rng, self.drawn(rng), size)
            grey = window[::4, ::4].mean(-1) * 255
            lit = float((grey >= _DARK).mean())
            if float(grey.std()) >= _LEAST_CONTRAST and lit >= _LEAST_LIT:
                break
        return window


def find_photos(folder: Path, split: PhotoSplit) -> Photos:
    """Find the photos in `folder/SOURCE/`; the split depends on the name of a file alone.

    Small sources are drawn from more often than their number of files says: the share of a source
    grows with the root of that number.

    Raises:
        DatasetError: There are none.
    """
    sources: list[tuple[Path, ...]] = []
    for source in sorted(path for path in folder.glob("*") if path.is_dir()):
        files = (p for p in sorted(source.iterdir()) if p.suffix.lower() in _SUFFIXES)
        chosen = tuple(p for p in files if _split_of(source.name, p.name) == split)
        if chosen:
            sources.append(chosen)
    if not sources:
        raise DatasetError(
            f"{folder} has no photos for the split {split}",
            "put photos into folders below it, one folder for each source",
        )
    weights = np.sqrt([len(files) for files in sources])
    return Photos(tuple(sources), tuple((weights / weights.sum()).tolist()))


def _split_of(source: str, name: str) -> PhotoSplit:
    held_out = zlib.crc32(f"{source}/{name}".encode()) % _VALIDATION_EVERY == 0
    return "validation" if held_out else "train"


@lru_cache(maxsize=128)
def read_photo(path: Path) -> NDArray[np.uint8]:
    """Read a photo.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        DatasetError: The file cannot be read or is no image; it is named.
    """
    remedy = "fetch the photos again or take the file away"
    try:
        encoded = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}", remedy) from error
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB) if encoded.size else None
    if decoded is None:
        raise DatasetError(f"{path} is no image that OpenCV can decode", remedy)
    return np.asarray(decoded, np.uint8)


def texture_window(rng: Rng, photo: NDArray[np.uint8], size: int) -> FloatArray:
    """Cut a window of random scale, turned and mirrored; a photo that is too small is repeated.

    Args:
        photo: uint8 [H, W, 3].
        size: Side of the window, px.

    Returns:
        float32 [size, size, 3] in [0, 1].
    """
    short = min(photo.shape[:2])
    side = short * float(rng.uniform(0.25, 1.0))
    zoom = min(size / side, _LARGEST_ZOOM * float(rng.uniform(0.7, 1.0)))
    degrees = float(rng.uniform(0, 360)) if rng.random() < 0.4 else 90.0 * int(rng.integers(4))
    if zoom < 0.7:
        photo = np.asarray(
            cv2.resize(photo, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA), np.uint8
        )
        zoom = 1.0
    height, width = photo.shape[:2]
    reach = size / zoom / 2
    centre = [
        float(rng.uniform(min(reach, length / 2), max(length - reach, length / 2)))
        for length in (width, height)
    ]
    matrix = cv2.getRotationMatrix2D(centre, degrees, zoom)
    matrix[:, 2] = matrix[:, 2] + size / 2 - np.asarray(centre)
    if rng.random() < 0.5:
        matrix[0] = -matrix[0]
        matrix[0, 2] += size - 1
    border = cv2.BORDER_WRAP if _repeats(photo) else cv2.BORDER_REFLECT_101
    window = cv2.warpAffine(photo, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)
    return as_floats(window) / np.float32(255)


def whole_photo(rng: Rng, photo: NDArray[np.uint8], size: int) -> FloatArray:
    """Cut the largest square of a photo and fit it, float32 [size, size, 3] in [0, 1]."""
    height, width = photo.shape[:2]
    side = min(height, width)
    y, x = (int(rng.integers(length - side + 1)) for length in (height, width))
    square = photo[y : y + side, x : x + side]
    way = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    fitted = cv2.resize(square, (size, size), interpolation=way)
    if rng.random() < 0.5:
        fitted = fitted[:, ::-1]
    return as_floats(fitted) / np.float32(255)


def _repeats(photo: NDArray[np.uint8]) -> bool:
    """Tell whether opposite borders continue each other, as those of a tile do."""
    seams: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]] = (
        (photo[0], photo[-1]),
        (photo[:, 0], photo[:, -1]),
    )
    inside: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]] = (
        (photo[0], photo[1]),
        (photo[:, 0], photo[:, 1]),
    )
    return all(
        _difference(*seam) <= 1.3 * _difference(*step) + 1
        for seam, step in zip(seams, inside, strict=True)
    )


def _difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.abs(one.astype(np.int16) - other).mean())
