"""Memory that is used again from frame to frame."""

from __future__ import annotations

import threading

import numpy as np

from zeroflaw.pipeline.geometry import FloatArray


class Workspace(threading.local):
    """Float buffers by purpose, a set of its own for each thread.

    Fresh memory costs a page fault for every 4 KiB: for logits at the size of a 12 MP frame
    that is more than their computation.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, FloatArray] = {}

    def float32(self, purpose: str, shape: tuple[int, int]) -> FloatArray:
        """A float32 buffer of a shape; what it held for the same purpose before is lost."""
        buffer = self._buffers.get(purpose)
        if buffer is None or buffer.shape != shape:
            buffer = self._buffers[purpose] = np.empty(shape, np.float32)
        return buffer
