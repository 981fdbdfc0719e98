"""TensorRT-RTX and TensorRT on a simulated GPU: real bindings by autospec, engines by ONNX Runtime.

It stands in for the library alone: names, signatures and enumerations are those of NVIDIA's
bindings. Like the real one it has one logger a process, and a context whose memory the user manages
runs only in memory that it was given.
"""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import onnxruntime
import tensorrt_rtx as real_trt

from support.gpu.simulated_gpu import SimulatedCuda, checked
from zeroflaw_engines.contract import EngineContract

_TYPES = {
    "float16": real_trt.DataType.HALF,
    "float32": real_trt.DataType.FLOAT,
    "int32": real_trt.DataType.INT32,
    "uint8": real_trt.DataType.UINT8,
}
_STRATEGIES = real_trt.ExecutionContextAllocationStrategy
WORKING_MEMORY = 5000  # bytes of a context


class SimulatedTensorRt(SimpleNamespace):
    """`tensorrt_rtx` whose engines run an ONNX graph with ONNX Runtime.

    Args:
        cuda: Whose memory and streams.
        graphs: ONNX file and contract by the bytes of the plan.
        rtx: Whether it is TensorRT-RTX, which has runtime caches and `is_stream_capturable`.
    """

    def __init__(
        self,
        cuda: SimulatedCuda,
        graphs: dict[bytes, tuple[Path, EngineContract]],
        *,
        rtx: bool = True,
    ) -> None:
        super().__init__(
            __version__=real_trt.__version__,
            ILogger=real_trt.ILogger,
            TensorIOMode=real_trt.TensorIOMode,
            ExecutionContextAllocationStrategy=_STRATEGIES,
            Runtime=self._runtime,
        )
        if rtx:
            self.DynamicShapesKernelSpecializationStrategy = (
                real_trt.DynamicShapesKernelSpecializationStrategy
            )
        self.cuda, self.graphs, self.rtx = cuda, graphs, rtx
        self.logger: Any = None
        self.contexts = 0
        self.configs: list[Any] = []
        self.capturable = True
        self.axes: dict[str, tuple[int, int]] = {}
        self.most = 16
        self.before_work = lambda: None
        self.execution_fault: str | None = None
        self.compiled: bytes | None = b"kernels of this GPU"
        self.loaded_cache: bytes | None = None
        self.refuse_cache = False
        self.take_cache = True

    def _runtime(self, logger: Any) -> Any:
        assert isinstance(logger, real_trt.ILogger)
        self.logger = self.logger or logger  # the first one of the process; others are ignored
        runtime = create_autospec(real_trt.Runtime, instance=True)

        def deserialize(plan: Any) -> Any:
            known = self.graphs.get(bytes(plan))
            if known is None:
                self.logger.log(real_trt.ILogger.ERROR, "the plan is not for this GPU")
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
        engine.device_memory_size_v2 = WORKING_MEMORY
        spec_of = real_trt.ICudaEngine
        modes = real_trt.TensorIOMode

        def profile(name: str) -> list[tuple[int, ...]]:
            least, most = (
                tuple(
                    self.axes.get(n, (1, self.most))[end] if isinstance(n, str) else n
                    for n in specs[name].shape
                )
                for end in (0, 1)
            )
            return [least, least, most]

        for name, stand_in in {
            "get_tensor_name": lambda i: list(specs)[i],
            "get_tensor_mode": lambda n: modes.INPUT if n in inputs else modes.OUTPUT,
            "get_tensor_dtype": lambda n: _TYPES[specs[n].dtype],
            "get_tensor_shape": lambda n: tuple(
                -1 if isinstance(size, str) else size for size in specs[n].shape
            ),
            "get_tensor_profile_shape": lambda n, _: profile(n),
            "create_runtime_config": self._runtime_config,
            "create_execution_context": lambda *how: self._context(session, contract, *how),
        }.items():
            setattr(engine, name, checked(getattr(spec_of, name), stand_in))
        if not self.rtx:
            del engine.create_runtime_config
        return engine

    def _runtime_config(self) -> Any:
        config = create_autospec(real_trt.IRuntimeConfig, instance=True, spec_set=True)
        cache = create_autospec(real_trt.IRuntimeCache, instance=True)
        config.get_execution_context_allocation_strategy.return_value = _STRATEGIES.STATIC

        def deserialize(data: bytes) -> bool:
            self.loaded_cache = bytes(data)
            return not self.refuse_cache

        def set_strategy(strategy: Any) -> None:
            config.get_execution_context_allocation_strategy.return_value = strategy

        cache.deserialize.side_effect = deserialize
        cache.serialize.side_effect = lambda: self.compiled
        config.create_runtime_cache.side_effect = lambda: cache
        config.set_runtime_cache.side_effect = lambda _: self.take_cache
        config.set_execution_context_allocation_strategy.side_effect = set_strategy
        self.configs.append(config)
        return config

    def _context(
        self,
        session: onnxruntime.InferenceSession,
        contract: EngineContract,
        how: Any = _STRATEGIES.STATIC,
    ) -> Any:
        self.contexts += 1
        if not isinstance(how, _STRATEGIES):
            how = how.get_execution_context_allocation_strategy()
        addresses: dict[str, int] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        memory: list[tuple[int, int]] = []
        context = create_autospec(real_trt.IExecutionContext, instance=True)

        def set_address(name: str, address: int) -> bool:
            addresses[name] = address
            return True

        def set_shape(name: str, shape: tuple[int, ...]) -> bool:
            shapes[name] = tuple(shape)
            return True

        def set_memory(address: int, size: int) -> None:
            assert how == _STRATEGIES.USER_MANAGED
            assert size >= WORKING_MEMORY
            memory[:] = [(address, size)]

        def execute(stream: int) -> bool:
            assert type(stream) is int
            assert memory or how == _STRATEGIES.STATIC, "the context has no memory to work in"
            if self.execution_fault is not None:
                self.logger.log(real_trt.ILogger.ERROR, self.execution_fault)
                return False
            now, block = dict(shapes), [self.cuda.bytes_at(*one) for one in memory]

            def work() -> None:
                self.before_work()
                for one in block:
                    owner = threading.get_ident().to_bytes(8, "little")
                    ctypes.memmove(one, owner, 8)
                self._compute(session, contract, addresses, now)
                for one in block:
                    assert ctypes.string_at(one, 8) == owner, (
                        "two contexts worked in the same memory"
                    )

            self.cuda.enqueue(stream, work)
            return True

        for name, stand_in in {
            "set_tensor_address": set_address,
            "set_input_shape": set_shape,
            "set_device_memory": set_memory,
            "execute_async_v3": execute,
            "is_stream_capturable": lambda stream: type(stream) is int and self.capturable,
        }.items():
            real = getattr(real_trt.IExecutionContext, name)
            setattr(context, name, checked(real, stand_in))
        if not self.rtx:
            del context.is_stream_capturable
        return context

    def _compute(
        self,
        session: onnxruntime.InferenceSession,
        contract: EngineContract,
        addresses: dict[str, int],
        shapes: dict[str, tuple[int, ...]],
    ) -> None:
        given = {}
        for spec in contract.inputs:
            dtype = np.dtype(spec.dtype)
            size = int(np.prod(shapes[spec.name])) * dtype.itemsize
            memory = self.cuda.bytes_at(addresses[spec.name], size)
            given[spec.name] = np.frombuffer(memory, dtype).reshape(shapes[spec.name])
        names = [spec.name for spec in contract.outputs]
        for name, value in zip(names, session.run(names, given), strict=True):
            data = np.ascontiguousarray(value)
            target = self.cuda.bytes_at(addresses[name], data.nbytes)
            ctypes.memmove(target, data.ctypes.data, data.nbytes)
