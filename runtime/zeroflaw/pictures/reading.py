"""Image files as frames to inspect, all of a run read alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zeroflaw.pictures.images import Orientation, file_frame, read_image_file
from zeroflaw_engines.image_files.frame import MAX_FRAME_PIXELS, Frame


@dataclass(frozen=True, eq=False)
class ReadPicture:
    """An image file in memory.

    Attributes:
        frame: uint8 [H, W, 3], RGB.
        warnings: What is to be known of the file.
    """

    frame: Frame
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """How image files are read.

    Attributes:
        white_level: The value that is white, against what the files say; None takes theirs.
        orientation: Whether pixels are turned as an orientation tag says.
        max_pixels: Larger images are refused, height x width.
    """

    white_level: float | None = None
    orientation: Orientation = "as_stored"
    max_pixels: int = MAX_FRAME_PIXELS

    def read(self, source: Path) -> ReadPicture:
        """Read a file.

        Raises:
            ImageFileError: It cannot be read completely.
            FrameError: It is larger than is accepted.
        """
        file = read_image_file(
            source,
            white_level=self.white_level,
            orientation=self.orientation,
            max_pixels=self.max_pixels,
        )
        return ReadPicture(file_frame(file, max_pixels=self.max_pixels), file.warnings)
