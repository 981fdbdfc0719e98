"""A built engine in memory: its weights, and the contexts that run it."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from zeroflaw_engines.built_engines.lookup import BuiltEngine
from zeroflaw_engines.contract import EngineContract, TensorSpec
from zeroflaw_engines.errors import EngineContractError, EngineError
from zeroflaw_engines.process.collection import collection_postponed
from zeroflaw_engines.sessions.cuda_memory import CudaMemory
from zeroflaw_engines.sessions.options import TensorRtOptions
from zeroflaw_engines.sessions.session import check_graph
from zeroflaw_engines.sessions.tensorrt.messages import errors_said, process_logger
from zeroflaw_engines.sessions.tensorrt.runtime_cache import RuntimeCache

_DTYPES: Final = {
    "FLOAT": "float32",
    "HALF": "float16",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


@dataclass(frozen=True)
class AxisRange:
    """The sizes of a dynamic axis that an engine was built for, both inclusive."""

    smallest: int
    largest: int


class TensorRtEngine:
    """A deserialized engine. All sessions on it share its weights; contexts are their own.

    Args:
        built: The engine, verified against its sidecar.

    Attributes:
        axes: Range of every dynamic axis, by its name in the contract.
        memory_size: Device memory that a context works in, bytes.

    Raises:
        EngineError: The engine cannot be deserialized on this GPU.
        EngineContractError: Its tensors are not those of the contract.
    """

    def __init__(
        self,
        bindings: Any,  # noqa: ANN401 - a module that is loaded lazily
        built: BuiltEngine,
        contract: EngineContract,
        options: TensorRtOptions,
    ) -> None:
        parts = built.sidecar.parts
        if parts.flags.get("strip_weights"):
            raise EngineError(
                f"{built.path} was built without its weights and cannot be run as it is",
                "build it again without weight stripping",
            )
        self._bindings = bindings
        self._contract = contract
        self.backend = parts.backend
        self.precision = parts.precision
        self._engine: Any = deserialized(
            bindings, built, host_code=bool(parts.flags.get("version_compatible"))
        )
        saves = options.save_runtime_cache and parts.backend == "tensorrt-rtx"
        self._cache = RuntimeCache(built.runtime_cache) if saves else None
        try:
            check_graph(contract, *_specs(bindings, self._engine), str(built.path))
            self.axes = self._axes()
            self.memory_size = int(self._engine.device_memory_size_v2)
        except BaseException:
            self._engine = None  # the error holds on to this object, and its weights are gigabytes
            raise

    @property
    def version(self) -> str:
        """Of the bindings."""
        return str(self._bindings.__version__)

    def largest_shape(self, spec: TensorSpec) -> tuple[int, ...]:
        """Return the shape of a tensor whose dynamic axes are as large as may be."""
        return tuple(
            self.axes[size].largest if isinstance(size, str) else size for size in spec.shape
        )

    def smallest_shape(self, spec: TensorSpec) -> tuple[int, ...]:
        """Return the shape of a tensor whose dynamic axes are as small as may be."""
        return tuple(
            self.axes[size].smallest if isinstance(size, str) else size for size in spec.shape
        )

    def require_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse inputs that the engine was not built for.

        Args:
            shapes: Of all inputs, which fulfil the contract.

        Raises:
            EngineContractError: An axis is out of its range.
        """
        for spec in self._contract.inputs:
            for axis, size in zip(spec.shape, shapes[spec.name], strict=True):
                if not isinstance(axis, str):
                    continue
                known = self.axes[axis]
                if not known.smallest <= size <= known.largest:
                    raise EngineContractError(
                        f"the engine of {self._contract.name} takes {known.smallest} to"
                        f" {known.largest} in the axis {axis!r} of {spec.name}, not {size}",
                        "give fewer at once, or build it for more",
                    )

    def new_context(self, memory: CudaMemory | None) -> Any:  # noqa: ANN401 - TensorRT's own type
        """Make an execution context.

        Args:
            memory: What it works in, of `memory_size` bytes; None if that is 0. Contexts may share
                it that never run at the same time.

        Raises:
            EngineError: TensorRT cannot.
        """
        with errors_said() as errors, collection_postponed():
            if self.backend == "tensorrt-rtx":
                how = self._runtime_config()
            else:
                how = self._bindings.ExecutionContextAllocationStrategy.USER_MANAGED
            context = self._engine.create_execution_context(how)
        if context is None:
            raise EngineError(
                f"{self.backend} cannot make an execution context for {self._contract.name}:"
                f" {'; '.join(errors) or 'no reason was given'}",
                "free device memory: close other programs on this GPU",
            )
        if memory is not None:
            context.set_device_memory(memory.address, memory.size)
        return context

    def save_cache(self) -> None:
        """Save what was compiled on this GPU for the next start, if there is more of it."""
        if self._cache is not None:
            self._cache.save()

    def _runtime_config(self) -> Any:  # noqa: ANN401 - as above
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(
            self._bindings.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        # By default, kernels for new shapes are compiled in the background and replace others
        # later: a CUDA graph would keep the slow ones, and the same call might give other bits.
        strategies = self._bindings.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        if self._cache is not None:
            self._cache.attach(config)
        return config

    def _axes(self) -> dict[str, AxisRange]:
        found: dict[str, AxisRange] = {}
        for spec in self._contract.inputs:
            if not any(isinstance(size, str) for size in spec.shape):
                continue
            smallest, _, largest = self._engine.get_tensor_profile_shape(spec.name, 0)
            for axis, low, high in zip(spec.shape, smallest, largest, strict=True):
                if isinstance(axis, str):
                    known = found.get(axis, AxisRange(int(low), int(high)))
                    found[axis] = AxisRange(
                        max(known.smallest, int(low)), min(known.largest, int(high))
                    )
        return found


def deserialized(bindings: Any, built: BuiltEngine, *, host_code: bool) -> Any:  # noqa: ANN401
    """Deserialize an engine on the GPU of this thread.

    Args:
        host_code: Whether its plan carries code of its own, and may.

    Raises:
        EngineError: TensorRT cannot; the error has its words.
    """
    with errors_said() as errors, collection_postponed():
        runtime = bindings.Runtime(process_logger(bindings.ILogger))
        if host_code:
            runtime.engine_host_code_allowed = True
        with (
            built.path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as plan,
        ):
            engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(
            f"{built.path} cannot be deserialized: {'; '.join(errors) or 'no reason was given'}",
            "see `zeroflaw engines explain`, and build it again for this GPU",
        )
    return engine


def _specs(bindings: Any, engine: Any) -> tuple[list[TensorSpec], list[TensorSpec]]:  # noqa: ANN401
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    for number in range(engine.num_io_tensors):
        name = engine.get_tensor_name(number)
        dtype = engine.get_tensor_dtype(name).name
        shape = tuple(
            "dynamic" if size < 0 else int(size) for size in engine.get_tensor_shape(name)
        )
        is_input = engine.get_tensor_mode(name) == bindings.TensorIOMode.INPUT
        (inputs if is_input else outputs).append(TensorSpec(name, _DTYPES.get(dtype, dtype), shape))
    return inputs, outputs
