"""The errors of the readers, and the limits that they check before they decode."""

from __future__ import annotations

from zeroflaw_engines.errors import ImageFileError


def damaged(name: str, reason: str) -> ImageFileError:
    """Make the error for a file whose picture is not whole.

    Args:
        reason: What is wrong with it, as a part of a sentence.
    """
    return ImageFileError(
        f"{name} is damaged: {reason}",
        "copy the file again from where it was recorded, or record it again",
    )


def unsupported(name: str, what: str, remedy: str) -> ImageFileError:
    """Make the error for a file that is whole but that cannot be read faithfully."""
    return ImageFileError(f"{name} {what}", remedy)


def several_pictures(name: str, count: int) -> ImageFileError:
    """Make the error for a file with more than one full picture."""
    return ImageFileError(f"{name} has {count} pages", "save each page as a file of its own")


def require_size(name: str, width: int, height: int, max_pixels: int) -> None:
    """Check the size that a header names, before anything is decoded.

    Raises:
        ImageFileError: The picture is empty or larger than max_pixels.
    """
    if width <= 0 or height <= 0:
        raise damaged(name, f"its header says {width}x{height} px")
    if width * height > max_pixels:
        raise ImageFileError(
            f"{name} has {width}x{height} px, over the limit of {max_pixels / 1e6:.0f} MP",
            "cut it into tiles with an image editor and inspect those (the networks see at most"
            " 1024 px a side anyway), or read it in Python with a larger max_pixels",
        )
