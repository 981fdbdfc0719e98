"""CUDA's runtime API through `cuda.bindings`: errors in place of status codes, and the memory.

Unverified: there was no GPU to run it on. Its calls are checked against the signatures of the
real bindings.
"""

from __future__ import annotations

import ctypes
import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from zeroflaw_engines.errors import BackendUnavailableError, EngineError
from zeroflaw_engines.machine import Gpu, no_such_gpu
from zeroflaw_engines.sessions.device_tensor import Tensor

_BINDINGS_REMEDY = "pip install 'zeroflaw[tensorrt-rtx]'"
_DRIVER_REMEDY = (
    "install the NVIDIA driver of this GPU and restart; `nvidia-smi` and `zeroflaw doctor` then"
    " show it (in a container, pass the GPU through)"
)


@dataclass(frozen=True)
class CudaGpu(Gpu):
    """One GPU, as CUDA's runtime sees it.

    Attributes:
        cuda: CUDA version that the driver offers, as `13.0`.
    """

    cuda: str


def load_cuda() -> Any:  # noqa: ANN401 - a module that is loaded lazily
    """Load the module `cuda.bindings.runtime`.

    Raises:
        BackendUnavailableError: It is not installed, or its libraries cannot be loaded.
    """
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(
            f"CUDA cannot be called: there is no Python module {error.name}", _BINDINGS_REMEDY
        ) from error
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendUnavailableError(
            f"CUDA's libraries cannot be loaded: {error}", _DRIVER_REMEDY
        ) from error


class Cuda:
    """CUDA on one GPU.

    Args:
        device: Number of the GPU.

    Raises:
        BackendUnavailableError: The bindings, the driver or the GPU are missing.
    """

    def __init__(self, device: int = 0) -> None:
        self.runtime = load_cuda()
        self._device = device
        status, count = self.runtime.cudaGetDeviceCount()
        errors = self.runtime.cudaError_t
        if status == errors.cudaErrorInsufficientDriver:
            raise BackendUnavailableError(
                "there is no NVIDIA driver, or one that is too old for this CUDA", _DRIVER_REMEDY
            )
        if status == errors.cudaErrorNoDevice or (status == errors.cudaSuccess and not count):
            raise BackendUnavailableError("this machine has no NVIDIA GPU", _DRIVER_REMEDY)
        if status != errors.cudaSuccess:
            raise BackendUnavailableError(
                f"CUDA cannot start: {self._name_of(status)}", _DRIVER_REMEDY
            )
        if not 0 <= device < count:
            raise BackendUnavailableError(*no_such_gpu(device, count))

    def call(self, function: str, *arguments: object) -> Any:  # noqa: ANN401 - CUDA's own types
        """Call a function of the runtime API.

        Returns:
            What it gives beside its status: nothing, a value, or a tuple.

        Raises:
            EngineError: The status is not success.
        """
        status, *values = getattr(self.runtime, function)(*arguments)
        if status != self.runtime.cudaError_t.cudaSuccess:
            raise EngineError(
                f"{function} failed: {self._name_of(status)}",
                "restart this process: after most CUDA errors it can use the GPU no more"
                if "MemoryAllocation" not in str(status)
                else "free device memory: close other programs on this GPU",
            )
        return values[0] if len(values) == 1 else tuple(values) or None

    def use(self) -> None:
        """Make the GPU that of the calling thread."""
        self.call("cudaSetDevice", self._device)

    def gpu(self) -> CudaGpu:
        """Ask which GPU it is."""
        self.use()
        properties = self.call("cudaGetDeviceProperties", self._device)
        version = int(self.call("cudaDriverGetVersion"))
        return CudaGpu(
            name=properties.name.decode(),
            architecture=f"sm{properties.major}{properties.minor}",
            cuda=f"{version // 1000}.{version % 1000 // 10}",
        )

    def used_memory(self) -> int:
        """Return the device memory in use by all processes, bytes."""
        self.use()
        free, total = self.call("cudaMemGetInfo")
        return int(total) - int(free)

    def new_stream(self) -> Any:  # noqa: ANN401 - as above
        """Make a stream that does not wait for the default one."""
        return self.call("cudaStreamCreateWithFlags", self.runtime.cudaStreamNonBlocking)

    def new_event(self) -> Any:  # noqa: ANN401 - as above
        """Make an event that a thread can wait for without spinning."""
        return self.call(
            "cudaEventCreateWithFlags",
            self.runtime.cudaEventBlockingSync | self.runtime.cudaEventDisableTiming,
        )

    def copy(self, target: int, source: int, size: int, kind: str, stream: object) -> None:
        """Copy bytes in the order of a stream.

        Args:
            kind: `HostToDevice`, `DeviceToHost` or `DeviceToDevice`.
        """
        kinds = self.runtime.cudaMemcpyKind
        kind_value = getattr(kinds, f"cudaMemcpy{kind}")
        self.call("cudaMemcpyAsync", target, source, size, kind_value, stream)

    def _name_of(self, status: Any) -> str:  # noqa: ANN401 - as above
        _, text = self.runtime.cudaGetErrorString(status)
        described = text.decode() if isinstance(text, bytes) else str(text)
        return f"{getattr(status, 'name', status)} ({described})"


def this_gpu(device: int = 0) -> Gpu | None:
    """Return a GPU of this machine; None if none answers.

    Args:
        device: Number of the GPU, as CUDA counts.

    Raises:
        BackendUnavailableError: There is none of that number, but for 0.
    """
    try:
        return Cuda(device).gpu()
    except BackendUnavailableError:
        if device:
            raise
        return None


class CudaBuffer:
    """Device memory and as much pinned host memory, for copies between the two.

    Args:
        size: Bytes of each.
    """

    def __init__(self, cuda: Cuda, size: int) -> None:
        self._cuda = cuda
        self.size = size
        self.device = int(cuda.call("cudaMalloc", size))
        try:
            self.pinned = int(cuda.call("cudaMallocHost", size))
        except EngineError:
            cuda.call("cudaFree", self.device)
            raise

    def host(self, shape: tuple[int, ...], dtype: str, offset: int = 0) -> Tensor:
        """Return the pinned memory from some byte on, as an array."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        memory: Any = (ctypes.c_byte * size).from_address(self.pinned + offset)
        array: Tensor = np.frombuffer(memory, dtype).reshape(shape)
        return array

    def free(self) -> None:
        """Give both back; call it once."""
        self._cuda.call("cudaFree", self.device)
        self._cuda.call("cudaFreeHost", self.pinned)
