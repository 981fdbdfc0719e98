"""ONNX Runtime's execution providers: which are there, and that the one asked for is in use."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from zeroflaw_engines.errors import BackendUnavailableError
from zeroflaw_engines.machine import no_such_gpu
from zeroflaw_engines.sessions.onnxruntime_tensor import OrtMemory
from zeroflaw_engines.sessions.options import OnnxRuntimeOptions
from zeroflaw_engines.sessions.quiet_onnxruntime import ort


@dataclass(frozen=True)
class Provider:
    """One execution provider.

    Attributes:
        backend: Name of the backend that runs on it.
        name: ONNX Runtime's name for it.
        device: Where its tensors are, in ONNX Runtime's words.
        libraries: What it loads at run time.
        remedy: How to get it.
        since: ONNX Runtime's first version that has what this project asks of it. 1.25: Attention
            of ONNX on CUDA. 1.30: memory from a plugin's allocator.
    """

    backend: str
    name: str
    device: str
    libraries: str
    remedy: str
    since: tuple[int, int] = (1, 20)


@dataclass(frozen=True, eq=False)
class SelectedProvider:
    """A provider as a session is given it.

    Attributes:
        keywords: For `InferenceSession`; none for a plugin, which is in its settings.
        memory: Where its tensors are.
    """

    keywords: Mapping[str, Any]
    memory: OrtMemory


PLUGIN_VARIABLE: Final = "ZEROFLAW_TENSORRT_RTX_PROVIDER"
_GPU_WHEEL: Final = (
    "pip uninstall onnxruntime, then pip install onnxruntime-gpu: both bring the same module,"
    " so only one may be installed"
)

PROVIDERS: Final = {
    provider.backend: provider
    for provider in (
        Provider("onnxruntime", "CPUExecutionProvider", "cpu", "", "pip install onnxruntime"),
        Provider(
            "onnxruntime-cuda",
            "CUDAExecutionProvider",
            "cuda",
            "the NVIDIA driver, CUDA and cuDNN",
            _GPU_WHEEL,
            since=(1, 25),
        ),
        Provider(
            "onnxruntime-tensorrt",
            "TensorrtExecutionProvider",
            "cuda",
            "the NVIDIA driver, CUDA, cuDNN and TensorRT",
            _GPU_WHEEL,
            since=(1, 25),
        ),
        Provider(
            "onnxruntime-tensorrt-rtx",
            "NvTensorRTRTXExecutionProvider",
            "cuda",
            "the NVIDIA driver, CUDA and TensorRT-RTX",
            f"pip install 'onnxruntime>=1.30', and name the library of NVIDIA's plugin provider in"
            f" {PLUGIN_VARIABLE}",
            since=(1, 30),
        ),
    )
}
CPU: Final = PROVIDERS["onnxruntime"]
_log = logging.getLogger(__name__)
_preloading = threading.Lock()
# The bits of `AttentionBackend::MATH` in all versions: products and a softmax, nothing fused.
_UNFUSED_ATTENTION: Final = {"sdpa_kernel": str(8 | 16)}


def plugin_library() -> Path | None:
    """Return the library of a plugin provider that the environment names, if it names one."""
    named = os.environ.get(PLUGIN_VARIABLE)
    return Path(named) if named else None


def missing_provider(provider: Provider, library: Path | None = None) -> str | None:
    """Say what the installed ONNX Runtime lacks for a provider; None if it has it.

    Args:
        library: Of a plugin provider.
    """
    known = ort.get_available_providers()
    if tuple(map(int, re.findall(r"\d+", ort.__version__)[:2])) < provider.since:
        minimum = ".".join(map(str, provider.since))
        return f"ONNX Runtime {ort.__version__} is too old for {provider.name}: {minimum} is needed"
    if provider.name in known or provider.name in _plugin_names():
        return None
    if library is not None:
        return None if library.is_file() else f"the provider library {library} does not exist"
    return f"ONNX Runtime {ort.__version__} has no {provider.name} (it has: {', '.join(known)})"


def select_provider(
    settings: ort.SessionOptions, provider: Provider, options: OnnxRuntimeOptions
) -> SelectedProvider:
    """Select a provider on the GPU that the options name.

    Args:
        settings: Changed where the provider is a plugin.

    Raises:
        BackendUnavailableError: ONNX Runtime does not have it, or the plugin sees no such GPU.
    """
    missing = missing_provider(provider, options.provider_library)
    if missing is not None:
        raise BackendUnavailableError(
            f"the backend {provider.backend} is not installed: {missing}", provider.remedy
        )
    chosen = _provider_options(provider, options)
    if provider.name in ort.get_available_providers():
        if provider.device == "cuda":
            _preload_libraries()
            chosen["device_id"] = str(options.device)
        return SelectedProvider(
            {"providers": [(provider.name, chosen)]}, OrtMemory(provider.device, options.device)
        )
    if provider.name not in _plugin_names():
        try:
            ort.register_execution_provider_library(provider.name, str(options.provider_library))
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            raise BackendUnavailableError(
                f"{options.provider_library} cannot be loaded as {provider.name}: {error}",
                "install the plugin that was built for this ONNX Runtime",
            ) from error
    devices = [device for device in ort.get_ep_devices() if device.ep_name == provider.name]
    if not devices:
        raise BackendUnavailableError(
            f"{provider.name} finds no device that it can use",
            f"install {provider.libraries}; `zeroflaw doctor` shows what is there",
        )
    memories = [device.memory_info(ort.OrtDeviceMemoryType.DEFAULT) for device in devices]
    for device, memory in zip(devices, memories, strict=True):
        if memory.device_id == options.device:
            settings.add_provider_for_devices([device], chosen)
            return SelectedProvider({}, OrtMemory(provider.device, options.device, memory))
    raise BackendUnavailableError(*no_such_gpu(options.device, len(devices)))


def _preload_libraries() -> None:
    """Load the libraries of NVIDIA's wheels, if the machine has them, once in a process.

    ONNX Runtime prints what it does not find, and standard output is not its own. Two threads
    that redirected it one across the other would leave it redirected.
    """
    with _preloading:
        _preload_once()


@functools.cache
def _preload_once() -> None:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        ort.preload_dlls()
    for line in filter(None, said.getvalue().splitlines()):
        _log.warning("ONNX Runtime says: %s", line)


def require_provider(session: ort.InferenceSession, provider: Provider) -> None:
    """Make sure that ONNX Runtime did not drop to another provider on its own.

    Raises:
        BackendUnavailableError: It did.
    """
    in_use = session.get_providers()
    if in_use[:1] != [provider.name]:
        raise BackendUnavailableError(
            f"ONNX Runtime could not start {provider.name} and fell back to {', '.join(in_use)}",
            f"install {provider.libraries} in the versions of ONNX Runtime {ort.__version__};"
            " `zeroflaw doctor` shows what is there",
        )


def provider_error(
    path: Path, error: Exception, provider: Provider
) -> BackendUnavailableError | None:
    """Make the error of a provider that could not start, if that is what ONNX Runtime says."""
    text = str(error)
    if provider.device == "cpu" or not any(
        word in text for word in ("CUDA failure", "LoadLibrary", "cudaError", "cannot open shared")
    ):
        return None
    if "invalid device ordinal" in text:
        return BackendUnavailableError(
            f"{provider.name} finds no GPU of that number: {text}",
            "name one that the process sees: CUDA_VISIBLE_DEVICES says which those are",
        )
    return BackendUnavailableError(
        f"{provider.name} cannot start for {path.name}: {text}", f"install {provider.libraries}"
    )


def nodes_elsewhere(session: ort.InferenceSession, provider: Provider) -> list[str]:
    """List operators that another provider runs, as `Shape (CPUExecutionProvider)`, sorted."""
    return sorted(
        {
            f"{node.op_type} ({part.ep_name})"
            for part in session.get_provider_graph_assignment_info()
            if part.ep_name != provider.name
            for node in part.get_nodes()
        }
    )


def _plugin_names() -> set[str]:
    return {device.ep_name for device in ort.get_ep_devices()}


def _provider_options(provider: Provider, options: OnnxRuntimeOptions) -> dict[str, str]:
    if provider.name == "CUDAExecutionProvider":
        chosen = {"use_tf32": str(int(options.tf32))}
        return chosen if options.fused_attention else chosen | _UNFUSED_ATTENTION
    if provider.name == "TensorrtExecutionProvider" and options.engine_cache is not None:
        return {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(options.engine_cache),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(options.engine_cache),
        }
    if provider.name == "NvTensorRTRTXExecutionProvider" and options.engine_cache is not None:
        return {"nv_runtime_cache_path": str(options.engine_cache)}
    return {}
