"""ONNX Runtime's execution providers: which are there, and that the one asked for is in use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from zeroflaw_engines.errors import BackendUnavailableError
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
    """

    backend: str
    name: str
    device: str
    libraries: str
    remedy: str


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
        ),
        Provider(
            "onnxruntime-tensorrt",
            "TensorrtExecutionProvider",
            "cuda",
            "the NVIDIA driver, CUDA, cuDNN and TensorRT",
            _GPU_WHEEL,
        ),
        Provider(
            "onnxruntime-tensorrt-rtx",
            "NvTensorRTRTXExecutionProvider",
            "cuda",
            "the NVIDIA driver, CUDA and TensorRT-RTX",
            f"name the library of NVIDIA's plugin provider in {PLUGIN_VARIABLE}",
        ),
    )
}
CPU: Final = PROVIDERS["onnxruntime"]
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
    if provider.name in known or provider.name in _plugin_names():
        return None
    if library is not None:
        return None if library.is_file() else f"the provider library {library} does not exist"
    return f"ONNX Runtime {ort.__version__} has no {provider.name} (it has: {', '.join(known)})"


def select_provider(
    settings: ort.SessionOptions, provider: Provider, options: OnnxRuntimeOptions
) -> dict[str, Any]:
    """Put a provider into session settings.

    Args:
        settings: Changed where the provider is a plugin.

    Returns:
        Keywords for `InferenceSession`; none for a plugin.

    Raises:
        BackendUnavailableError: ONNX Runtime does not have it.
    """
    missing = missing_provider(provider, options.provider_library)
    if missing is not None:
        raise BackendUnavailableError(
            f"the backend {provider.backend} is not installed: {missing}", provider.remedy
        )
    chosen = _provider_options(provider, options)
    if provider.name in ort.get_available_providers():
        if provider.device == "cuda":
            ort.preload_dlls()  # those of NVIDIA's wheels, if the machine has them
        return {"providers": [(provider.name, chosen)]}
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
    settings.add_provider_for_devices(devices[:1], chosen)
    return {}


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


def _provider_options(provider: Provider, options: OnnxRuntimeOptions) -> Mapping[str, str]:
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
