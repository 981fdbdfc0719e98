"""Backends by name: availability, `auto`, and that nothing stands in for what was named."""

from __future__ import annotations

import importlib
import inspect
import sys
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from zeroflaw_engines import backends, machine
from zeroflaw_engines.backends import RANKING, availability, choose_backend, load_session
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.errors import BackendUnavailableError, EngineContractError, EngineError
from zeroflaw_engines.sessions import onnxruntime_provider, onnxruntime_session
from zeroflaw_engines.sessions.backend import Backend, BackendModule
from zeroflaw_engines.sessions.device_tensor import HostTensor, offset_of
from zeroflaw_engines.sessions.onnxruntime_session import OnnxRuntimeSession
from zeroflaw_engines.sessions.onnxruntime_tensor import OrtDeviceTensor, OrtMemory
from zeroflaw_engines.sessions.options import OnnxRuntimeOptions
from zeroflaw_engines.sessions.session import zeros_for


@pytest.fixture(scope="module")
def mini():
    return open_bundle("mini", verify_digests=False)


@pytest.mark.parametrize("backend", RANKING, ids=lambda backend: backend.name)
def test_every_backend_is_available_or_says_what_is_missing(backend) -> None:
    found = availability(backend.name)
    if found.available:
        assert found.version
        assert backend.precisions[0] in found.precisions
    else:
        assert found.missing
        assert found.remedy


@pytest.mark.parametrize("backend", RANKING, ids=lambda backend: backend.name)
def test_every_row_names_a_module_that_probes_and_loads(backend) -> None:
    module = backend.imported()
    for name in ("probe", "require", "load"):
        wanted = inspect.signature(getattr(BackendModule, name)).parameters
        got = inspect.signature(getattr(module, name)).parameters
        assert [*got] == [*wanted][1:]


def test_a_new_backend_takes_one_module_and_one_row(mini, monkeypatch) -> None:
    session, asked = SimpleNamespace(), []

    def load(_backend, request):
        asked.append((request.engine, request.precision))
        return session

    module = SimpleNamespace(
        probe=lambda backend, device: ("7.1", backend.precisions),
        require=lambda *_: None,
        load=load,
    )
    monkeypatch.setitem(sys.modules, "acme_session", module)
    acme = Backend("acme", "acme_session", ("fp16",), "an accelerator of its own")
    monkeypatch.setattr(backends, "RANKING", (acme, *RANKING))
    monkeypatch.setattr(backends, "BACKENDS", {"acme": acme, **backends.BACKENDS})
    assert availability("acme").version == "7.1"
    assert choose_backend("auto", bundle=mini).backend == "acme"
    assert load_session(mini, "clip_encoder", backend="acme", precision="fp16") is session
    assert asked == [("clip_encoder", "fp16")]


def test_a_backend_whose_library_is_missing_says_so() -> None:
    backend = Backend("missing", "zeroflaw_engines.no_such_module", ("fp32",), "is not there")
    with pytest.raises(BackendUnavailableError, match="the backend missing cannot be imported"):
        backend.imported()


@pytest.mark.parametrize("backend", RANKING, ids=lambda backend: backend.name)
def test_what_is_missing_is_an_error_when_it_is_named(mini, backend) -> None:
    if availability(backend.name).available:
        session = load_session(mini, "sam_decoder", backend=backend.name)
        assert backend.name.split("-")[0] in session.backend
        return
    with pytest.raises(BackendUnavailableError) as caught:
        load_session(mini, "sam_decoder", backend=backend.name)
    assert caught.value.remedy


def test_auto_takes_the_first_that_is_available_and_says_why(mini, monkeypatch) -> None:
    here = {"onnxruntime-cuda", "openvino", "onnxruntime"}

    def found(name, device):
        missing = "" if name in here else "no GPU"
        return backends.Availability(name, "1", missing, "", backends.BACKENDS[name].precisions)

    monkeypatch.setattr(backends, "availability", found)
    choice = choose_backend("auto", bundle=mini)
    assert (choice.backend, choice.precision) == ("onnxruntime-cuda", "fp32")
    assert "tensorrt (no GPU)" in str(choice)
    # bf16 is OpenVINO's alone; the mini bundle has no fp16 graph for CUDA.
    choice = choose_backend("auto", "bf16", bundle=mini)
    assert (choice.backend, choice.precision) == ("openvino", "bf16")
    assert "onnxruntime-cuda (not in bf16)" in choice.reason
    here -= {"openvino"}
    with pytest.raises(BackendUnavailableError, match="no backend here computes in bf16"):
        choose_backend("auto", "bf16", bundle=mini)


def test_auto_runs(mini) -> None:
    session = load_session(mini, "sam_decoder", backend="auto", threads=1)
    outputs = session.execute(zeros_for(session.contract))
    assert outputs.keys() == {spec.name for spec in session.contract.outputs}


@pytest.mark.parametrize(
    ("backend", "precision", "text"),
    [
        ("cuda", None, "there is no backend 'cuda'"),
        ("onnxruntime", "fp8", "there is no precision 'fp8'"),
        ("onnxruntime", "bf16", "the backend onnxruntime does not compute in bf16"),
        ("auto", "int8", "there is no precision 'int8'"),
    ],
)
def test_unknown_names_are_told_with_the_known_ones(mini, backend, precision, text) -> None:
    with pytest.raises(BackendUnavailableError, match=text) as caught:
        load_session(mini, "sam_decoder", backend=backend, precision=precision)
    assert "choose one of" in caught.value.remedy


@pytest.mark.parametrize("module", ["tensorrt_rtx", "cuda"])
def test_bindings_that_are_not_installed_are_told(mini, monkeypatch, module) -> None:
    real = importlib.import_module

    def refuse(name, *rest):
        if name.split(".")[0] == module:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(BackendUnavailableError, match=module) as caught:
        load_session(mini, "sam_decoder", backend="tensorrt-rtx")
    assert "pip install 'zeroflaw[tensorrt-rtx]'" in caught.value.remedy


def test_a_folder_that_is_called_tensorrt_is_no_tensorrt(monkeypatch, tmp_path) -> None:
    """Such as `engines/tensorrt` of a bundle, where a program is started in `engines`."""
    (tmp_path / "tensorrt").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    assert importlib.import_module("tensorrt").__file__ is None
    found = availability("tensorrt")
    assert found.missing == (
        "the backend tensorrt is not installed: there is no Python module tensorrt"
    )
    monkeypatch.delitem(sys.modules, "tensorrt")


def decoder_inputs(mini, seed=0):
    rng = np.random.default_rng(seed)
    given = zeros_for(mini.contract("sam_decoder"))
    for name, array in given.items():
        if array.dtype == np.float32:
            given[name] = rng.random(array.shape, np.float32)
    given["point_coords"] *= mini.manifest.sizes.sam_image_size
    return given


def test_ort_values_give_the_same_bits_as_arrays(mini) -> None:
    session = load_session(mini, "sam_decoder", threads=1)
    low = mini.manifest.sizes.low_res_size
    given = decoder_inputs(mini)
    plain = session.execute(given)
    kept = session.execute(given, keep=("low_res_logits", "predicted_iou"))
    for name, tensor in kept.items():
        assert isinstance(tensor, OrtDeviceTensor)
        assert isinstance(tensor.value, onnxruntime.OrtValue)
        assert (tensor.shape, tensor.dtype) == (plain[name].shape, "float32")
        np.testing.assert_array_equal(tensor.numpy(), plain[name])
    part = kept["low_res_logits"].view((0, 3), (1, 1, low, low))
    assert np.shares_memory(part.numpy(), kept["low_res_logits"].numpy())
    chained = session.execute({**given, "mask_input": part}, keep=("low_res_logits",))
    want = session.execute({**given, "mask_input": plain["low_res_logits"][:, 3:].copy()})
    np.testing.assert_array_equal(chained["low_res_logits"].numpy(), want["low_res_logits"])
    np.testing.assert_array_equal(chained["predicted_iou"], want["predicted_iou"])
    # A later call does not write where an earlier one kept.
    np.testing.assert_array_equal(kept["low_res_logits"].numpy(), plain["low_res_logits"])


def test_a_tensor_outlives_its_session(mini) -> None:
    session = load_session(mini, "sam_decoder", threads=1)
    given = decoder_inputs(mini)
    want = session.execute(given)["predicted_iou"]
    kept = session.execute(given, keep=("predicted_iou",))["predicted_iou"]
    session.close()
    np.testing.assert_array_equal(kept.numpy(), want)
    with pytest.raises(EngineError, match="is closed"):
        session.execute(given)


def test_tensors_of_another_backend_are_refused(mini) -> None:
    session = load_session(mini, "sam_decoder", threads=1)
    given = decoder_inputs(mini)
    with pytest.raises(EngineContractError, match="not a HostTensor"):
        session.execute({**given, "features": HostTensor(given["features"])})


def test_views_of_tensors() -> None:
    whole = HostTensor(np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    np.testing.assert_array_equal(whole.view((1, 2), (1, 4)).numpy(), [[20, 21, 22, 23]])
    assert offset_of((2, 3, 4), (1, 2), (2, 2)) == 20
    assert offset_of((2, 3, 4), (), (24,)) == 0
    for index in ((2,), (0, 3), (-1,), (0, 0, 0, 0)):
        with pytest.raises(IndexError):
            whole.view(index, (4,))
    with pytest.raises(ValueError, match="cannot be seen"):
        whole.view((0,), (4,))


def test_falling_back_to_the_cpu_is_an_error(mini, monkeypatch) -> None:
    """ONNX Runtime itself drops a provider that cannot start, and goes on."""
    cuda = onnxruntime_provider.PROVIDERS["onnxruntime-cuda"]
    monkeypatch.setattr(onnxruntime_provider, "select_provider", None)
    monkeypatch.setattr(
        "zeroflaw_engines.sessions.onnxruntime_session.select_provider",
        lambda *_: onnxruntime_provider.SelectedProvider(
            {"providers": ["CPUExecutionProvider"]}, OrtMemory("cuda")
        ),
    )
    with pytest.raises(BackendUnavailableError, match="fell back to CPUExec") as caught:
        OnnxRuntimeSession(
            mini.onnx_path("sam_decoder"), mini.contract("sam_decoder"), provider=cuda
        )
    assert "CUDA and cuDNN" in caught.value.remedy


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        # 8 | 16: neither flash nor memory-efficient attention, which are wrong for SAM there.
        (OnnxRuntimeOptions(), {"device_id": "0", "use_tf32": "0", "sdpa_kernel": "24"}),
        (
            OnnxRuntimeOptions(fused_attention=True, tf32=True, device=1),
            {"device_id": "1", "use_tf32": "1"},
        ),
    ],
)
def test_cuda_computes_attention_without_its_fused_kernels(monkeypatch, options, chosen) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    cuda = onnxruntime_provider.PROVIDERS["onnxruntime-cuda"]
    got = onnxruntime_provider.select_provider(onnxruntime.SessionOptions(), cuda, options)
    assert got.keywords == {"providers": [("CUDAExecutionProvider", chosen)]}
    assert str(got.memory) == f"cuda:{options.device}"


def test_nodes_of_other_providers_are_counted(mini) -> None:
    settings = onnxruntime.SessionOptions()
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(
        str(mini.onnx_path("sam_decoder")), settings, providers=["CPUExecutionProvider"]
    )
    assert onnxruntime_provider.nodes_elsewhere(session, onnxruntime_provider.CPU) == []
    cuda = onnxruntime_provider.PROVIDERS["onnxruntime-cuda"]
    assert "MatMul (CPUExecutionProvider)" in " ".join(
        onnxruntime_provider.nodes_elsewhere(session, cuda)
    ).replace("FusedMatMul", "MatMul")


def test_a_plugin_library_that_is_missing_is_named(mini, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv(onnxruntime_provider.PLUGIN_VARIABLE, str(tmp_path / "plugin.so"))
    with pytest.raises(BackendUnavailableError, match=r"plugin\.so does not exist"):
        load_session(mini, "sam_decoder", backend="onnxruntime-tensorrt-rtx")
    (tmp_path / "plugin.so").write_bytes(b"no library")
    with pytest.raises(BackendUnavailableError, match=r"plugin\.so cannot be loaded"):
        load_session(mini, "sam_decoder", backend="onnxruntime-tensorrt-rtx")


def test_nvidia_smi_is_read(monkeypatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    said = "NVIDIA L4, 580.1, 23034, 8.9\nnonsense\nNVIDIA GB10, 580.9, [N/A], 12.1\n"
    monkeypatch.setattr(machine.subprocess, "run", lambda *a, **k: SimpleNamespace(stdout=said))
    assert machine.nvidia_gpus() == (
        machine.NvidiaGpu("NVIDIA L4", "sm89", "580.1", 23034),
        machine.NvidiaGpu("NVIDIA GB10", "sm121", "580.9", None),  # it shares the machine's memory
    )

    def fail(*a, **k):
        raise OSError("no driver")

    monkeypatch.setattr(machine.subprocess, "run", fail)
    assert machine.nvidia_gpus() == ()
    monkeypatch.setattr(machine.shutil, "which", lambda _: None)
    assert machine.nvidia_gpus() == ()


@pytest.mark.parametrize(
    ("chosen", "visible"),
    [
        (None, 3), ("0,2", 2), ("1", 1), ("", 0), ("-1", 0), ("0,7,1", 1), ("GPU-8932f937", 1),
        (" 2 , MIG-4b ", 2), ("NoDevFiles", 0),
    ],
)  # fmt: skip
def test_gpus_that_cuda_hides_are_not_counted(monkeypatch, chosen, visible) -> None:
    if chosen is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert machine.visible_gpus(3) == visible


def test_a_hidden_gpu_is_not_available_to_onnxruntime(monkeypatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    gpus = [machine.NvidiaGpu(f"GPU {number}", "sm89", "580.1", 1) for number in range(2)]
    monkeypatch.setattr(onnxruntime_session, "nvidia_gpus", lambda: tuple(gpus))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert availability("onnxruntime-cuda").available
    found = availability("onnxruntime-cuda", device=1)
    assert not found.available
    assert "sees 1" in str(found.missing)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "hides every GPU" in str(availability("onnxruntime-cuda").missing)


def test_a_gpu_is_read_as_it_was_written() -> None:
    gpu = machine.NvidiaGpu("NVIDIA RTX (Ada) 4000", "sm89", "580.1", 23034)
    assert str(gpu) == "NVIDIA RTX (Ada) 4000 (sm89)"
    assert machine.Gpu.parse(str(gpu)) == machine.Gpu(gpu.name, gpu.architecture)


def test_the_processor_is_read(tmp_path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("model name : Some CPU\nflags : fpu avx2 avx512_bf16\n\nmodel name : Other\n")
    found = machine.this_machine(file)
    assert (found.processor, found.features) == ("Some CPU", ("avx2", "avx512_bf16"))
    assert found.cores >= 1
    assert machine.this_machine(tmp_path / "gone").features is None


def test_backends_are_not_imported_before_they_are_used() -> None:
    import subprocess

    code = (
        "import sys, zeroflaw_engines.backends;"
        "heavy = ('openvino', 'tensorrt_rtx', 'cuda', 'onnxruntime');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
