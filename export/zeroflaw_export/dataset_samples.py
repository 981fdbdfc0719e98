"""Samples of a data set: an image, whether it is good, and the mask of its defects."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from zeroflaw_engines.errors import DatasetError

_EIGHT_BIT: Final = frozenset({"1", "CMYK", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "YCbCr"})
_WHOLE_NUMBERS: Final = frozenset({"I", "I;16", "I;16B"})
# VisA has at most nine kinds of defect in a class; a grey or JPEG-damaged mask has far more values.
_MAX_LABELS: Final = 32


@dataclass(frozen=True)
class Sample:
    """One image and its truth.

    Attributes:
        image: The image file.
        mask: The mask file; None for a good image.
        anomalous: Whether the image shows a defect.
        defect: "good", or the kind of defect ("anomaly" where the layout does not tell).
        labelled_mask: Whether the mask holds the number of the kind of defect (VisA: 1, 2, …)
            rather than one value for all of them.
    """

    image: Path
    mask: Path | None
    anomalous: bool
    defect: str
    labelled_mask: bool = False


def read_sample_image(sample: Sample) -> NDArray[np.uint8]:
    """The pixels of a sample, as stored (EXIF rotation is not applied; nor is it to masks).

    Returns:
        uint8 RGB [H, W, 3].

    Raises:
        DatasetError: The file is missing, truncated, not an image, or has more than 8 bits.
    """
    return _pixels(sample.image, "RGB")


def read_sample_mask(sample: Sample, image_size: tuple[int, int]) -> NDArray[np.bool_]:
    """The truth of a sample.

    Args:
        sample: The sample.
        image_size: (height, width) of its image.

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
    """The truth at the size at which maps are scored, as APRIL-GAN makes it.

    True becomes 255; PIL resizes bilinearly (with antialiasing) to size x size without keeping
    the aspect; divided by 255, what exceeds 0.5 is True (dataset.py:52-56, test.py:122-126,155).

    Args:
        mask: bool [H, W].
        size: Side of the result.

    Returns:
        bool [size, size]. A defect of a few pixels may vanish, as it does there.
    """
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    resized = picture.resize((size, size), Image.Resampling.BILINEAR)
    above_half: NDArray[np.bool_] = np.asarray(resized) > 127
    return above_half


def mask_values(path: Path, *, labelled: bool) -> NDArray[Any]:
    """The values of a mask, checked to be a mask's.

    Args:
        path: The file.
        labelled: Whether several values above 0 are allowed.

    Returns:
        Unsigned or signed integers, [H, W]; 0 is good. Colours are read as their luminance.

    Raises:
        DatasetError: The mask cannot be read or is not binary.
    """
    values = _pixels(path, "L")
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


def _pixels(path: Path, mode: str) -> NDArray[Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                # Some cameras add a preview to their JPEG files; the photograph comes first.
                if getattr(picture, "n_frames", 1) > 1 and picture.format != "MPO":
                    raise DatasetError(
                        f"{path} has {picture.n_frames} pages",  # type: ignore[attr-defined]
                        "save each page as a file of its own",
                    )
                if mode == "L" and picture.mode in _WHOLE_NUMBERS:
                    return np.asarray(picture)
                if picture.mode not in _EIGHT_BIT:
                    raise DatasetError(
                        f"{path} has pixels of the kind {picture.mode!r}",
                        "save it as 8-bit grey or RGB",
                    )
                return np.asarray(picture.convert(mode))
    except UnidentifiedImageError as error:
        raise DatasetError(
            f"{path} is not an image, whatever its name says", "check how the file was written"
        ) from error
    except Image.DecompressionBombError as error:
        raise DatasetError(f"{path} is too large: {error}", "use tiles of it") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise DatasetError(
            f"{path} cannot be read: {error}", "check that the file is there and complete"
        ) from error
