"""Sessions on OpenVINO's CPU plugin."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np

from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.contract import EngineContract, EngineName, TensorSpec
from zeroflaw_engines.errors import BackendUnavailableError, EngineError
from zeroflaw_engines.process.cores import engine_threads
from zeroflaw_engines.process.telemetry import import_openvino
from zeroflaw_engines.sessions.backend import Backend, SessionRequest
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, HostTensor, Tensor, on_host
from zeroflaw_engines.sessions.options import OpenVinoOptions
from zeroflaw_engines.sessions.session import CheckedSession, Outputs, check_graph

_DEVICE: Final = "CPU"
# OpenVINO's names of precisions: in the hint, and in the capabilities of a device.
_HINTS: Final = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES: Final = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16"}
_DTYPES: Final = {
    "f32": "float32",
    "f16": "float16",
    "u8": "uint8",
    "i32": "int32",
    "i64": "int64",
    "boolean": "bool",
}

_log = logging.getLogger(__name__)


def probe(backend: Backend, device: int) -> tuple[str, tuple[str, ...]]:  # noqa: ARG001 - one row
    """Look for OpenVINO and what the processor computes in; see `BackendModule`."""
    module: Any = load_openvino()
    return openvino_version(module), precisions_of(module.Core())


def require(
    backend: Backend, bundle: Bundle, engines: Sequence[EngineName], precision: str, device: int
) -> None:
    """Check nothing: every bundle has a graph for OpenVINO, which lowers its precision itself."""


def load(backend: Backend, request: SessionRequest) -> OpenVinoSession:
    """Load one engine on OpenVINO; see `BackendModule`."""
    return OpenVinoSession(
        request.bundle.graph(request.engine, "openvino").path,
        request.bundle.contract(request.engine),
        options=OpenVinoOptions(threads=request.threads, model_cache=request.model_cache),
        precision=request.precision or backend.precisions[0],
    )


class OpenVinoSession(CheckedSession):
    """One graph on OpenVINO's CPU plugin.

    Each concurrent call has an infer request of its own; inputs and outputs are NumPy memory
    that OpenVINO reads and writes in place.

    Args:
        precision: What it computes in; inputs and outputs stay those of the contract.

    Raises:
        BackendUnavailableError: OpenVINO is not installed, or the processor lacks the precision.
        EngineError: OpenVINO cannot load the graph.
        EngineContractError: The graph's tensors are not those of the contract.
    """

    def __init__(
        self,
        path: Path,
        contract: EngineContract,
        *,
        options: OpenVinoOptions | None = None,
        precision: str = "fp32",
    ) -> None:
        super().__init__(contract, HostTensor)
        self._openvino = load_openvino()
        self._precision = precision
        core = self._openvino.Core()
        require_precision(core, precision)
        self._model: Any = self._compile(core, path, options or OpenVinoOptions())
        self._free: list[Any] = []
        self._lock = threading.Lock()

    @property
    def backend(self) -> str:
        """`openvino <version> CPU <precision>`."""
        return f"openvino {openvino_version(self._openvino)} {_DEVICE} {self._precision}"

    def capture(self) -> None:
        """Do nothing: there are no CUDA graphs here."""

    def _run(
        self,
        inputs: Mapping[str, Tensor | DeviceTensor],
        keep: Collection[str],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> Outputs:
        outputs = {
            spec.name: np.empty(shapes[spec.name], spec.dtype) for spec in self._contract.outputs
        }
        # An `ov.Tensor` does not keep its memory alive: these names do, until the call has ended.
        arrays = {name: _writable(on_host(tensor)) for name, tensor in inputs.items()}
        with self._request() as request:
            try:
                for name, array in arrays.items():
                    request.set_tensor(name, self._shared(array))
                for name, array in outputs.items():
                    request.set_tensor(name, self._shared(array))
                # On OpenVINO's own threads: what it keeps for a thread that computes waits, at the
                # end of a fork, for threads that the fork does not have.
                try:
                    request.start_async()
                finally:  # an interrupt must not free memory under a request that runs
                    request.wait()
            except RuntimeError as error:
                raise EngineError(
                    f"OpenVINO failed in {self._contract.name}: {error}",
                    "check the memory that is free; `zeroflaw bundle verify` checks the bundle",
                ) from error
        return {
            name: HostTensor(array) if name in keep else array for name, array in outputs.items()
        }

    def _release(self) -> None:
        self._model = None
        self._free = []  # a clone still uses the list

    def _compile(self, core: Any, path: Path, options: OpenVinoOptions) -> Any:  # noqa: ANN401
        """Compile the graph; OpenVINO's objects are loaded lazily and have no static type."""
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[self._precision],
            "PERFORMANCE_HINT": options.performance_hint,
            "INFERENCE_NUM_THREADS": engine_threads(options.threads),
            "ENABLE_MMAP": options.map_weights,
        }
        if options.model_cache is not None:
            settings["CACHE_DIR"] = str(options.model_cache)
        try:
            model = core.read_model(str(path))
            check_graph(self._contract, _specs(model.inputs), _specs(model.outputs), str(path))
            compiled = core.compile_model(model, _DEVICE, settings)
            chosen = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        except RuntimeError as error:
            raise EngineError(
                f"OpenVINO cannot load {path}: {error}",
                "verify the bundle with `zeroflaw bundle verify` and export it again",
            ) from error
        if chosen != _HINTS[self._precision]:
            raise BackendUnavailableError(
                f"OpenVINO would compute {self._contract.name} in {chosen}, not {self._precision}",
                "choose a precision that `zeroflaw doctor` lists for openvino",
            )
        return compiled

    def _shared(self, array: Tensor) -> Any:  # noqa: ANN401 - as above
        return self._openvino.Tensor(array, shared_memory=True)

    @contextmanager
    def _request(self) -> Iterator[Any]:
        """Give the caller an infer request of its own; there are as many as were in use at once."""
        with self._lock:
            request = self._free.pop() if self._free else self._model.create_infer_request()
        try:
            yield request
        finally:
            with self._lock:
                self._free.append(request)


def load_openvino() -> ModuleType:
    """Load OpenVINO's module.

    Raises:
        BackendUnavailableError: It is not installed, or its libraries cannot be loaded.
    """
    try:
        return import_openvino()
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(
            f"the backend openvino is not installed: there is no Python module {error.name}",
            "pip install 'zeroflaw[openvino]'",
        ) from error
    except (ImportError, OSError) as error:
        raise BackendUnavailableError(
            f"the libraries of OpenVINO cannot be loaded: {error}",
            "install it again: pip install --force-reinstall openvino",
        ) from error


def openvino_version(module: ModuleType) -> str:
    """Return the version of OpenVINO, without its build number."""
    return str(module.__version__).partition("-")[0]


def precisions_of(core: Any) -> tuple[str, ...]:  # noqa: ANN401 - OpenVINO is loaded lazily
    """List the precisions that OpenVINO computes in on this processor."""
    capabilities = core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
    return tuple(name for name, capability in _CAPABILITIES.items() if capability in capabilities)


def require_precision(core: Any, precision: str) -> None:  # noqa: ANN401 - as above
    """Refuse a precision that OpenVINO would not compute in: it would take another silently.

    Raises:
        BackendUnavailableError: The processor lacks it.
    """
    known = precisions_of(core)
    if precision not in known:
        raise BackendUnavailableError(
            f"OpenVINO does not compute in {precision} on this processor"
            f" ({core.get_property(_DEVICE, 'FULL_DEVICE_NAME')}), only in {', '.join(known)}",
            f"choose --precision {known[0]}, or a processor with {precision} instructions",
        )


def _writable(array: Tensor) -> Tensor:
    """Return the array, or a copy of a read-only one: OpenVINO shares writable memory alone."""
    return array if array.flags.writeable else array.copy()


def _specs(ports: Any) -> list[TensorSpec]:  # noqa: ANN401 - as above
    return [
        TensorSpec(
            port.any_name,
            _DTYPES.get(port.element_type.get_type_name(), port.element_type.get_type_name()),
            tuple(
                axis.get_length() if axis.is_static else f"axis_{number}"
                for number, axis in enumerate(port.partial_shape)
            ),
        )
        for port in ports
    ]
