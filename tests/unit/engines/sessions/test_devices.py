"""Which GPU runs an engine: its number reaches every backend, and a wrong one is told."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import create_autospec

import numpy as np
import onnxruntime
import pytest

from support.gpu.built_engines import publish
from support.gpu.simulated_gpu import SimulatedCuda
from support.gpu.simulated_tensorrt import SimulatedTensorRt
from zeroflaw_engines import tensorrt_bindings
from zeroflaw_engines.backends import BACKENDS, availability, choose_backend, load_session
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.errors import ArgumentError, BackendUnavailableError, EngineContractError
from zeroflaw_engines.machine import NvidiaGpu
from zeroflaw_engines.sessions import (
    cuda,
    onnxruntime_provider,
    onnxruntime_session,
    tensorrt_session,
)
from zeroflaw_engines.sessions.onnxruntime_session import OnnxRuntimeSession
from zeroflaw_engines.sessions.onnxruntime_tensor import OrtDeviceTensor, OrtMemory
from zeroflaw_engines.sessions.options import OnnxRuntimeOptions
from zeroflaw_engines.sessions.session import zeros_for

CPU_BACKENDS = [name for name, backend in BACKENDS.items() if not backend.on_gpu]
GPU = NvidiaGpu("NVIDIA L4", "sm89", "580.1", 23034)
PLUGIN = onnxruntime_provider.PROVIDERS["onnxruntime-tensorrt-rtx"]
NVIDIA = 0x10DE


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> SimulatedCuda:
    simulated = SimulatedCuda()
    simulated.devices = 2
    monkeypatch.setattr(cuda, "load_cuda", lambda: simulated)
    return simulated


def device_memory(number: int) -> onnxruntime.OrtMemoryInfo:
    """The real description of an NVIDIA GPU's memory, as a plugin provider gives it."""
    return onnxruntime.OrtMemoryInfo.create_v2(
        "Cuda",
        onnxruntime.OrtMemoryInfoDeviceType.GPU,
        NVIDIA,
        number,
        onnxruntime.OrtDeviceMemoryType.DEFAULT,
        0,
        onnxruntime.OrtAllocatorType.ORT_DEVICE_ALLOCATOR,
    )


def test_the_rows_say_which_backends_run_on_a_gpu() -> None:
    assert sorted(CPU_BACKENDS) == ["onnxruntime", "openvino"]


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_the_processor_is_device_0_alone(bundle: Bundle, backend: str) -> None:
    with pytest.raises(BackendUnavailableError, match="device 0 alone, not 1"):
        load_session(bundle, "sam_decoder", backend=backend, device=1)
    assert "device 0 alone" in availability(backend, device=1).missing


def test_auto_passes_the_processor_over_where_a_gpu_is_named(bundle: Bundle, monkeypatch) -> None:
    monkeypatch.setattr(onnxruntime_session, "nvidia_gpus", lambda: ())
    with pytest.raises(BackendUnavailableError, match="no backend here runs on GPU 1") as caught:
        choose_backend("auto", bundle=bundle, device=1)
    assert "onnxruntime (the backend onnxruntime runs on the processor" in caught.value.cause


@pytest.mark.parametrize("device", [-1, "0", 0.0, True])
def test_a_device_is_a_number(bundle: Bundle, device) -> None:
    with pytest.raises(ArgumentError, match="device is"):
        load_session(bundle, "sam_decoder", device=device)


def test_tensorrt_works_on_the_gpu_that_is_named(bundle, two_gpus, monkeypatch) -> None:
    plan = b"plan of the decoder"
    version = tensorrt_bindings.installed_version("tensorrt-rtx")
    publish(bundle, "sam_decoder", plan=plan, version=version)
    plans = {plan: (bundle.onnx_path("sam_decoder"), bundle.contract("sam_decoder"))}
    trt = SimulatedTensorRt(two_gpus, plans)
    monkeypatch.setattr(tensorrt_session, "load_bindings", lambda _: trt)
    session = load_session(bundle, "sam_decoder", backend="tensorrt-rtx", device=1)
    session.execute(zeros_for(session.contract))
    session.close()
    asked = {call.args for call in two_gpus.cudaGetDeviceProperties.call_args_list}
    used = {call.args for call in two_gpus.cudaSetDevice.call_args_list}
    assert asked == used == {(1,)}
    with pytest.raises(BackendUnavailableError) as caught:
        load_session(bundle, "sam_decoder", backend="tensorrt-rtx", device=2)
    assert caught.value.cause == "there is no GPU 2: this process sees 2, numbered 0 to 1"


def test_this_gpu_is_the_one_that_is_named(two_gpus) -> None:
    found = cuda.this_gpu(1)
    assert found is not None
    assert found.name == "Simulated GPU"
    assert two_gpus.cudaGetDeviceProperties.call_args.args == (1,)
    with pytest.raises(BackendUnavailableError, match="this process sees 2"):
        cuda.this_gpu(2)
    two_gpus.devices = 0
    assert cuda.this_gpu() is None


def test_onnxruntime_says_how_many_gpus_there_are(monkeypatch) -> None:
    monkeypatch.setattr(onnxruntime_session, "missing_provider", lambda *_: None)
    monkeypatch.setattr(onnxruntime_session, "nvidia_gpus", lambda: (GPU,))
    assert availability("onnxruntime-cuda").available
    found = availability("onnxruntime-cuda", device=1)
    assert found.missing == "there is no GPU 1: this process sees 1, numbered 0"


def test_a_number_that_only_cuda_refuses_is_no_missing_library() -> None:
    """Where CUDA_VISIBLE_DEVICES hides GPUs that nvidia-smi shows."""
    provider = onnxruntime_provider.PROVIDERS["onnxruntime-cuda"]
    said = RuntimeError("CUDA failure 101: invalid device ordinal ; GPU=3 ; hostname=x")
    error = onnxruntime_provider.provider_error(Path("a.onnx"), said, provider)
    assert error is not None
    assert "no GPU of that number" in error.cause
    assert "CUDA_VISIBLE_DEVICES" in error.remedy


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """A plugin provider that is registered, with two devices in an order of its own."""
    devices = []
    for number in (1, 0):
        device = create_autospec(onnxruntime.OrtEpDevice, instance=True)
        device.ep_name = PLUGIN.name
        device.memory_info = lambda kind, number=number: device_memory(number)
        devices.append(device)
    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: devices)
    return devices


@pytest.mark.parametrize("number", [0, 1])
def test_a_plugin_runs_on_the_device_of_that_number(plugin, number: int) -> None:
    settings = create_autospec(onnxruntime.SessionOptions, instance=True)
    options = OnnxRuntimeOptions(device=number)
    selected = onnxruntime_provider.select_provider(settings, PLUGIN, options)
    settings.add_provider_for_devices.assert_called_once_with([plugin[1 - number]], {})
    assert selected.keywords == {}
    assert selected.memory.plugin.device_id == number
    assert str(selected.memory) == f"cuda:{number}"


def test_a_plugin_that_sees_no_such_device_says_so(plugin) -> None:
    settings = onnxruntime.SessionOptions()
    with pytest.raises(BackendUnavailableError, match="this process sees 2"):
        onnxruntime_provider.select_provider(settings, PLUGIN, OnnxRuntimeOptions(device=2))


def test_a_plugin_s_tensors_come_from_its_own_allocator(monkeypatch) -> None:
    """The wheel's allocator for CUDA, which it took before, is not in a wheel without CUDA."""
    info = device_memory(0)
    memory = OrtMemory("cuda", 0, info)
    with pytest.raises(RuntimeError, match=r"No shared allocator found for.*VendorId:4318"):
        OrtDeviceTensor.empty((2, 3), "float32", memory)

    made: list[onnxruntime.OrtValue] = []
    real = onnxruntime.OrtValue.ortvalue_from_shape_and_type

    def allocate(*given, memory_info=None, **more):
        assert memory_info is info
        made.append(real(*given, **more))  # on the host, which stands in for the device
        return made[-1]

    def copy(source, target, stream=None):
        for one, other in zip(source, target, strict=True):
            other.update_inplace(one.numpy())

    value = onnxruntime.OrtValue
    monkeypatch.setattr(
        value, "ortvalue_from_shape_and_type", create_autospec(real, side_effect=allocate)
    )
    monkeypatch.setattr(
        onnxruntime, "copy_tensors", create_autospec(onnxruntime.copy_tensors, side_effect=copy)
    )
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensor = OrtDeviceTensor.uploaded(array, memory)
    np.testing.assert_array_equal(tensor.numpy(), array)
    np.testing.assert_array_equal(tensor.view((1,), (3, 1)).numpy(), [[3], [4], [5]])
    assert tensor.value is made[0]
    assert not tensor.is_on_host


def test_a_tensor_on_another_device_is_refused(bundle: Bundle) -> None:
    session = load_session(bundle, "sam_decoder", threads=1)
    assert isinstance(session, OnnxRuntimeSession)
    given = zeros_for(session.contract)
    kept = session.execute(given, keep=("low_res_logits",))["low_res_logits"]
    size = bundle.manifest.sizes.low_res_size
    part = kept.view((0, 0), (1, 1, size, size))
    session.execute({**given, "mask_input": part})
    elsewhere = OrtDeviceTensor(
        part.value, None, OrtMemory("cuda", 1), part.shape, part.dtype, part.whole, part.first
    )
    with pytest.raises(EngineContractError, match="runs on cpu, and mask_input is on cuda:1"):
        session.execute({**given, "mask_input": elsewhere})
