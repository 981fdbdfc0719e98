"""An inspection in two halves, so that those of two frames can run side by side."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray

from zeroflaw.inspection import Inspection
from zeroflaw.pipeline.encoding import EncodedFrame
from zeroflaw.pipeline.intake import INHERITED, Inherited
from zeroflaw_engines.image_files.frame import ChannelOrder


class TwoHalves(Protocol):
    """What a stream needs of an `Inspector`; see its `encode_frame` and `decode_frame`."""

    def encode_frame(
        self,
        image: NDArray[Any],
        *,
        product: str | None = None,
        channel_order: ChannelOrder | Inherited = INHERITED,
        white_level: float | Inherited | None = INHERITED,
    ) -> EncodedFrame:
        """Do the first half of an inspection."""

    def decode_frame(self, encoded: EncodedFrame, *, trace: bool = False) -> Inspection:
        """Do the second half."""
