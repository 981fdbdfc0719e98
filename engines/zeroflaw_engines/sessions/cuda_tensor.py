"""Outputs that stay in GPU memory, and how the host reads them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

import numpy as np

from zeroflaw_engines.sessions.cuda import Cuda, CudaStream
from zeroflaw_engines.sessions.cuda_memory import CudaMemory, CudaMemoryPool
from zeroflaw_engines.sessions.device_tensor import Tensor, offset_of

# Reads an array at an address of the GPU; given address, shape and dtype.
ReadArray = Callable[[int, tuple[int, ...], str], Tensor]


class CudaReader:
    """Copies tensors to the host on a stream of its own, beside what engines compute.

    What it reads must be there already: a session gives tensors away when their call has ended.

    Args:
        owner: Whose tensors it reads, for errors.
    """

    def __init__(self, cuda: Cuda, owner: str) -> None:
        self._stream = CudaStream(cuda, owner)
        self._pinned = CudaMemoryPool(cuda, "pinned")
        self._lock = threading.Lock()

    def read(self, address: int, shape: tuple[int, ...], dtype: str) -> Tensor:
        """Copy an array to host memory of its own.

        Raises:
            EngineError: CUDA failed.
        """
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        with self._lock, self._stream.work():
            block = self._pinned.take(size)
            # Not given back after an error: a copy may still write to it.
            self._stream.copy(block.address, address, size, "DeviceToHost")
            self._stream.wait()
            values = block.array(shape, dtype).copy()
            self._pinned.give_back(block)
        return values

    def close(self) -> None:
        """Release the stream and the pinned memory."""
        with self._lock:
            self._pinned.close()
            self._stream.close()


class CudaTensor:
    """A tensor in GPU memory, or a part of it; see `DeviceTensor`.

    Args:
        block: Whose memory it is.
        shape: Sizes of all axes.
        dtype: NumPy dtype name.
        read: Copies an array of the GPU to the host.
        first: Bytes of the block before it.
        owner: The tensor that it is a part of: it keeps the memory from being used again.
    """

    def __init__(
        self,
        block: CudaMemory,
        shape: tuple[int, ...],
        dtype: str,
        read: ReadArray,
        *,
        first: int = 0,
        owner: CudaTensor | None = None,
    ) -> None:
        self.block = block
        self._read = read
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
        cls, pool: CudaMemoryPool, shape: tuple[int, ...], dtype: str, read: ReadArray
    ) -> CudaTensor:
        """Make a tensor whose memory goes back to the pool when it is garbage.

        Raises:
            EngineError: There is not enough memory.
        """
        block = pool.take(int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)
        tensor = cls(block, shape, dtype, read)
        weakref.finalize(tensor, pool.give_back, block).atexit = False
        return tensor

    @property
    def address(self) -> int:
        """In GPU memory."""
        return self.block.address + self._first

    @property
    def size(self) -> int:
        """Bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def numpy(self) -> Tensor:
        """Copy the values to host memory of their own; no call of an engine is waited for.

        Raises:
            EngineError: CUDA failed, or the session that kept it is closed.
        """
        return self._read(self.address, self.shape, self.dtype)

    def view(self, index: tuple[int, ...], shape: tuple[int, ...]) -> CudaTensor:
        """Return the part at some leading indices; see `DeviceTensor.view`."""
        first = self._first + offset_of(self.shape, index, shape) * np.dtype(self.dtype).itemsize
        return CudaTensor(
            self.block, shape, self.dtype, self._read, first=first, owner=self._owner or self
        )
