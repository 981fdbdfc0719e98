"""What the samples of a TIFF page mean: photometric interpretation, palettes, white level."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from zeroflaw_engines.image_files.ink import rgb_of_cmyk
from zeroflaw_engines.image_files.picture import Picture
from zeroflaw_engines.image_files.refusals import damaged, unsupported
from zeroflaw_engines.image_files.white_level import white_of_largest_value

if TYPE_CHECKING:
    from tifffile import TiffPage

_WHITE_IS_ZERO: Final = 0
_BLACK_IS_ZERO: Final = 1
_RGB: Final = 2
_PALETTE: Final = 3
_SEPARATED: Final = 5
_YCBCR: Final = 6
_COLOURS: Final = {
    _WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _SEPARATED: 4, _YCBCR: 3,
}  # fmt: skip
_MAX_SAMPLE_VALUE: Final = 281
_S_MAX_SAMPLE_VALUE: Final = 341
_WHITE_LEVEL: Final = 50717
_INK_SET: Final = 332
_REFERENCE_BLACK_WHITE: Final = 532
_FULL_RANGE: Final = (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)
_JPEG: Final = 7
_ALPHA: Final = frozenset({1, 2})
_OME_BITS: Final = re.compile(r"<Pixels\b[^>]*\bSignificantBits=\"(\d+)\"")


def picture_of_samples(samples: NDArray[Any], page: TiffPage, name: str) -> Picture:
    """Make a picture of the decoded samples of a page.

    Args:
        samples: [H, W, samples].

    Raises:
        ImageFileError: The colours are none that can be converted faithfully.
    """
    photometric = int(page.photometric)
    colours = _COLOURS.get(photometric)
    if colours is None:
        kind = getattr(page.photometric, "name", photometric)
        raise unsupported(name, f"has colours of the kind {kind}", "save it as grey or as RGB")
    if samples.shape[2] < colours:
        raise damaged(name, f"it has {samples.shape[2]} samples a pixel, not {colours}")
    if samples.shape[2] > colours + 1:
        raise unsupported(
            name,
            f"has {samples.shape[2]} samples a pixel, and does not say which are the picture",
            "save the channels to be inspected as grey or as RGB",
        )
    extra = tuple(page.extrasamples)
    keep_alpha = colours == 3 and samples.shape[2] > 3 and extra and int(extra[0]) in _ALPHA
    samples = samples[:, :, : colours + 1] if keep_alpha else samples[:, :, :colours]
    if photometric == _PALETTE:
        return _of_palette(samples[:, :, 0], page, name)
    if photometric == _SEPARATED:
        return Picture(_of_ink(samples, page, name))
    if photometric == _YCBCR and page.compression != _JPEG:
        return Picture(_of_ycbcr(samples, page, name))
    pixels = np.ascontiguousarray(samples if colours == 3 else samples[:, :, 0])
    pixels, white_level, warnings = _white_level(pixels, page)
    return Picture(
        pixels,
        white_level=white_level,
        white_is_zero=photometric == _WHITE_IS_ZERO,
        warnings=warnings,
    )


def _white_level(
    pixels: NDArray[Any], page: TiffPage
) -> tuple[NDArray[Any], float | None, tuple[str, ...]]:
    """Return pixels (of few bits, spread over 0 to 255), their white level, and warnings."""
    bits = int(page.tags.valueof(258, (1,))[0]) if _several(page) else _bits(page)
    if pixels.dtype == np.bool_ or bits in (1, 2, 4):
        return pixels.astype(np.uint8) * np.uint8(255 // ((1 << bits) - 1)), None, ()
    if pixels.dtype in (np.uint8, np.uint16) and bits < pixels.dtype.itemsize * 8:
        return pixels, float((1 << bits) - 1), ()
    for tag in (_WHITE_LEVEL, _S_MAX_SAMPLE_VALUE, _MAX_SAMPLE_VALUE):
        value = page.tags.valueof(tag)
        values = set(value) if isinstance(value, tuple) else {value}
        if len(values) == 1 and isinstance(one := values.pop(), int | float) and one > 0:
            return pixels, *white_of_largest_value(pixels, one)
    described = _OME_BITS.search(page.description or "")
    if described:
        return pixels, *white_of_largest_value(pixels, (1 << int(described[1])) - 1)
    return pixels, None, ()


def _several(page: TiffPage) -> bool:
    return isinstance(page.tags.valueof(258), tuple)


def _bits(page: TiffPage) -> int:
    """Return the bits of a sample as the file names them, whatever container they are stored in."""
    value = page.tags.valueof(258, 1)
    return int(value)


def _of_palette(index: NDArray[Any], page: TiffPage, name: str) -> Picture:
    palette = page.colormap
    if palette is None or palette.ndim != 2 or int(index.max()) >= palette.shape[1]:
        raise damaged(name, "its palette does not have the colours that its pixels name")
    # Palettes are 16-bit; those of 8-bit colours hold them times 257, times 256, or as they are.
    if not np.any(palette % 257):
        palette = (palette // 257).astype(np.uint8)
    elif not np.any(palette & 255):
        palette = (palette >> 8).astype(np.uint8)
    elif int(palette.max()) < 256:
        palette = palette.astype(np.uint8)
    return Picture(np.ascontiguousarray(palette.T[index]))


def _of_ink(samples: NDArray[Any], page: TiffPage, name: str) -> NDArray[Any]:
    if samples.dtype not in (np.uint8, np.uint16) or page.tags.valueof(_INK_SET, 1) != 1:
        raise unsupported(name, "has inks that are not CMYK of 8 or 16 bits", "save it as RGB")
    return rgb_of_cmyk(samples)


def _of_ycbcr(samples: NDArray[Any], page: TiffPage, name: str) -> NDArray[Any]:
    from PIL import Image

    ends = page.tags.valueof(_REFERENCE_BLACK_WHITE)
    if ends is not None and len(ends) == 12:
        ends = tuple(top / bottom for top, bottom in zip(ends[::2], ends[1::2], strict=True))
    if samples.dtype != np.uint8 or (ends is not None and tuple(ends) != _FULL_RANGE):
        raise unsupported(name, "has YCbCr colours of reduced range", "save it as RGB")
    return np.asarray(Image.fromarray(samples[:, :, :3], "YCbCr").convert("RGB"))
