"""A GPU that is none: CUDA's and TensorRT's real bindings by autospec, with ONNX Runtime behind.

Streams are queues that run only when someone waits for them, so that a session that forgets to
wait reads what was there before. Device memory is host memory, filled with rubbish. Every call is
checked against the signature in the docstring of the real function; addresses must have been
allocated.
"""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import cuda.bindings.runtime as real_cuda
import numpy as np
import onnxruntime
import tensorrt_rtx as real_trt

from zeroflaw_engines.contract import EngineContract

_OK = real_cuda.cudaError_t.cudaSuccess
_TRT_TYPES = {
    "float16": real_trt.DataType.HALF,
    "float32": real_trt.DataType.FLOAT,
    "int32": real_trt.DataType.INT32,
    "uint8": real_trt.DataType.UINT8,
}


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


class SimulatedCuda:
    """`cuda.bindings.runtime` for one GPU with memory, streams, events and graphs."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.copies: list[tuple[str, int]] = []
        self.memory: dict[int, Any] = {}
        self.queues: dict[int, list[Callable[[], None]]] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.capturing: int | None = None
        self.devices = 1
        self.status = _OK
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
            self.queues[stream].append(work)

    def bytes_at(self, address: int, size: int) -> Any:
        start = max((a for a in self.memory if a <= address), default=None)
        assert start is not None, "an address that was not allocated"
        assert address + size <= start + len(self.memory[start]), "past the end of an allocation"
        return (ctypes.c_byte * size).from_address(address)

    def _counted(self, name: str) -> Callable[..., Any]:
        function = getattr(self, name)

        def call(*arguments: Any) -> Any:
            self.calls[name[1:]] += 1
            return function(*arguments)

        return call

    def _number(self) -> int:
        self._next += 1
        return self._next

    def _allocate(self, size: int) -> tuple[Any, int]:
        block = (ctypes.c_byte * size).from_buffer(bytearray(b"\x7b" * size))
        self.memory[ctypes.addressof(block)] = block
        return _OK, ctypes.addressof(block)

    def _release(self, address: int) -> tuple[Any]:
        del self.memory[address]
        return (_OK,)

    def _drain(self, stream: int) -> None:
        for work in self.queues[stream]:
            work()
        self.queues[stream].clear()

    def _cudaGetDeviceCount(self):  # noqa: N802 - CUDA's names
        return self.status, self.devices

    def _cudaGetErrorString(self, status):  # noqa: N802
        return real_cuda.cudaGetErrorString(status)

    def _cudaSetDevice(self, device):  # noqa: N802
        return (_OK,)

    def _cudaGetDeviceProperties(self, device):  # noqa: N802
        properties = create_autospec(real_cuda.cudaDeviceProp, instance=True)
        properties.name, properties.major, properties.minor = b"Simulated GPU", 8, 9
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
        self.queues[stream] = []
        return _OK, stream

    def _cudaStreamDestroy(self, stream):  # noqa: N802
        del self.queues[stream]
        return (_OK,)

    def _cudaEventCreateWithFlags(self, flags):  # noqa: N802
        self.event_stream: dict[int, int] = {}
        return _OK, self._number()

    def _cudaEventRecord(self, event, stream):  # noqa: N802
        self.event_stream[event] = stream
        return (_OK,)

    def _cudaEventSynchronize(self, event):  # noqa: N802
        self._drain(self.event_stream[event])
        return (_OK,)

    def _cudaEventDestroy(self, event):  # noqa: N802
        return (_OK,)

    def _cudaMemcpyAsync(self, target, source, size, kind, stream):  # noqa: N802
        to, of = self.bytes_at(target, size), self.bytes_at(source, size)
        self.copies.append((self._kinds[kind], size))
        self.enqueue(stream, lambda: ctypes.memmove(to, of, size) and None)
        return (_OK,)

    def _cudaStreamBeginCapture(self, stream, mode):  # noqa: N802
        assert isinstance(mode, real_cuda.cudaStreamCaptureMode)
        self.capturing, self.graphs[-1] = stream, []
        return (_OK,)

    def _cudaStreamEndCapture(self, stream):  # noqa: N802
        assert self.capturing == stream
        self.capturing = None
        graph = self._number()
        self.graphs[graph] = self.graphs.pop(-1)
        return _OK, graph

    def _cudaGraphInstantiate(self, graph, flags):  # noqa: N802
        executable = self._number()
        self.graphs[executable] = list(self.graphs[graph])
        return _OK, executable

    def _cudaGraphLaunch(self, executable, stream):  # noqa: N802
        for work in self.graphs[executable]:
            self.enqueue(stream, work)
        return (_OK,)

    def _cudaGraphDestroy(self, graph):  # noqa: N802
        del self.graphs[graph]
        return (_OK,)

    def _cudaGraphExecDestroy(self, executable):  # noqa: N802
        del self.graphs[executable]
        return (_OK,)


class SimulatedTensorRt(SimpleNamespace):
    """`tensorrt_rtx` whose engines run an ONNX graph with ONNX Runtime.

    Args:
        cuda: Whose memory and streams.
        graphs: ONNX file and contract by the bytes of the plan.
    """

    def __init__(
        self, cuda: SimulatedCuda, graphs: dict[bytes, tuple[Path, EngineContract]]
    ) -> None:
        super().__init__(
            __version__=real_trt.__version__,
            ILogger=real_trt.ILogger,
            TensorIOMode=real_trt.TensorIOMode,
            Runtime=self._runtime,
        )
        self.cuda, self.graphs = cuda, graphs
        self.contexts = 0
        self.capturable = True
        self.most = 16
        self.compiled = b"kernels of this GPU"
        self.loaded_cache: bytes | None = None
        self.refuse_cache = False

    def _runtime(self, logger: Any) -> Any:
        assert isinstance(logger, real_trt.ILogger)
        runtime = create_autospec(real_trt.Runtime, instance=True)

        def deserialize(plan: Any) -> Any:
            known = self.graphs.get(bytes(plan))
            if known is None:
                logger.log(real_trt.ILogger.ERROR, "the plan is not for this GPU")
                return None
            return self._engine(*known)

        runtime.deserialize_cuda_engine.side_effect = deserialize
        return runtime

    def _engine(self, path: Path, contract: EngineContract) -> Any:
        specs = {spec.name: spec for spec in (*contract.inputs, *contract.outputs)}
        inputs = {spec.name for spec in contract.inputs}
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        engine = create_autospec(real_trt.ICudaEngine, instance=True)
        engine.num_io_tensors = len(specs)
        spec_of = real_trt.ICudaEngine
        modes = real_trt.TensorIOMode

        def numbers(name: str, batch: int) -> tuple[int, ...]:
            return tuple(batch if isinstance(n, str) else n for n in specs[name].shape)

        for name, stand_in in {
            "get_tensor_name": lambda i: list(specs)[i],
            "get_tensor_mode": lambda n: modes.INPUT if n in inputs else modes.OUTPUT,
            "get_tensor_dtype": lambda n: _TRT_TYPES[specs[n].dtype],
            "get_tensor_shape": lambda n: numbers(n, -1),
            "get_tensor_profile_shape": lambda n, _: [numbers(n, b) for b in (1, 1, self.most)],
            "create_runtime_config": self._runtime_config,
            "create_execution_context": lambda *_: self._context(session, contract),
        }.items():
            setattr(engine, name, checked(getattr(spec_of, name), stand_in))
        return engine

    def _runtime_config(self) -> Any:
        config = create_autospec(real_trt.IRuntimeConfig, instance=True)
        cache = create_autospec(real_trt.IRuntimeCache, instance=True)

        def deserialize(data: bytes) -> bool:
            self.loaded_cache = bytes(data)
            return not self.refuse_cache

        cache.deserialize.side_effect = deserialize
        cache.serialize.side_effect = lambda: self.compiled
        config.create_runtime_cache.side_effect = lambda: cache
        return config

    def _context(self, session: onnxruntime.InferenceSession, contract: EngineContract) -> Any:
        self.contexts += 1
        addresses: dict[str, int] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        context = create_autospec(real_trt.IExecutionContext, instance=True)

        def set_address(name: str, address: int) -> bool:
            addresses[name] = address
            return True

        def set_shape(name: str, shape: tuple[int, ...]) -> bool:
            shapes[name] = tuple(shape)
            return True

        def execute(stream: int) -> bool:
            now = dict(shapes)

            def work() -> None:
                given = {}
                for spec in contract.inputs:
                    dtype = np.dtype(spec.dtype)
                    size = int(np.prod(now[spec.name])) * dtype.itemsize
                    memory = self.cuda.bytes_at(addresses[spec.name], size)
                    given[spec.name] = np.frombuffer(memory, dtype).reshape(now[spec.name])
                names = [spec.name for spec in contract.outputs]
                for name, value in zip(names, session.run(names, given), strict=True):
                    data = np.ascontiguousarray(value)
                    target = self.cuda.bytes_at(addresses[name], data.nbytes)
                    ctypes.memmove(target, data.ctypes.data, data.nbytes)

            self.cuda.enqueue(stream, work)
            return True

        for name, stand_in in {
            "set_tensor_address": set_address,
            "set_input_shape": set_shape,
            "execute_async_v3": execute,
            "is_stream_capturable": lambda _: self.capturable,
        }.items():
            real = getattr(real_trt.IExecutionContext, name)
            setattr(context, name, checked(real, stand_in))
        return context
