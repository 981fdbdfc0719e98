"""Frames: whatever a camera gives, as RGB uint8. The conversion is the engines package's."""

from zeroflaw_engines.image_files.frame import MAX_FRAME_PIXELS, ChannelOrder, Frame, rgb_frame

__all__ = ["MAX_FRAME_PIXELS", "ChannelOrder", "Frame", "rgb_frame"]
