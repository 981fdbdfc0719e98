"""What an Inspector is given, a camera's array or an image file, as a frame of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from zeroflaw.pictures.images import file_frame, read_image_file
from zeroflaw_engines import arguments
from zeroflaw_engines.errors import ArgumentError, FrameError, ZeroflawError
from zeroflaw_engines.image_files.frame import ChannelOrder, Frame, rgb_frame


class Inherited(Enum):
    """Stands for a setting that was left out; None is a white level of its own."""

    INHERITED = "inherited"

    def __repr__(self) -> str:
        return self.name


INHERITED: Final[Literal[Inherited.INHERITED]] = Inherited.INHERITED


@dataclass(frozen=True)
class CameraSettings:
    """How the arrays of a camera are read.

    A call's settings go before those of its stream, and these before those of the Inspector.

    Attributes:
        channel_order: Order of the colour channels, `rgb` or `bgr`; never guessed.
        white_level: Value that counts as white; None: the dtype's largest, 1.0 for floats.
    """

    channel_order: ChannelOrder | Inherited = INHERITED
    white_level: float | Inherited | None = INHERITED

    def require_valid(self, error: type[ZeroflawError] = ArgumentError) -> None:
        """Refuse settings before the first frame comes.

        Raises:
            ZeroflawError: The order is neither `rgb` nor `bgr`, or the level is no positive number.
        """
        if self.channel_order is not INHERITED:
            orders = get_args(ChannelOrder)
            arguments.choice("channel_order", self.channel_order, orders, error=error)
        if self.white_level is not INHERITED and self.white_level is not None:
            arguments.number("white_level", self.white_level, above=0, error=error)

    def over(self, outer: CameraSettings) -> CameraSettings:
        """Return these settings, with those of `outer` where one was left out."""
        return CameraSettings(
            outer.channel_order if self.channel_order is INHERITED else self.channel_order,
            outer.white_level if self.white_level is INHERITED else self.white_level,
        )


@dataclass(frozen=True, eq=False)
class TakenFrame:
    """A frame in memory that nobody else writes to.

    Attributes:
        frame: uint8 [H, W, 3], RGB.
        warnings: What a reader of the result must know of the file that it was read from.
    """

    frame: Frame
    warnings: tuple[str, ...] = ()


# Checks what was given, and takes it in.
Take = Callable[[], TakenFrame]


def taking(
    image: NDArray[Any] | str | Path,
    camera: CameraSettings,
    max_pixels: int,
    given: CameraSettings = CameraSettings(),
) -> Take:
    """Return what takes an array or an image file in, as `take_array` and `take_file` do."""
    if isinstance(image, str | Path):
        return partial(take_file, image, given, max_pixels)
    return partial(take_array, image, given, camera, max_pixels)


def take_array(
    image: NDArray[Any], given: CameraSettings, camera: CameraSettings, max_pixels: int
) -> TakenFrame:
    """Make a frame of a camera's array.

    Args:
        image: As `rgb_frame` takes it.
        max_pixels: Largest frame that is accepted, H * W.

    Raises:
        FrameError: The array is not a frame.
    """
    settings = given.over(camera).over(CameraSettings("rgb", None))
    frame = rgb_frame(
        image,
        channel_order=settings.channel_order,  # type: ignore[arg-type]  # none is left out
        white_level=settings.white_level,  # type: ignore[arg-type]
        max_pixels=max_pixels,
    )
    if np.may_share_memory(frame, image):
        # The caller may write into it again before the record's digest is asked for.
        frame = frame.copy()
    return TakenFrame(frame)


def take_file(path: str | Path, given: CameraSettings, max_pixels: int) -> TakenFrame:
    """Make a frame of an image file, with its pixels as they are stored.

    Args:
        path: The file. It says its own channel order and white level.
        given: A white level that came with it goes before what the file says.
        max_pixels: Largest frame that is accepted, H * W.

    Raises:
        FrameError: It was given with `bgr`.
        ImageFileError: It cannot be read completely.
    """
    if given.channel_order not in (INHERITED, "rgb"):
        raise FrameError(
            f"the channel order {given.channel_order!r} was given for the file {path}",
            "leave it out: an image file says its own",
        )
    white = None if given.white_level is INHERITED else given.white_level
    file = read_image_file(path, white_level=white, max_pixels=max_pixels)
    return TakenFrame(file_frame(file, max_pixels=max_pixels), file.warnings)
