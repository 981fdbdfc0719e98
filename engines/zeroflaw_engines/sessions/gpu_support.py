"""Which backends serve which GPU, by its compute capability, and what to type for each.

TensorRT-RTX: the cards of NVIDIA's support matrix of 1.7. ONNX Runtime: the device code in the
wheel of onnxruntime-gpu 1.31.1, which has none to compile for other cards. TensorRT: 10 and 11.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from zeroflaw_engines.errors import BackendUnavailableError
from zeroflaw_engines.machine import Gpu

# By compute capability. What is not here is unknown, not refused.
_FAMILIES: Final = {
    "sm75": "Turing: GeForce RTX 20, GTX 16, Quadro RTX, T4",
    "sm80": "Ampere for data centres: A100, A30",
    "sm86": "Ampere: GeForce RTX 30, RTX A2000 to A6000, A2, A10, A40",
    "sm87": "Jetson Orin",
    "sm89": "Ada: GeForce RTX 40, RTX Ada, L4, L40S",
    "sm90": "Hopper for data centres: H100, H200, GH200",
    "sm100": "Blackwell for data centres: B200, GB200",
    "sm103": "Blackwell for data centres: B300, GB300",
    "sm110": "Jetson Thor",
    "sm120": "Blackwell: GeForce RTX 50, RTX PRO Blackwell",
    "sm121": "Blackwell: GB10 (DGX Spark)",
}
_JETSON: Final = ("sm87", "sm110")
_RTX: Final = ("sm86", "sm89", "sm120", "sm121")
_DEVICE_CODE: Final = ("sm75", "sm80", "sm86", "sm89", "sm90", "sm120", "sm121")  # sm120 runs there
_PHOTOS: Final = "photos/"


@dataclass(frozen=True)
class GpuService:
    """What one backend is to one GPU.

    Attributes:
        backend: Its name in `RANKING`, as `tensorrt-rtx`.
        serves: Whether the GPU runs it; None where that depends on what is installed, or nothing
            is known of the GPU.
        reason: In words.
        commands: Install, build and run; empty where it does not serve.
    """

    backend: str
    serves: bool | None
    reason: str
    commands: tuple[str, ...] = ()


def family(gpu: Gpu) -> str:
    """Return the family of cards of a GPU, with examples; empty if it is not known."""
    return _FAMILIES.get(gpu.architecture, "")


def gpu_services(gpu: Gpu, bundle: str = "my_bundle", *, device: int = 0) -> tuple[GpuService, ...]:
    """Say of each backend for GPUs whether it serves a GPU, the one to be tried first first.

    Args:
        bundle: For the commands.
        device: Number of the GPU, for the commands.
    """
    found = (
        _tensorrt_rtx(gpu, bundle, device),
        _tensorrt(gpu, bundle, device),
        _onnxruntime_cuda(gpu, bundle, device),
    )
    order = {True: 0, None: 1, False: 2}
    return tuple(sorted(found, key=lambda service: order[service.serves]))


def require_served(backend: str, gpu: Gpu) -> None:
    """Refuse a GPU that a backend is known not to serve; one that is unknown is not refused.

    Args:
        backend: Of any name.

    Raises:
        BackendUnavailableError: It says why, and what serves the GPU instead.
    """
    services = gpu_services(gpu)
    for service in services:
        if service.backend == backend and service.serves is False:
            first = services[0]
            raise BackendUnavailableError(
                f"the backend {backend} does not serve {gpu}: {service.reason}",
                f"use {first.backend}: {first.reason}; `zeroflaw doctor` gives the commands",
            )


def _tensorrt_rtx(gpu: Gpu, bundle: str, device: int) -> GpuService:
    name = "tensorrt-rtx"
    commands = (
        "pip install 'zeroflaw[tensorrt-rtx]'",
        f"zeroflaw build {bundle} --backend {name} --gpu {gpu.architecture}",
        _inspect(name, bundle, device),
    )
    if gpu.architecture in _RTX:
        return GpuService(name, True, "it is made for GeForce and RTX cards", commands)
    if gpu.architecture == "sm75":
        return GpuService(
            name, False, "for sm75 it lacks the FP32 products that zeroflaw's graphs ask for"
        )
    if gpu.architecture in _FAMILIES:
        kind = "a Jetson" if gpu.architecture in _JETSON else "a data-centre card"
        return GpuService(name, False, f"it is made for GeForce and RTX cards, and this is {kind}")
    return GpuService(name, None, "zeroflaw does not know this card: see NVIDIA's support matrix")


def _tensorrt(gpu: Gpu, bundle: str, device: int) -> GpuService:
    name = "tensorrt"
    jetson = gpu.architecture in _JETSON
    install = (
        "python -m venv --system-site-packages .venv &&"
        " .venv/bin/pip install zeroflaw cuda-bindings"
        if jetson
        else "pip install 'zeroflaw[tensorrt]' --extra-index-url https://pypi.nvidia.com"
    )
    commands = (
        install,
        f"zeroflaw build {bundle} --backend {name}{_device(device)}",
        _inspect(name, bundle, device),
    )
    if jetson:
        return GpuService(name, True, "JetPack brings it, and its Python module", commands)
    if gpu.architecture in _FAMILIES:
        return GpuService(name, True, "it is built on this very GPU, for it", commands)
    return GpuService(name, None, "zeroflaw does not know this card: see NVIDIA's support matrix")


def _onnxruntime_cuda(gpu: Gpu, bundle: str, device: int) -> GpuService:
    name = "onnxruntime-cuda"
    commands = (
        "pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]>=1.25'",
        _inspect(name, bundle, device),
    )
    if gpu.architecture in _DEVICE_CODE:
        return GpuService(name, True, "nothing is built; the slowest of them", commands)
    return GpuService(
        name,
        None,
        f"the wheel of onnxruntime-gpu 1.31.1 has no device code for {gpu.architecture}; another"
        " one, or your own build, may have it",
    )


def _inspect(backend: str, bundle: str, device: int) -> str:
    return f"zeroflaw inspect {bundle} {_PHOTOS} --backend {backend}{_device(device)}"


def _device(device: int) -> str:
    return f" --device {device}" if device else ""
