"""JPEG, by libjpeg-turbo with every warning of it as an error."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroflaw_engines.image_files.formats.jpeg_markers import JpegStructure, jpeg_structure
from zeroflaw_engines.image_files.ink import rgb_of_cmyk
from zeroflaw_engines.image_files.orientation import exif_orientation
from zeroflaw_engines.image_files.picture import Picture
from zeroflaw_engines.image_files.refusals import damaged, require_size, unsupported
from zeroflaw_engines.image_files.zero_runs import rest_warning


def read_jpeg(data: bytes, name: str, max_pixels: int) -> Picture:
    """Read a JPEG file; of an MPO file the first picture, which is the photograph.

    Returns:
        uint8 [H, W], or RGB [H, W, 3]. CMYK comes as RGB.

    Raises:
        ImageFileError: The file is damaged, too large, or not 8-bit grey, colour or Adobe's CMYK.
    """
    structure = jpeg_structure(data, name)
    require_size(name, structure.width, structure.height, max_pixels)
    pixels = decode_jpeg(data[: structure.end], structure, name)
    rest = data[structure.end :]
    warnings = rest_warning(rest)
    if b"\xff\xd8\xff" in rest:
        warnings = ("it holds further pictures after the first one, which were not read",)
    return Picture(pixels, orientation=exif_orientation(structure.exif), warnings=warnings)


def decode_jpeg(data: bytes, structure: JpegStructure, name: str) -> NDArray[Any]:
    """Decode one JPEG stream whose structure has been checked.

    Returns:
        uint8 [H, W], or RGB [H, W, 3].

    Raises:
        ImageFileError: libjpeg-turbo has something to say about it, or it is of a kind that it
            does not decode strictly.
    """
    import simplejpeg

    channels = len(structure.components)
    if structure.precision != 8:
        raise unsupported(
            name,
            f"is a JPEG file of {structure.precision} bits",
            "save it as a 16-bit PNG or TIFF file",
        )
    if channels not in (1, 3, 4) or (channels == 4 and not structure.adobe):
        raise unsupported(
            name,
            f"is a JPEG file of {channels} channels that does not say which colours they are",
            "save it as grey or RGB",
        )
    space = {1: "GRAY", 3: "RGB", 4: "CMYK"}[channels]
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace=space, strict=True)
    except ValueError as error:
        raise damaged(name, f"its JPEG decoder says {str(error)!r}") from error
    if channels == 1:
        return pixels[:, :, 0]
    # Adobe stores CMYK inverted: 255 is no ink.
    return rgb_of_cmyk(255 - pixels) if channels == 4 else pixels
