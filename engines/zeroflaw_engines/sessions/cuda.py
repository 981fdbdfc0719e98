"""CUDA's runtime API through `cuda.bindings`: errors in place of status codes, and streams.

Unverified: there was no GPU to run it on. Its calls are checked against the signatures of the
real bindings.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from zeroflaw_engines.errors import BackendUnavailableError, EngineError
from zeroflaw_engines.machine import Gpu, no_such_gpu

_BINDINGS_REMEDY = "pip install 'zeroflaw[tensorrt-rtx]'"
_DRIVER_REMEDY = (
    "install the NVIDIA driver of this GPU and restart; `nvidia-smi` and `zeroflaw doctor` then"
    " show it (in a container, pass the GPU through)"
)

_log = logging.getLogger(__name__)


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
        errors = self.runtime.cudaError_t
        if status == errors.cudaErrorMemoryAllocation:
            # CUDA would report it once more to whoever asks for the last error.
            self.runtime.cudaGetLastError()
            raise EngineError(
                f"{function} failed: the GPU, or memory for its copies, is full"
                f" ({self._name_of(status)})",
                "free device memory: close other programs on this GPU",
            )
        if status != errors.cudaSuccess:
            raise EngineError(
                f"{function} failed: {self._name_of(status)}",
                "restart this process: after most CUDA errors it can use the GPU no more",
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


class CudaStream:
    """A stream beside the default one, and an event with which a thread waits without spinning.

    Args:
        owner: Whose work goes through it, for errors.

    Raises:
        EngineError: CUDA cannot make it.
    """

    def __init__(self, cuda: Cuda, owner: str) -> None:
        self._cuda = cuda
        self._owner = owner
        self._fault: str | None = None
        cuda.use()
        self.stream: Any = cuda.call(
            "cudaStreamCreateWithFlags", cuda.runtime.cudaStreamNonBlocking
        )
        try:
            self._done: Any = cuda.new_event()
        except EngineError:
            release("a stream", [lambda: cuda.call("cudaStreamDestroy", self.stream)])
            raise

    @property
    def handle(self) -> int:
        """The stream as other libraries take it."""
        return native_handle(self.stream)

    def copy(self, target: int, source: int, size: int, kind: str) -> None:
        """Copy bytes in the order of the stream; see `Cuda.copy`."""
        self._cuda.copy(target, source, size, kind, self.stream)

    def wait(self) -> None:
        """Wait without spinning: host threads have other work on two cores."""
        self._cuda.call("cudaEventRecord", self._done, self.stream)
        self._cuda.call("cudaEventSynchronize", self._done)

    @contextmanager
    def work(self) -> Iterator[None]:
        """Make the GPU that of the thread, and leave nothing in flight if the block fails.

        Copies that go on after an error would read and write memory that others have by then. If
        the stream cannot even be waited for, it takes no more work.

        Raises:
            EngineError: An earlier block failed so.
        """
        if self._fault is not None:
            raise EngineError(
                f"{self._owner} cannot be used any more since {self._fault}",
                "restart this process: after most CUDA errors it can use the GPU no more",
            )
        self._cuda.use()
        try:
            yield
        except BaseException as error:
            try:
                self._cuda.call("cudaStreamSynchronize", self.stream)
            except EngineError as lasting:
                self._fault = error.cause if isinstance(error, EngineError) else lasting.cause
                _log.error("%s cannot be used any more: %s", self._owner, self._fault)
            raise

    def close(self) -> None:
        """Release both, as far as CUDA lets it; see `release`."""
        release(
            f"the stream of {self._owner}",
            [
                lambda: self._cuda.call("cudaEventDestroy", self._done),
                lambda: self._cuda.call("cudaStreamDestroy", self.stream),
            ],
        )


def native_handle(thing: Any) -> int:  # noqa: ANN401 - CUDA's own types
    """Return the address of a stream or event, as other libraries take it."""
    utils = importlib.import_module("cuda.bindings.utils")
    return int(utils.get_cuda_native_handle(thing))


def release(what: str, steps: Iterable[Callable[[], object]]) -> None:
    """Take every step of a release, whatever the ones before did; what fails is logged once.

    After a lasting CUDA error each of them fails, and the process ends soon: no error of the
    release may hide the first one, and none may keep the rest from being released.

    Args:
        what: That is released, for the log.
    """
    first: Exception | None = None
    failed = 0
    for step in steps:
        try:
            step()
        except Exception as error:
            first, failed = first or error, failed + 1
    if first is not None:
        _log.warning("%s could not be released (%d steps failed): %s", what, failed, first)
