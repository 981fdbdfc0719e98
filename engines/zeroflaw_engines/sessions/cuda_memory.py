"""Memory of the GPU and pinned memory of the host, and the pools that it is taken from."""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

import numpy as np

from zeroflaw_engines.sessions.cuda import Cuda, release
from zeroflaw_engines.sessions.device_tensor import Tensor

MemoryKind = Literal["device", "pinned"]

_FUNCTIONS: Final[dict[MemoryKind, tuple[str, str]]] = {
    "device": ("cudaMalloc", "cudaFree"),
    "pinned": ("cudaMallocHost", "cudaFreeHost"),
}
# Pools hold blocks of these sizes and of powers of two above, so that they are few.
_SMALLEST: Final = 512


class CudaMemory:
    """A block of memory.

    Args:
        kind: `device`, or `pinned` memory of the host, which copies need.
        size: Bytes.

    Attributes:
        address: Of its first byte, aligned to 256 bytes.

    Raises:
        EngineError: There is not enough.
    """

    def __init__(self, cuda: Cuda, kind: MemoryKind, size: int) -> None:
        self._cuda = cuda
        self._free = _FUNCTIONS[kind][1]
        self.size = size
        self.address = int(cuda.call(_FUNCTIONS[kind][0], size))

    def array(self, shape: tuple[int, ...], dtype: str) -> Tensor:
        """Return pinned memory as an array, from its first byte on."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        memory: Any = (ctypes.c_byte * size).from_address(self.address)
        array: Tensor = np.frombuffer(memory, dtype).reshape(shape)
        return array

    def free(self) -> None:
        """Give it back; call it once.

        Raises:
            EngineError: CUDA failed.
        """
        self._cuda.call(self._free, self.address)


class CudaMemoryPool:
    """Blocks that are used again: allocation would stop the whole GPU.

    It keeps as many blocks of a size as were in use at once, and sizes are powers of two.
    """

    def __init__(self, cuda: Cuda, kind: MemoryKind) -> None:
        self._cuda = cuda
        self._kind: MemoryKind = kind
        self._idle: dict[int, list[CudaMemory]] = {}
        # Collecting garbage inside `take` may give a block back in the same thread.
        self._lock = threading.RLock()
        self._closed = False

    def take(self, size: int) -> CudaMemory:
        """Take a block of at least so many bytes, for one user.

        Raises:
            EngineError: There is not enough memory.
        """
        rounded = max(_SMALLEST, 1 << (size - 1).bit_length())
        with self._lock:
            waiting = self._idle.get(rounded)
            if waiting:
                return waiting.pop()
        return CudaMemory(self._cuda, self._kind, rounded)

    def give_back(self, block: CudaMemory) -> None:
        """Take a block back from its user; a finalizer may call it, on any thread."""
        with self._lock:
            if not self._closed:
                self._idle.setdefault(block.size, []).append(block)
                return
        _free_outside_captures(block)

    def close(self) -> None:
        """Free what no one uses; the rest is freed when it comes back."""
        with self._lock:
            self._closed = True
            blocks = [block for waiting in self._idle.values() for block in waiting]
            self._idle.clear()
        release("idle memory", [block.free for block in blocks])


# What threads that record a CUDA graph are not to free before it is recorded.
_thread = threading.local()
_postponed: deque[CudaMemory] = deque()


@contextmanager
def capture_of_this_thread() -> Iterator[None]:
    """Let no finalizer free memory on this thread while the block records a CUDA graph on it.

    CUDA would refuse it and give the whole graph up.
    """
    _thread.captures = True
    try:
        yield
    finally:
        _thread.captures = False
        while _postponed:
            release("memory", [_postponed.popleft().free])


def _free_outside_captures(block: CudaMemory) -> None:
    if getattr(_thread, "captures", False):
        _postponed.append(block)
    else:
        release("memory", [block.free])
