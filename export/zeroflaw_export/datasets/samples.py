"""Samples of a data set: an image, whether it is good, and the mask of its defects."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zeroflaw_engines.errors import DatasetError, ImageFileError
from zeroflaw_engines.files import sha256_of_file
from zeroflaw_engines.image_files import ImageFile, file_frame, read_image_file

# VisA has at most nine kinds of defect in a class; a grey or JPEG-damaged mask has far more values.
_MAX_LABELS: Final = 32


@dataclass(frozen=True)
class Sample:
    """One image and its truth.

    Attributes:
        image: The image file.
        mask: The mask file; None for a good image.
        anomalous: Whether the image shows a defect.
        defect: "good", or the kind of defect ("anomaly" where the layout has no kinds).
        labelled_mask: Whether the mask holds the number of the kind of defect (VisA: 1, 2, …)
            rather than one value for all of them.
        white_level: The value that is white in the image, against what its file says.
    """

    image: Path
    mask: Path | None
    anomalous: bool
    defect: str
    labelled_mask: bool = False
    white_level: float | None = None


def read_sample_image(sample: Sample) -> NDArray[np.uint8]:
    """Read the frame of a sample, as stations read a file.

    Orientation tags are applied neither to images nor to masks.

    Returns:
        uint8 RGB [H, W, 3].

    Raises:
        DatasetError: The file is missing, damaged, or not an image that can be read faithfully.
    """
    return file_frame(_read(sample.image, sample.white_level))


def sample_image_digest(sample: Sample) -> str:
    """Identify the frame that `read_sample_image` gives, without decoding it.

    Returns:
        sha256 of the image file; with a white level, of that and the level.

    Raises:
        OSError: The file cannot be read.
    """
    digest = sha256_of_file(sample.image)
    if sample.white_level is None:
        return digest
    return hashlib.sha256(f"{digest} white {sample.white_level!r}".encode()).hexdigest()


def read_sample_mask(sample: Sample, image_size: tuple[int, int]) -> NDArray[np.bool_]:
    """Read the truth of a sample.

    Args:
        image_size: (height, width) of its image, px.

    Returns:
        bool [H, W], True where the mask is above 0; all False for a good sample.

    Raises:
        DatasetError: The mask cannot be read, is not of the image's size, is not binary (more
            than two values, or two without 0), or shows nothing although the sample is defective.
    """
    if sample.mask is None:
        return np.zeros(image_size, np.bool_)
    values = mask_values(sample.mask, labelled=sample.labelled_mask)
    if values.shape != image_size:
        raise DatasetError(
            f"the mask {sample.mask} has {values.shape[1]}x{values.shape[0]} px, its image "
            f"{image_size[1]}x{image_size[0]} px",
            "give the mask the size of the image",
        )
    mask: NDArray[np.bool_] = values > 0
    if sample.anomalous and not mask.any():
        raise DatasetError(
            f"the mask {sample.mask} is empty although its image is listed as defective",
            "draw the defect, or list the image as good",
        )
    return mask


def mask_at_size(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Resize the truth to the size at which maps are scored, as APRIL-GAN does.

    True becomes 255; PIL resizes bilinearly (with antialiasing) to size x size without keeping
    the aspect; divided by 255, what exceeds 0.5 is True (dataset.py:52-56, test.py:122-126,155).

    Args:
        mask: bool [H, W].
        size: Side of the result, px.

    Returns:
        bool [size, size]. A defect of a few pixels may vanish, as it does there.
    """
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    resized = picture.resize((size, size), Image.Resampling.BILINEAR)
    above_half: NDArray[np.bool_] = np.asarray(resized) > 127
    return above_half


def mask_values(path: Path, *, labelled: bool) -> NDArray[Any]:
    """Read the values of a mask, and check that they are a mask's.

    Args:
        labelled: Whether several values above 0 are allowed.

    Returns:
        Unsigned or signed integers, [H, W]; 0 is good. Colours are read as their luminance.

    Raises:
        DatasetError: The mask cannot be read or is not binary.
    """
    values = _grey(_read(path, None).pixels)
    distinct = np.unique(values)
    if len(distinct) > (_MAX_LABELS if labelled else 2):
        raise DatasetError(
            f"the mask {path} is not binary: it has {len(distinct)} different values",
            "save it with 0 where good and 255 where defective, as PNG (JPEG blurs the edge)",
        )
    if len(distinct) > 1 and distinct[0] != 0:
        raise DatasetError(
            f"the mask {path} has values from {distinct[0]} to {distinct[-1]}, but none is 0",
            "save it with 0 where good and 255 where defective",
        )
    return values


def _grey(pixels: NDArray[Any]) -> NDArray[Any]:
    """Convert colours to their luminance, as Pillow weighs it; alpha is dropped."""
    if pixels.ndim == 2:
        return pixels
    red, green, blue = (pixels[:, :, n].astype(np.uint64) for n in range(3))
    luminance = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> np.uint64(16)
    return luminance.astype(pixels.dtype)


def _read(path: Path, white_level: float | None) -> ImageFile:
    try:
        return read_image_file(path, white_level=white_level)
    except ImageFileError as error:
        raise DatasetError(error.cause, error.remedy) from error
