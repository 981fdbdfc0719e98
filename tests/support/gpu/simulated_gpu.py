"""CUDA's runtime on a GPU that is none: the real bindings by autospec.

Streams are queues that run only when someone waits for them, so that a session that forgets to
wait reads what was there before. Device memory is host memory, filled with rubbish. Every call is
checked against the signature in the docstring of the real function; addresses must have been
allocated.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import create_autospec

import cuda.bindings.runtime as real_cuda
from cuda.bindings import utils as real_utils

_OK = real_cuda.cudaError_t.cudaSuccess
_ERRORS = real_cuda.cudaError_t
# What CUDA answers also after an error that lasts.
_HARMLESS = {"cudaGetDeviceCount", "cudaGetErrorString", "cudaGetLastError"}


def argument_counts(function: Any) -> set[int]:
    """Numbers of arguments that a function of the bindings takes, from its docstring."""
    text = function.__doc__
    name = function.__name__
    counts = set()
    for signature in re.findall(rf"\b{name}\((.*?)\)(?: ->|\n|$)", text):
        if signature.startswith("*args"):
            continue
        parts = [part for part in re.split(r",\s*(?![^\[]*\])", signature) if part]
        parts = [part for part in parts if not part.startswith("self")]
        optional = sum("=" in part for part in parts)
        counts |= set(range(len(parts) - optional, len(parts) + 1))
    assert counts, f"{name} has no signature in its docstring"
    return counts


def checked(real: Any, stand_in: Callable[..., Any]) -> Any:
    """An autospec of a function of the bindings that calls the stand-in if the arguments fit."""
    counts = argument_counts(real)

    def call(*arguments: Any) -> Any:
        assert len(arguments) in counts, f"{real.__name__} takes {counts}, not {len(arguments)}"
        return stand_in(*arguments)

    mock = create_autospec(real)
    mock.side_effect = call
    return mock


class StreamOfBindings(real_cuda.cudaStream_t):
    """A stream as the bindings hand it out, without the conversion that they deprecate."""

    def __int__(self) -> int:
        raise AssertionError("int(stream) is deprecated: get_cuda_native_handle")

    def __index__(self) -> int:
        raise AssertionError("int(stream) is deprecated: get_cuda_native_handle")


_handle_of_stream = real_utils._handle_getters[real_cuda.cudaStream_t]
real_utils._add_cuda_native_handle_getter(StreamOfBindings, _handle_of_stream)


@dataclass
class Queue:
    """The work of a stream: what waits, and how much has come and gone."""

    waiting: list[Callable[[], None]] = field(default_factory=list)
    enqueued: int = 0
    done: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def put(self, work: Callable[[], None]) -> None:
        self.waiting.append(work)
        self.enqueued += 1

    def drain(self, until: int) -> None:
        with self.lock:
            while self.done < until and self.waiting:
                self.waiting[0]()
                self.waiting.pop(0)
                self.done += 1


class SimulatedCuda:
    """`cuda.bindings.runtime` for one GPU with memory, streams, events and graphs."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.copies: list[tuple[str, int]] = []
        self.memory: dict[int, Any] = {}
        self.queues: dict[int, Queue] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.events: dict[int, tuple[int, int]] = {}
        self.capturing: int | None = None
        self.capturing_thread = 0
        self.capture_fault: Any = None
        self.devices = 1
        self.architecture = (8, 9)
        self.status = _OK
        self.fault: Any = None
        self.last_error = _OK
        self._next = 1000
        kinds = real_cuda.cudaMemcpyKind
        self._kinds = {getattr(kinds, f"cudaMemcpy{k}"): k for k in (
            "HostToDevice", "DeviceToHost", "DeviceToDevice")}  # fmt: skip
        for name in dir(self):
            if name.startswith("_cuda"):
                real = getattr(real_cuda, name[1:])
                setattr(self, name[1:], checked(real, self._counted(name)))

    def __getattr__(self, name: str) -> Any:
        """Enumerations and constants are the real ones; other functions are missing."""
        value = getattr(real_cuda, name)
        if callable(value) and name[4:5].isupper() and not isinstance(value, type):
            raise AssertionError(f"{name} is not simulated")
        return value

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        if self.capturing == stream:
            self.graphs[-1].append(work)
        else:
            self.queues[stream].put(work)

    def bytes_at(self, address: int, size: int) -> Any:
        start = max((a for a in self.memory if a <= address), default=None)
        assert start is not None, "an address that was not allocated"
        assert address + size <= start + len(self.memory[start]), "past the end of an allocation"
        return (ctypes.c_byte * size).from_address(address)

    def _counted(self, name: str) -> Callable[..., Any]:
        function = getattr(self, name)

        def call(*arguments: Any) -> Any:
            self.calls[name[1:]] += 1
            if self.fault is not None and name[1:] not in _HARMLESS:
                self.last_error = self.fault
                return (self.fault, None)
            return function(*arguments)

        return call

    def _refused_in_a_capture(self) -> bool:
        """Whether the call is one that a thread may not make while it records."""
        if self.capturing is None or threading.get_ident() != self.capturing_thread:
            return False
        self.capture_fault = self.last_error = _ERRORS.cudaErrorStreamCaptureUnsupported
        return True

    def _number(self) -> int:
        self._next += 1
        return self._next

    def _allocate(self, size: int) -> tuple[Any, int]:
        if self._refused_in_a_capture():
            return self.last_error, 0
        block = (ctypes.c_byte * size).from_buffer(bytearray(b"\x7b" * size))
        self.memory[ctypes.addressof(block)] = block
        return _OK, ctypes.addressof(block)

    def _release(self, address: int) -> tuple[Any]:
        if self._refused_in_a_capture():
            return (self.last_error,)
        del self.memory[address]
        return (_OK,)

    def _cudaGetDeviceCount(self):  # noqa: N802 - CUDA's names
        return self.status, self.devices

    def _cudaGetLastError(self):  # noqa: N802
        last, self.last_error = self.last_error, _OK
        return (last,)

    def _cudaGetErrorString(self, status):  # noqa: N802
        return real_cuda.cudaGetErrorString(status)

    def _cudaSetDevice(self, device):  # noqa: N802
        return (_OK,)

    def _cudaGetDeviceProperties(self, device):  # noqa: N802
        properties = create_autospec(real_cuda.cudaDeviceProp, instance=True)
        properties.name = b"Simulated GPU"
        properties.major, properties.minor = self.architecture
        properties.totalGlobalMem = 8 << 30
        return _OK, properties

    def _cudaDriverGetVersion(self):  # noqa: N802
        return _OK, 13000

    def _cudaMemGetInfo(self):  # noqa: N802
        return _OK, (8 << 30) - sum(map(len, self.memory.values())), 8 << 30

    def _cudaMalloc(self, size):  # noqa: N802
        return self._allocate(size)

    def _cudaMallocHost(self, size):  # noqa: N802
        return self._allocate(size)

    def _cudaFree(self, address):  # noqa: N802
        return self._release(address)

    def _cudaFreeHost(self, address):  # noqa: N802
        return self._release(address)

    def _cudaStreamCreateWithFlags(self, flags):  # noqa: N802
        stream = self._number()
        self.queues[stream] = Queue()
        return _OK, StreamOfBindings(stream)

    def _cudaStreamDestroy(self, stream):  # noqa: N802
        del self.queues[_number_of(stream)]
        return (_OK,)

    def _cudaStreamSynchronize(self, stream):  # noqa: N802
        queue = self.queues[_number_of(stream)]
        queue.drain(queue.enqueued)
        return (_OK,)

    def _cudaEventCreateWithFlags(self, flags):  # noqa: N802
        event = self._number()
        self.events[event] = (0, 0)
        return _OK, event

    def _cudaEventRecord(self, event, stream):  # noqa: N802
        number = _number_of(stream)
        self.events[event] = (number, self.queues[number].enqueued)
        return (_OK,)

    def _cudaEventSynchronize(self, event):  # noqa: N802
        stream, until = self.events[event]
        if stream:
            self.queues[stream].drain(until)
        return (_OK,)

    def _cudaEventDestroy(self, event):  # noqa: N802
        del self.events[event]
        return (_OK,)

    def _cudaMemcpyAsync(self, target, source, size, kind, stream):  # noqa: N802
        to, of = self.bytes_at(target, size), self.bytes_at(source, size)
        self.copies.append((self._kinds[kind], size))
        self.enqueue(_number_of(stream), lambda: ctypes.memmove(to, of, size) and None)
        return (_OK,)

    def _cudaStreamBeginCapture(self, stream, mode):  # noqa: N802
        assert mode == real_cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.capturing, self.graphs[-1] = _number_of(stream), []
        self.capturing_thread, self.capture_fault = threading.get_ident(), None
        return (_OK,)

    def _cudaStreamEndCapture(self, stream):  # noqa: N802
        assert self.capturing == _number_of(stream)
        self.capturing = None
        recorded = self.graphs.pop(-1)
        if self.capture_fault is not None:
            self.last_error = _ERRORS.cudaErrorStreamCaptureInvalidated
            return self.last_error, None
        graph = self._number()
        self.graphs[graph] = recorded
        return _OK, graph

    def _cudaGraphInstantiate(self, graph, flags):  # noqa: N802
        executable = self._number()
        self.graphs[executable] = list(self.graphs[graph])
        return _OK, executable

    def _cudaGraphLaunch(self, executable, stream):  # noqa: N802
        for work in self.graphs[executable]:
            self.enqueue(_number_of(stream), work)
        return (_OK,)

    def _cudaGraphDestroy(self, graph):  # noqa: N802
        del self.graphs[graph]
        return (_OK,)

    def _cudaGraphExecDestroy(self, executable):  # noqa: N802
        del self.graphs[executable]
        return (_OK,)


def _number_of(stream: Any) -> int:
    assert isinstance(stream, StreamOfBindings), "a stream goes to CUDA as CUDA gave it"
    return real_utils.get_cuda_native_handle(stream)
