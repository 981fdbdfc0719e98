"""Outputs that stay in GPU memory, and the pool that their memory comes from."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

import numpy as np

from zeroflaw_engines.sessions.cuda import Cuda, CudaBuffer
from zeroflaw_engines.sessions.device_tensor import Tensor, offset_of


class CudaMemoryPool:
    """Buffers that are used again: allocation would stop the whole GPU."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._free: dict[int, list[CudaBuffer]] = {}
        # Collecting garbage inside `take` may give a buffer back in the same thread.
        self._lock = threading.RLock()
        self._closed = False

    def take(self, size: int) -> CudaBuffer:
        """Take a buffer of some bytes, for one user."""
        with self._lock:
            waiting = self._free.get(size)
            if waiting:
                return waiting.pop()
        return CudaBuffer(self._cuda, size)

    def give_back(self, buffer: CudaBuffer) -> None:
        """Take a buffer back from its user."""
        with self._lock:
            if not self._closed:
                self._free.setdefault(buffer.size, []).append(buffer)
                return
        buffer.free()

    def close(self) -> None:
        """Free what no one uses; the rest is freed when it comes back."""
        with self._lock:
            self._closed = True
            buffers = [buffer for waiting in self._free.values() for buffer in waiting]
            self._free.clear()
        for buffer in buffers:
            buffer.free()


class CudaTensor:
    """A tensor in GPU memory, or a part of it; see `DeviceTensor`.

    Args:
        shape: Sizes of all axes.
        dtype: NumPy dtype name.
        buffer: Whose memory it is.
        download: Copies some bytes, from an offset on, to the buffer's pinned memory and waits.
        first: Bytes of the buffer before it.
        owner: The tensor that it is a part of: it keeps the memory from being used again.
    """

    def __init__(
        self,
        buffer: CudaBuffer,
        shape: tuple[int, ...],
        dtype: str,
        download: Callable[[CudaBuffer, int, int], None],
        *,
        first: int = 0,
        owner: CudaTensor | None = None,
    ) -> None:
        self.buffer = buffer
        self._download = download
        self._first = first
        self._owner = owner
        self.shape = shape
        self.dtype = dtype

    @property
    def is_on_host(self) -> bool:
        """False: its memory is the GPU's."""
        return False

    @classmethod
    def from_pool(
        cls,
        pool: CudaMemoryPool,
        shape: tuple[int, ...],
        dtype: str,
        download: Callable[[CudaBuffer, int, int], None],
    ) -> CudaTensor:
        """Make a tensor whose memory goes back to the pool when it is garbage."""
        buffer = pool.take(int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)
        tensor = cls(buffer, shape, dtype, download)
        weakref.finalize(tensor, pool.give_back, buffer).atexit = False
        return tensor

    @property
    def address(self) -> int:
        """In GPU memory."""
        return self.buffer.device + self._first

    @property
    def size(self) -> int:
        """Bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def numpy(self) -> Tensor:
        """Copy the values to host memory of their own."""
        self._download(self.buffer, self._first, self.size)
        return self.buffer.host(self.shape, self.dtype, self._first).copy()

    def view(self, index: tuple[int, ...], shape: tuple[int, ...]) -> CudaTensor:
        """Return the part at some leading indices; see `DeviceTensor.view`."""
        first = self._first + offset_of(self.shape, index, shape) * np.dtype(self.dtype).itemsize
        return CudaTensor(
            self.buffer, shape, self.dtype, self._download, first=first, owner=self._owner or self
        )
