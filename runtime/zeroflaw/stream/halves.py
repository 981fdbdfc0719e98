"""An inspection in two halves, so that those of two frames can run side by side."""

from __future__ import annotations

from typing import Protocol

from zeroflaw.inspection import Inspection
from zeroflaw.pipeline.encoding import EncodedFrame
from zeroflaw.pipeline.intake import ImageOrPath
from zeroflaw_engines.image_files.frame import ChannelOrder


class TwoHalves(Protocol):
    """What a stream needs of an `Inspector`; see its `encode_frame` and `decode_frame`."""

    def encode_frame(
        self,
        image: ImageOrPath,
        *,
        product: str | None = None,
        channel_order: ChannelOrder = "rgb",
        white_level: float | None = None,
    ) -> EncodedFrame:
        """The first half of an inspection."""

    def decode_frame(self, encoded: EncodedFrame, *, trace: bool = False) -> Inspection:
        """The second half."""
