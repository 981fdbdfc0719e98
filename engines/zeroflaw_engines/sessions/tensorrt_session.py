"""Sessions on built engines: TensorRT and TensorRT-RTX, whose bindings mirror each other.

Unverified: there was no GPU to run them on. Every call is checked against the real bindings, and
the logic against a simulated GPU.
"""

from __future__ import annotations

import logging
import mmap
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from zeroflaw_engines.built_engines.lookup import BuiltEngine, find_engine
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.contract import EngineContract, EngineName, TensorSpec
from zeroflaw_engines.errors import EngineContractError, EngineError
from zeroflaw_engines.files import replacing
from zeroflaw_engines.sessions.backend import Backend, SessionRequest
from zeroflaw_engines.sessions.cuda import Cuda, CudaBuffer
from zeroflaw_engines.sessions.cuda_tensor import CudaMemoryPool, CudaTensor
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, Tensor
from zeroflaw_engines.sessions.options import TensorRtOptions
from zeroflaw_engines.sessions.session import CheckedSession, Outputs, check_graph
from zeroflaw_engines.sessions.tensorrt_context import TensorRtProgram
from zeroflaw_engines.tensorrt_bindings import BuildBackend, load_bindings

_DTYPES: Final = {
    "FLOAT": "float32",
    "HALF": "float16",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}

_log = logging.getLogger(__name__)


def probe(backend: Backend, device: int) -> tuple[str, tuple[str, ...]]:
    """Look for the bindings, the driver and the GPU; see `BackendModule`."""
    module = load_bindings(_builder(backend))
    Cuda(device)
    return str(module.__version__), backend.precisions


def require(
    backend: Backend,
    bundle: Bundle,
    engines: Sequence[EngineName],
    precision: str,  # noqa: ARG001 - what is built is run; loading refuses another precision
    device: int,
) -> None:
    """Check that engines were built for this GPU; see `BackendModule`."""
    architecture = Cuda(device).gpu().architecture
    for engine in engines:
        find_engine(bundle, engine, backend=_builder(backend), architecture=architecture)


def load(backend: Backend, request: SessionRequest) -> TensorRtSession:
    """Load the engine that was built for this GPU; see `BackendModule`."""
    options = TensorRtOptions(device=request.device)
    bundle, builder = request.bundle, _builder(backend)
    load_bindings(builder)
    gpu = Cuda(options.device).gpu()
    built = find_engine(bundle, request.engine, backend=builder, architecture=gpu.architecture)
    precision = built.sidecar.parts.precision
    if request.precision not in {None, precision}:
        raise EngineError(
            f"{built.path} was built in {precision}, not {request.precision}",
            f"build it: zeroflaw build {bundle.path} --backend {builder}"
            f" --precision {request.precision} --gpu {gpu.architecture}",
        )
    return TensorRtSession(built, bundle.contract(request.engine), options=options)


def _builder(backend: Backend) -> BuildBackend:
    """Return whose engines a row runs; rows of this module say so."""
    if backend.builds is None:
        raise EngineError(
            f"the backend {backend.name} runs no built engines",
            "name in its row whose engines it runs",
        )
    return backend.builds


class TensorRtSession(CheckedSession):
    """One built engine on one GPU, with a stream of its own.

    Inputs go through pinned memory into device memory that stays where it is, so that a CUDA
    graph can be recorded over it. What a call keeps is copied to other device memory, which no
    later call overwrites. Calls take turns; each ends when its results are there.

    Args:
        built: The engine, verified against its sidecar.

    Raises:
        BackendUnavailableError: The bindings, the driver or the GPU are missing.
        EngineError: The engine cannot be deserialized on this GPU.
        EngineContractError: Its tensors are not those of the contract.
    """

    def __init__(
        self,
        built: BuiltEngine,
        contract: EngineContract,
        *,
        options: TensorRtOptions | None = None,
    ) -> None:
        super().__init__(contract, CudaTensor)
        options = options or TensorRtOptions()
        parts = built.sidecar.parts
        self._bindings: Any = load_bindings(parts.backend)
        self._cuda = Cuda(options.device)
        self._precision = parts.precision
        self._backend = parts.backend
        self._gpu = self._cuda.gpu()
        self._lock = threading.Lock()
        self._cuda.use()
        if parts.flags.get("strip_weights"):
            raise EngineError(
                f"{built.path} was built without its weights and cannot be run as it is",
                "build it again without weight stripping",
            )
        self._engine: Any = _deserialize(
            self._bindings, built, host_code=bool(parts.flags.get("version_compatible"))
        )
        check_graph(contract, *_specs(self._bindings, self._engine), str(built.path))
        saves = options.save_runtime_cache and parts.backend == "tensorrt-rtx"
        self._cache = _RuntimeCache(built.runtime_cache) if saves else None
        self._max_prompts = self._largest_batch()
        self._pool = CudaMemoryPool(self._cuda)
        self._stream: Any = self._cuda.new_stream()
        self._done: Any = self._cuda.new_event()
        self._buffers: dict[str, CudaBuffer] = {}
        self._programs: dict[str, TensorRtProgram] = {}

    @property
    def backend(self) -> str:
        """`tensorrt-rtx <version> <GPU> <precision>`."""
        version = self._bindings.__version__
        return f"{self._backend} {version} {self._gpu.name} {self._precision}"

    @property
    def captured(self) -> bool:
        """Whether single prompts run as a CUDA graph."""
        return "single" in self._programs and self._programs["single"].captured

    def capture(self) -> None:
        """Record the call of one prompt as a CUDA graph; later calls replay it."""
        self.prepare()
        with self._lifetime.call(), self._lock:
            self._cuda.use()
            if not self._programs["single"].capture(self._stream):
                _log.warning(
                    "%s runs %s without a CUDA graph: it cannot be captured",
                    self._backend,
                    self._contract.name,
                )

    def _run(
        self,
        inputs: Mapping[str, Tensor | DeviceTensor],
        keep: Collection[str],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> Outputs:
        batch = max(
            (
                shapes[spec.name][0]
                for spec in self._contract.outputs
                if isinstance(spec.shape[0], str)
            ),
            default=1,
        )
        if batch > self._max_prompts:
            raise EngineContractError(
                f"the engine of {self._contract.name} takes {self._max_prompts} prompts, not"
                f" {batch}",
                "give fewer at once, or build it for more",
            )
        with self._lock:
            self._cuda.use()
            program = self._program({name: tensor.shape for name, tensor in inputs.items()}, batch)
            for name, tensor in inputs.items():
                self._upload(self._buffers[name], tensor)
            program.run(self._stream)
            outputs: Outputs = {}
            for spec in self._contract.outputs:
                source, shape = self._buffers[spec.name], shapes[spec.name]
                if spec.name in keep:
                    kept = CudaTensor.from_pool(self._pool, shape, spec.dtype, self._download)
                    self._cuda.copy(
                        kept.address, source.device, kept.size, "DeviceToDevice", self._stream
                    )
                    outputs[spec.name] = kept
                else:
                    host = outputs[spec.name] = source.host(shape, spec.dtype)
                    self._cuda.copy(
                        source.pinned, source.device, host.nbytes, "DeviceToHost", self._stream
                    )
            self._wait()
            return {
                name: output.copy() if isinstance(output, np.ndarray) else output
                for name, output in outputs.items()
            }

    def _put(self, array: Tensor) -> Tensor | DeviceTensor:
        with self._lock:
            self._cuda.use()
            kept = CudaTensor.from_pool(self._pool, array.shape, array.dtype.name, self._download)
            kept.buffer.host(array.shape, array.dtype.name)[...] = array
            self._cuda.copy(
                kept.address, kept.buffer.pinned, kept.size, "HostToDevice", self._stream
            )
            self._wait()
            return kept

    def _release(self) -> None:
        with self._lock:
            self._cuda.use()
            if self._cache is not None:
                self._cache.save()
            for program in self._programs.values():
                program.close()
            for buffer in self._buffers.values():
                buffer.free()
            self._programs.clear()
            self._buffers.clear()
            self._pool.close()
            self._cuda.call("cudaEventDestroy", self._done)
            self._cuda.call("cudaStreamDestroy", self._stream)
            self._engine = None

    def _program(self, shapes: Mapping[str, tuple[int, ...]], batch: int) -> TensorRtProgram:
        """Return the context of one prompt, which may be captured, or that of several.

        A captured graph holds on to its context, so that no other shapes may be set there.
        """
        if not self._buffers:
            for spec in (*self._contract.inputs, *self._contract.outputs):
                sizes = [
                    self._max_prompts if isinstance(size, str) else size for size in spec.shape
                ]
                elements = int(np.prod(sizes, dtype=np.int64))
                itemsize = np.dtype(spec.dtype).itemsize
                self._buffers[spec.name] = CudaBuffer(self._cuda, elements * itemsize)
        which = "single" if batch == 1 else "several"
        program = self._programs.get(which)
        if program is None:
            addresses = {name: buffer.device for name, buffer in self._buffers.items()}
            program = self._programs[which] = TensorRtProgram(
                self._cuda, self._context(), addresses, self._contract.name
            )
        program.set_shapes(shapes)
        return program

    def _context(self) -> Any:  # noqa: ANN401 - TensorRT's own type, loaded lazily
        if self._cache is None:
            context = self._engine.create_execution_context()
        else:
            context = self._engine.create_execution_context(self._cache.config_for(self._engine))
        if context is None:
            raise EngineError(
                f"{self._backend} cannot make an execution context for {self._contract.name}",
                "free device memory: close other programs on this GPU",
            )
        return context

    def _upload(self, buffer: CudaBuffer, tensor: Tensor | DeviceTensor) -> None:
        if isinstance(tensor, CudaTensor):
            self._cuda.copy(
                buffer.device, tensor.address, tensor.size, "DeviceToDevice", self._stream
            )
            return
        array = np.asarray(tensor)
        buffer.host(array.shape, array.dtype.name)[...] = array
        self._cuda.copy(buffer.device, buffer.pinned, array.nbytes, "HostToDevice", self._stream)

    def _download(self, buffer: CudaBuffer, first: int, size: int) -> None:
        with self._lifetime.call(), self._lock:
            self._cuda.use()
            self._cuda.copy(
                buffer.pinned + first, buffer.device + first, size, "DeviceToHost", self._stream
            )
            self._wait()

    def _wait(self) -> None:
        """Wait for the stream without spinning: host threads have other work on two cores."""
        self._cuda.call("cudaEventRecord", self._done, self._stream)
        self._cuda.call("cudaEventSynchronize", self._done)

    def _largest_batch(self) -> int:
        for spec in self._contract.inputs:
            if any(isinstance(size, str) for size in spec.shape):
                return int(self._engine.get_tensor_profile_shape(spec.name, 0)[2][0])
        return 1


class _RuntimeCache:
    """Kernels that TensorRT-RTX compiled on this GPU, kept in a file from start to start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cache: Any = None
        self._loaded = b""

    def config_for(self, engine: Any) -> Any:  # noqa: ANN401 - TensorRT's own types
        """Make a runtime configuration with the cache in it."""
        config = engine.create_runtime_config()
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            if self._path.is_file():
                self._loaded = self._path.read_bytes()
                if not self._cache.deserialize(self._loaded):
                    _log.info("%s is of another GPU or version: compiled anew", self._path)
        config.set_runtime_cache(self._cache)
        return config

    def save(self) -> None:
        """Write the file if it has changed; what cannot be written is logged."""
        if self._cache is None:
            return
        data = bytes(self._cache.serialize())
        if data == self._loaded:
            return
        try:
            with replacing(self._path) as temporary:
                temporary.write_bytes(data)
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._path, error.strerror)


def _deserialize(bindings: Any, built: BuiltEngine, *, host_code: bool) -> Any:  # noqa: ANN401
    errors: list[str] = []

    class Log(bindings.ILogger):  # type: ignore[misc] # the base is loaded lazily
        def __init__(self) -> None:
            bindings.ILogger.__init__(self)

        def log(self, severity: object, text: str) -> None:
            if severity in {bindings.ILogger.ERROR, bindings.ILogger.INTERNAL_ERROR}:
                errors.append(text)
            _log.debug("%s: %s", severity, text)

    runtime = bindings.Runtime(Log())
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
        shape = tuple("batch" if size < 0 else int(size) for size in engine.get_tensor_shape(name))
        is_input = engine.get_tensor_mode(name) == bindings.TensorIOMode.INPUT
        (inputs if is_input else outputs).append(TensorSpec(name, _DTYPES.get(dtype, dtype), shape))
    return inputs, outputs
