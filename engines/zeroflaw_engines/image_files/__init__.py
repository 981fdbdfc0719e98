"""Image files: one reader for everything that reads them, faithful or refused."""

from zeroflaw_engines.image_files.picture import ImageFile, Orientation
from zeroflaw_engines.image_files.reading import (
    FORMATS,
    IMAGE_SUFFIXES,
    ImageFormat,
    file_frame,
    read_image_file,
)

__all__ = [
    "FORMATS",
    "IMAGE_SUFFIXES",
    "ImageFile",
    "ImageFormat",
    "Orientation",
    "file_frame",
    "read_image_file",
]
