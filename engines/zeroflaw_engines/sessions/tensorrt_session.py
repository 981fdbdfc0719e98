"""Sessions on built engines: TensorRT and TensorRT-RTX, whose bindings mirror each other.

Unverified: there was no GPU to run them on. Every call is checked against the real bindings, and
the logic against a simulated GPU.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from zeroflaw_engines.built_engines.cache import build_command
from zeroflaw_engines.built_engines.lookup import BuiltEngine, find_engine
from zeroflaw_engines.built_engines.options import BuildOptions
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.contract import EngineContract, EngineName
from zeroflaw_engines.errors import EngineError
from zeroflaw_engines.sessions.backend import Backend, SessionRequest
from zeroflaw_engines.sessions.cuda import Cuda, CudaStream, release
from zeroflaw_engines.sessions.cuda_memory import CudaMemory, CudaMemoryPool
from zeroflaw_engines.sessions.cuda_tensor import CudaReader, CudaTensor
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, Tensor
from zeroflaw_engines.sessions.gpu_support import require_served
from zeroflaw_engines.sessions.options import TensorRtOptions
from zeroflaw_engines.sessions.session import CheckedSession, Outputs
from zeroflaw_engines.sessions.tensorrt.context import TensorRtProgram
from zeroflaw_engines.sessions.tensorrt.engine import TensorRtEngine
from zeroflaw_engines.tensorrt_bindings import BuildBackend, load_bindings

_log = logging.getLogger(__name__)


def probe(backend: Backend, device: int) -> tuple[str, tuple[str, ...]]:
    """Look for the bindings, the driver and the GPU; see `BackendModule`."""
    module = load_bindings(_builder(backend))
    require_served(backend.name, Cuda(device).gpu())
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
    require_served(backend.name, gpu)
    built = find_engine(bundle, request.engine, backend=builder, architecture=gpu.architecture)
    precision = built.sidecar.parts.precision
    if request.precision is not None and request.precision != precision:
        wanted = BuildOptions(backend=builder, architectures=(gpu.architecture,))
        raise EngineError(
            f"{built.path} was built in {precision}, not {request.precision}",
            f"build it: {build_command(bundle, wanted)} --precision {request.precision}",
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
    """One built engine on one GPU, with streams of its own.

    Inputs go through pinned memory into device memory that stays where it is, so that a CUDA
    graph can be recorded over it. What a call keeps is copied to other device memory, which no
    later call overwrites; the host reads it on another stream. Calls take turns; each ends when
    its results are there. Clones share the weights, and nothing else.

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
        contract = built.limited(contract)
        super().__init__(contract, CudaTensor)
        options = options or TensorRtOptions()
        bindings = load_bindings(built.sidecar.parts.backend)
        self._cuda = Cuda(options.device)
        self._gpu = self._cuda.gpu()
        self._engine: TensorRtEngine | None = TensorRtEngine(bindings, built, contract, options)
        self._name = (
            f"{self._engine.backend} {self._engine.version} {self._gpu.name}"
            f" {self._engine.precision}"
        )
        try:
            self._separate()
        except BaseException:
            self._engine = None  # the error holds on to this object, and its weights are gigabytes
            raise

    @property
    def backend(self) -> str:
        """`tensorrt-rtx <version> <GPU> <precision>`."""
        return self._name

    @property
    def captured(self) -> bool:
        """Whether calls of the smallest shapes, such as single prompts, run as a CUDA graph."""
        return "smallest" in self._programs and self._programs["smallest"].captured

    def prepare(self) -> None:
        """Run the engine once on zeros of the smallest shapes; see `Session.prepare`."""
        with self._lifetime.call():
            engine = self._shared_engine()
            self.execute(
                {
                    spec.name: np.zeros(engine.smallest_shape(spec), spec.dtype)
                    for spec in self._contract.inputs
                }
            )

    def capture(self) -> None:
        """Record the call of the smallest shapes as a CUDA graph; later calls replay it."""
        self.prepare()
        with self._lifetime.call(), self._lock, self._stream.work():
            reason = self._programs["smallest"].capture(self._stream)
            if reason is not None:
                _log.warning(
                    "%s runs %s without a CUDA graph: %s", self._name, self._contract.name, reason
                )
            self._shared_engine().save_cache()

    def _separate(self) -> None:
        name = f"the session of {self._contract.name}"
        self._lock = threading.Lock()
        self._kept_memory = CudaMemoryPool(self._cuda, "device")
        self._buffers: dict[str, CudaMemory] = {}
        self._pinned: dict[str, CudaMemory] = {}
        self._context_memory: CudaMemory | None = None
        self._programs: dict[str, TensorRtProgram] = {}
        self._stream = CudaStream(self._cuda, name)
        try:
            self._reader = CudaReader(self._cuda, name)
        except BaseException:
            self._stream.close()
            raise

    def _run(
        self,
        inputs: Mapping[str, Tensor | DeviceTensor],
        keep: Collection[str],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> Outputs:
        engine = self._shared_engine()
        given = {name: tensor.shape for name, tensor in inputs.items()}
        engine.require_shapes(given)
        with self._lock, self._stream.work():
            program = self._program(engine, given)
            grows = program.set_shapes(given)
            for name, tensor in inputs.items():
                self._upload(name, tensor)
            program.run(self._stream)
            outputs: Outputs = {}
            for spec in self._contract.outputs:
                source, shape = self._buffers[spec.name], shapes[spec.name]
                if spec.name in keep:
                    kept = CudaTensor.from_pool(self._kept_memory, shape, spec.dtype, self._read)
                    self._stream.copy(kept.address, source.address, kept.size, "DeviceToDevice")
                    outputs[spec.name] = kept
                else:
                    pinned = self._pinned_for(spec.name)
                    host = outputs[spec.name] = pinned.array(shape, spec.dtype)
                    self._stream.copy(pinned.address, source.address, host.nbytes, "DeviceToHost")
            self._stream.wait()
            if grows:
                engine.save_cache()
            return {
                name: output.copy() if isinstance(output, np.ndarray) else output
                for name, output in outputs.items()
            }

    def _put(self, name: str, array: Tensor) -> Tensor | DeviceTensor:
        with self._lock, self._stream.work():
            kept = CudaTensor.from_pool(
                self._kept_memory, array.shape, array.dtype.name, self._read
            )
            # Frames go up one after the other: pinning memory anew takes longer than the copy.
            pinned = self._pinned_for(name)
            pinned.array(array.shape, array.dtype.name)[...] = array
            self._stream.copy(kept.address, pinned.address, kept.size, "HostToDevice")
            self._stream.wait()
            return kept

    def _release(self) -> None:
        with self._lock:
            engine, self._engine = self._engine, None
            release(
                f"the session of {self._contract.name}",
                [
                    self._cuda.use,
                    *([engine.save_cache] if engine is not None else []),
                    *(program.close for program in self._programs.values()),
                    *(block.free for block in self._memory()),
                    self._kept_memory.close,
                    self._reader.close,
                    self._stream.close,
                ],
            )
            self._programs.clear()
            self._buffers.clear()
            self._pinned.clear()
            self._context_memory = None

    def _memory(self) -> list[CudaMemory]:
        own = [*self._buffers.values(), *self._pinned.values()]
        return own if self._context_memory is None else [*own, self._context_memory]

    def _shared_engine(self) -> TensorRtEngine:
        if self._engine is None:
            raise EngineError(f"the session of {self._contract.name} is closed", "load another one")
        return self._engine

    def _program(
        self, engine: TensorRtEngine, shapes: Mapping[str, tuple[int, ...]]
    ) -> TensorRtProgram:
        """Return the context of the smallest shapes, which may be captured, or that of all others.

        A captured graph holds on to its context, so that no other shapes may be set there.
        """
        smallest = {spec.name: engine.smallest_shape(spec) for spec in self._contract.inputs}
        which = "smallest" if shapes == smallest else "others"
        program = self._programs.get(which)
        if program is None:
            for spec in (*self._contract.inputs, *self._contract.outputs):
                if spec.name not in self._buffers:
                    self._buffers[spec.name] = CudaMemory(
                        self._cuda, "device", self._largest_size(spec.name)
                    )
            if self._context_memory is None and engine.memory_size:
                # Both contexts work in it: calls take turns.
                self._context_memory = CudaMemory(self._cuda, "device", engine.memory_size)
            addresses = {name: buffer.address for name, buffer in self._buffers.items()}
            program = self._programs[which] = TensorRtProgram(
                self._cuda,
                engine.new_context(self._context_memory),
                addresses,
                self._contract.name,
            )
        return program

    def _largest_size(self, name: str) -> int:
        """Return the bytes of a tensor whose dynamic axes are as large as may be."""
        engine = self._shared_engine()
        tensors = {spec.name: spec for spec in (*self._contract.inputs, *self._contract.outputs)}
        elements = int(np.prod(engine.largest_shape(tensors[name]), dtype=np.int64))
        return elements * np.dtype(tensors[name].dtype).itemsize

    def _pinned_for(self, name: str) -> CudaMemory:
        """Return the pinned memory of a tensor that comes from the host, or goes there."""
        if name not in self._pinned:
            self._pinned[name] = CudaMemory(self._cuda, "pinned", self._largest_size(name))
        return self._pinned[name]

    def _upload(self, name: str, tensor: Tensor | DeviceTensor) -> None:
        target = self._buffers[name].address
        if isinstance(tensor, CudaTensor):
            self._stream.copy(target, tensor.address, tensor.size, "DeviceToDevice")
            return
        array = np.asarray(tensor)
        pinned = self._pinned_for(name)
        pinned.array(array.shape, array.dtype.name)[...] = array
        self._stream.copy(target, pinned.address, array.nbytes, "HostToDevice")

    def _read(self, address: int, shape: tuple[int, ...], dtype: str) -> Tensor:
        with self._lifetime.call():
            return self._reader.read(address, shape, dtype)
