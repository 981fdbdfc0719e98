"""The frame that a benchmark inspects, as the file that a camera's software would write."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from zeroflaw.pictures.images import read_image
from zeroflaw_engines.errors import BenchmarkError
from zeroflaw_engines.image_files.frame import Frame, rgb_frame

_JPEG_QUALITY = 90


@dataclass(frozen=True)
class BenchFrame:
    """A frame and its file.

    Attributes:
        name: What it shows.
        path: The file; decoding it is the stage `decode`.
        pixels: uint8 [H, W, 3], RGB.
    """

    name: str
    path: Path
    pixels: Frame


def bench_frame(size: tuple[int, int], directory: Path, picture: Path | None = None) -> BenchFrame:
    """Write a picture, or scikit-image's photo of an astronaut, as a JPEG of a height and width.

    Raises:
        ImageFileError: The picture cannot be read.
    """
    source = data.astronaut() if picture is None else rgb_frame(read_image(picture))
    resized = Image.fromarray(np.ascontiguousarray(source)).resize(
        (size[1], size[0]), Image.Resampling.BICUBIC
    )
    buffer = io.BytesIO()
    resized.save(buffer, "jpeg", quality=_JPEG_QUALITY)
    path = directory / f"frame_{size[1]}x{size[0]}.jpg"
    path.write_bytes(buffer.getvalue())
    name = "skimage.data.astronaut" if picture is None else picture.name
    return BenchFrame(f"{name} at {size[1]}x{size[0]} px, JPEG", path, read_image(path))


def frame_size(text: str) -> tuple[int, int]:
    """Read height and width from a text WIDTHxHEIGHT.

    Raises:
        BenchmarkError: It is not one.
    """
    width, cross, height = text.partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise BenchmarkError(f"{text!r} is not a frame size", "say WIDTHxHEIGHT, as 1024x1024")
    return int(height), int(width)
