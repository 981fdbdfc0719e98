"""Image files: one reader for everything that reads them, faithful or refused."""

from zeroflaw_engines.image_files.picture import ImageFile, Orientation
from zeroflaw_engines.image_files.reading import (
    FORMATS,
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    ImageFormat,
    read_image_file,
)

__all__ = [
    "FORMATS",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "ImageFile",
    "ImageFormat",
    "Orientation",
    "read_image_file",
]
