"""Sessions on ONNX Runtime, on the provider that is asked for and no other."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.graph_entries import graph_target
from zeroflaw_engines.contract import EngineContract, EngineName, TensorSpec
from zeroflaw_engines.errors import (
    BackendUnavailableError,
    EngineContractError,
    EngineError,
    ZeroflawError,
)
from zeroflaw_engines.machine import no_such_gpu, nvidia_gpus, visible_gpus
from zeroflaw_engines.process.cores import engine_threads
from zeroflaw_engines.sessions.backend import Backend, SessionRequest
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, Tensor
from zeroflaw_engines.sessions.onnxruntime_provider import (
    CPU,
    PROVIDERS,
    Provider,
    missing_provider,
    nodes_elsewhere,
    plugin_library,
    provider_error,
    require_provider,
    select_provider,
)
from zeroflaw_engines.sessions.onnxruntime_tensor import OrtDeviceTensor, OrtMemory
from zeroflaw_engines.sessions.options import OnnxRuntimeOptions
from zeroflaw_engines.sessions.quiet_onnxruntime import ort, quiet_settings
from zeroflaw_engines.sessions.session import CheckedSession, Outputs, check_graph

_DTYPES: Final = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
_HOST: Final = OrtMemory()
# ONNX Runtime's CPU kernel of this fusion takes four times as long as the sum and the norm on
# their own: 11 of 77 ms of a decoder call at full size.
_SLOWER_FUSIONS: Final = ["SkipLayerNormFusion"]
# In FP16 on the CPU, a later pass follows a null pointer of what this fusion leaves behind where
# the first axis is dynamic: onnxruntime issue 28392, still in 1.32.0.
_CRASHING_FUSIONS: Final = ["MatmulTransposeFusion"]

_log = logging.getLogger(__name__)


def probe(backend: Backend, device: int) -> tuple[str, tuple[str, ...]]:
    """Look for the backend's provider; see `BackendModule`."""
    provider = PROVIDERS[backend.name]
    missing = missing_provider(provider, plugin_library())
    if missing is not None:
        raise BackendUnavailableError(missing, provider.remedy)
    if provider.device == "cuda":
        gpus = nvidia_gpus()
        if not gpus:
            raise BackendUnavailableError(
                "there is no NVIDIA GPU or no driver (nvidia-smi shows none)",
                "install the NVIDIA driver of this GPU and restart",
            )
        visible = visible_gpus(len(gpus))
        if device >= visible:
            raise BackendUnavailableError(*no_such_gpu(device, visible))
    return str(ort.__version__), backend.precisions


def require(
    backend: Backend,  # noqa: ARG001 - all providers run the same graphs
    bundle: Bundle,
    engines: Sequence[EngineName],
    precision: str,
    device: int,  # noqa: ARG001 - and on every GPU
) -> None:
    """Check that the bundle has FP16 graphs, if that is the precision; see `BackendModule`.

    Every bundle has the graphs in FP32.
    """
    if precision == "fp16":
        for engine in engines:
            bundle.graph(engine, graph_target(precision))


def load(backend: Backend, request: SessionRequest) -> OnnxRuntimeSession:
    """Load one engine on the backend's provider; see `BackendModule`."""
    precision = request.precision or backend.precisions[0]
    graph = request.bundle.graph(request.engine, graph_target(precision))
    _log.info("%s runs the %s graph %s", backend.name, graph.precision, graph.path.name)
    return OnnxRuntimeSession(
        graph.path,
        request.bundle.contract(request.engine),
        options=OnnxRuntimeOptions(
            threads=request.threads,
            engine_cache=request.model_cache,
            provider_library=plugin_library(),
            device=request.device,
        ),
        provider=PROVIDERS[backend.name],
        precision=precision,
    )


class OnnxRuntimeSession(CheckedSession):
    """One graph on one of ONNX Runtime's providers.

    External weights are mapped, not copied, and large engines give their working memory back
    after each call; see `OnnxRuntimeOptions`.

    Args:
        threads: Threads inside one operator, if there are no options; 0 takes every core.
        precision: Of the graph; inputs and outputs are those of the contract.

    Raises:
        BackendUnavailableError: ONNX Runtime lacks the provider, or cannot start it.
        EngineError: ONNX Runtime cannot load the graph.
        EngineContractError: The graph's tensors are not those of the contract.
    """

    def __init__(
        self,
        path: Path,
        contract: EngineContract,
        *,
        threads: int = 0,
        options: OnnxRuntimeOptions | None = None,
        provider: Provider = CPU,
        precision: str = "fp32",
    ) -> None:
        options = options or OnnxRuntimeOptions(threads=threads)
        weights = path.with_name(path.name + ".data")
        weights_bytes = weights.stat().st_size if weights.exists() else 0
        super().__init__(contract, OrtDeviceTensor)
        self._provider = provider
        self._precision = precision
        self._run_options = ort.RunOptions()
        if provider is CPU and weights_bytes >= options.shrink_arena_from:
            self._run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        settings = _settings(options, external_weights=weights_bytes > 0)
        self._session, self._memory = _inference_session(
            path, settings, provider, options, _disabled(contract, provider, precision)
        )
        check_graph(
            contract,
            [_spec(value) for value in self._session.get_inputs()],
            [_spec(value) for value in self._session.get_outputs()],
            str(path),
        )
        if provider is not CPU:
            require_provider(self._session, provider)
            elsewhere = nodes_elsewhere(self._session, provider)
            if elsewhere:
                _log.warning("%s leaves to others: %s", provider.name, ", ".join(elsewhere))

    @property
    def backend(self) -> str:
        """`onnxruntime <version> <provider>`, the GPU but for 0, and the precision but for fp32."""
        name = f"onnxruntime {ort.__version__} {self._provider.name}"
        if self._memory.number:
            name += f" on GPU {self._memory.number}"
        return name if self._precision == "fp32" else f"{name} {self._precision}"

    def capture(self) -> None:
        """Do nothing: ONNX Runtime's own CUDA graphs would fix the addresses of every tensor."""

    def _run(
        self,
        inputs: Mapping[str, Tensor | DeviceTensor],
        keep: Collection[str],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> Outputs:
        names = [spec.name for spec in self._contract.outputs]
        try:
            if keep or not all(isinstance(tensor, np.ndarray) for tensor in inputs.values()):
                return self._run_bound(inputs, keep, shapes)
            values = self._session.run(names, dict(inputs), self._run_options)
        except ZeroflawError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            raise EngineError(
                f"ONNX Runtime failed in {self._contract.name}: {error}",
                "check the memory that is free; `zeroflaw bundle verify` checks the bundle",
            ) from error
        return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}

    def _put(self, name: str, array: Tensor) -> Tensor | DeviceTensor:  # noqa: ARG002
        on_host = self._memory.device == "cpu"
        return array if on_host else OrtDeviceTensor.uploaded(array, self._memory)

    def _release(self) -> None:
        del self._session

    def _run_bound(
        self,
        inputs: Mapping[str, Tensor | DeviceTensor],
        keep: Collection[str],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> Outputs:
        binding = self._session.io_binding()
        for name, tensor in inputs.items():
            if isinstance(tensor, OrtDeviceTensor):
                self._require_here(name, tensor)
                tensor.bind_input(binding, name)
            else:
                binding.bind_cpu_input(name, tensor)
        outputs = {}
        for spec in self._contract.outputs:
            memory = self._memory if spec.name in keep else _HOST
            output = OrtDeviceTensor.empty(shapes[spec.name], spec.dtype, memory)
            output.bind_output(binding, spec.name)
            outputs[spec.name] = output
        self._session.run_with_iobinding(binding, self._run_options)
        return {
            name: output if name in keep else output.numpy() for name, output in outputs.items()
        }

    def _require_here(self, name: str, tensor: OrtDeviceTensor) -> None:
        if not tensor.memory.is_that_of(self._memory):
            raise EngineContractError(
                f"{self._contract.name} runs on {self._memory}, and {name} is on {tensor.memory}",
                "give a NumPy array, or what a session on the same device kept",
            )


def _settings(options: OnnxRuntimeOptions, *, external_weights: bool) -> ort.SessionOptions:
    settings = quiet_settings()
    settings.intra_op_num_threads = engine_threads(options.threads)
    settings.enable_mem_pattern = options.memory_patterns
    spin = "1" if options.spin else "0"
    settings.add_session_config_entry("session.intra_op.allow_spinning", spin)
    if external_weights and not options.prepack_external_weights:
        settings.add_session_config_entry("session.disable_prepacking", "1")
    return settings


def _disabled(contract: EngineContract, provider: Provider, precision: str) -> list[str] | None:
    if provider is not CPU:
        return None
    batches = precision == "fp16" and contract.max_batch > 1
    return [*_SLOWER_FUSIONS, *(_CRASHING_FUSIONS if batches else ())]


def _inference_session(
    path: Path,
    settings: ort.SessionOptions,
    provider: Provider,
    options: OnnxRuntimeOptions,
    disabled: list[str] | None,
) -> tuple[ort.InferenceSession, OrtMemory]:
    if provider is not CPU:
        settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    chosen = select_provider(settings, provider, options)
    try:
        session = ort.InferenceSession(
            str(path), settings, disabled_optimizers=disabled, **chosen.keywords
        )
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise provider_error(path, error, provider) or EngineError(
            f"ONNX Runtime cannot load {path}: {error}",
            "verify the bundle with `zeroflaw bundle verify` and export it again",
        ) from error
    session.disable_fallback()
    return session, chosen.memory.of(session)


def _spec(value: ort.NodeArg) -> TensorSpec:
    shape = tuple(n if isinstance(n, int) else str(n) for n in value.shape)
    return TensorSpec(value.name, _DTYPES.get(value.type, value.type), shape)
