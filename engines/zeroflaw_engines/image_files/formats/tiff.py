"""TIFF: pages by tifffile, coded data by the strict decoders of this package or by imagecodecs."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from zeroflaw_engines.errors import ImageFileError
from zeroflaw_engines.image_files.formats.tiff_colours import picture_of_samples
from zeroflaw_engines.image_files.formats.tiff_segments import decoded_segments
from zeroflaw_engines.image_files.orientation import ORIENTATION_TAG, valid_orientation
from zeroflaw_engines.image_files.picture import Picture
from zeroflaw_engines.image_files.refusals import (
    damaged,
    require_size,
    several_pictures,
    unsupported,
)

if TYPE_CHECKING:
    from tifffile import TiffPage

_REDUCED: Final = 1
_TRANSPARENCY_MASK: Final = 4
# The old tag for the same: 2 is a reduced picture.
_OLD_SUBFILE_TYPE: Final = 255


def read_tiff(data: bytes, name: str, max_pixels: int) -> Picture:
    """Read the one full picture of a TIFF or BigTIFF file.

    Reduced copies, thumbnails and transparency masks beside it are left out.

    Returns:
        Samples as they are stored, and what the file says of their white level.

    Raises:
        ImageFileError: The file is damaged, has several full pictures, or is of a kind that
            cannot be read faithfully.
    """
    import tifffile

    with _complaints() as complaints:
        try:
            with tifffile.TiffFile(io.BytesIO(data), name=name) as file:
                page = _full_picture(list(file.pages), name)
                require_size(name, page.imagewidth, page.imagelength, max_pixels)
                samples, warnings = decoded_segments(page, data, name)
                picture = picture_of_samples(_together(samples), page, name)
                orientation = valid_orientation(page.tags.valueof(ORIENTATION_TAG, 1))
        except ImageFileError:
            raise
        except MemoryError:
            raise
        except Exception as error:
            raise damaged(name, f"its TIFF decoder says {str(error)!r}") from error
        if complaints:
            raise damaged(name, f"its TIFF decoder says {complaints[0]!r}")
    return Picture(
        picture.pixels,
        white_level=picture.white_level,
        white_is_zero=picture.white_is_zero,
        orientation=orientation,
        warnings=(*picture.warnings, *warnings),
    )


def _full_picture(pages: list[Any], name: str) -> TiffPage:
    """Find the only full picture among the pages of a file and the pages below them."""
    full: list[TiffPage] = []
    for page in (frame.aspage() for frame in pages):
        own = _is_full(page)
        full += [page] if own else []
        for below in page.pages or ():
            child = below.aspage()
            copy = own and child.imagewidth < page.imagewidth
            copy = copy and child.imagelength < page.imagelength
            full += [child] if _is_full(child) and not copy else []
    if not full:
        raise unsupported(name, "holds no full picture, only reduced ones", "save that as PNG")
    count = len(full) * full[0].imagedepth
    if count > 1:
        raise several_pictures(name, count)
    return full[0]


def _is_full(page: TiffPage) -> bool:
    return (
        not page.subfiletype & (_REDUCED | _TRANSPARENCY_MASK)
        and page.tags.valueof(_OLD_SUBFILE_TYPE, 1) != 2
    )


def _together(samples: NDArray[Any]) -> NDArray[Any]:
    """Rearrange [planes, H, W, samples of a plane] as [H, W, samples]."""
    if samples.shape[0] == 1:
        one: NDArray[Any] = samples[0]
        return one
    return np.ascontiguousarray(np.moveaxis(samples[..., 0], 0, -1))


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """Collect what tifffile logs in this thread: it reads on where a tag is damaged."""
    messages: list[str] = []
    thread = threading.get_ident()

    class _Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread:
                messages.append(record.getMessage())

    logger, collector = logging.getLogger("tifffile"), _Collector(logging.WARNING)
    logger.addHandler(collector)
    try:
        yield messages
    finally:
        logger.removeHandler(collector)
