"""Sessions on built engines: their logic on a simulated GPU, with the real signatures."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from support.gpu.built_engines import publish
from support.gpu.engine_calls import decoder_inputs, engine_version, load, reference
from support.gpu.simulated_gpu import argument_counts
from zeroflaw_engines.backends import availability, load_session
from zeroflaw_engines.builder.parity import fixed_inputs
from zeroflaw_engines.built_engines import lookup as engine_lookup
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.errors import (
    BackendUnavailableError,
    EngineContractError,
    EngineDamagedError,
    EngineError,
    EngineMissingError,
    EngineStaleError,
)
from zeroflaw_engines.files import temporary_pattern
from zeroflaw_engines.sessions.cuda_tensor import CudaTensor
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, HostTensor
from zeroflaw_engines.sessions.tensorrt import engine as tensorrt_engine


@pytest.mark.parametrize("captured", [False, True])
def test_outputs_are_those_of_the_graph(bundle: Bundle, gpu, captured: bool) -> None:
    session = load(bundle, "sam_decoder")
    session.prepare()
    if captured:
        session.capture()
    assert session.captured == captured
    launches = gpu.cuda.calls["cudaGraphLaunch"]
    for seed, batch in enumerate((1, 3, 1, 2)):
        inputs = decoder_inputs(bundle, batch, seed)
        got, want = session.execute(inputs), reference(bundle, "sam_decoder", inputs)
        for name in want:
            np.testing.assert_array_equal(got[name], want[name])
    # The single prompts alone run as a graph, in a context that no other shape is set in.
    assert gpu.cuda.calls["cudaGraphLaunch"] - launches == (2 if captured else 0)
    assert gpu.contexts == 2


def test_results_are_the_callers_own(bundle: Bundle, gpu) -> None:
    session = load(bundle, "sam_decoder")
    calls = [decoder_inputs(bundle, seed=seed) for seed in range(3)]
    got = [session.execute(call, keep=("low_res_logits",)) for call in calls]
    for call, outputs in zip(calls, got, strict=True):
        want = reference(bundle, "sam_decoder", call)
        assert isinstance(outputs["low_res_logits"], DeviceTensor)
        np.testing.assert_array_equal(outputs["low_res_logits"].numpy(), want["low_res_logits"])
        np.testing.assert_array_equal(outputs["predicted_iou"], want["predicted_iou"])


def test_features_and_logits_go_from_engine_to_engine_on_the_device(bundle: Bundle, gpu) -> None:
    sizes = bundle.manifest.sizes
    side, low = sizes.sam_image_size, sizes.low_res_size
    image = np.random.default_rng(1).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    encoder, decoder = load(bundle, "sam_encoder"), load(bundle, "sam_decoder")
    encoded = {"image": image, "image_size": np.array([side, side], np.int32)}
    gpu.cuda.copies.clear()
    features = encoder.execute(encoded, keep=("features",))["features"]
    assert {kind for kind, _ in gpu.cuda.copies} == {"HostToDevice", "DeviceToDevice"}
    inputs = {**decoder_inputs(bundle), "features": features}
    kept = decoder.execute(inputs, keep=("low_res_logits",))
    part = kept["low_res_logits"].view((0, 2), (1, 1, low, low))
    gpu.cuda.copies.clear()
    chained = decoder.execute({**inputs, "mask_input": part}, keep=("low_res_logits",))
    sizes_up = [size for kind, size in gpu.cuda.copies if kind == "HostToDevice"]
    assert max(sizes_up) < part.size  # neither features nor logits came from the host
    sizes_down = [size for kind, size in gpu.cuda.copies if kind == "DeviceToHost"]
    assert sizes_down == [4 * 4]  # the predicted IoUs
    host = reference(bundle, "sam_encoder", encoded)["features"]
    np.testing.assert_array_equal(features.numpy(), host)
    first = reference(bundle, "sam_decoder", {**inputs, "features": host})["low_res_logits"]
    np.testing.assert_array_equal(part.numpy()[0, 0], first[0, 2])
    again = {**inputs, "features": host, "mask_input": first[:, 2:3]}
    want = reference(bundle, "sam_decoder", again)["low_res_logits"]
    np.testing.assert_array_equal(chained["low_res_logits"].numpy(), want)


def test_a_bank_goes_up_once_and_nothing_but_the_map_comes_down(bundle: Bundle, gpu) -> None:
    encoder, matcher = load(bundle, "clip_encoder"), load(bundle, "reference_matcher")
    inputs = fixed_inputs(matcher.contract)
    bank = matcher.upload("bank", inputs["bank"])
    assert isinstance(bank, CudaTensor)
    tokens = encoder.execute(fixed_inputs(encoder.contract), keep=("patch_tokens",))["patch_tokens"]
    gpu.cuda.copies.clear()
    given = {**inputs, "bank": bank, "patch_tokens": tokens}
    first, second = matcher.execute(given), matcher.execute(given)
    assert [size for kind, size in gpu.cuda.copies if kind == "HostToDevice"] == [4, 4]
    size = 4 * bundle.manifest.sizes.clip_image_size**2
    assert [size for kind, size in gpu.cuda.copies if kind == "DeviceToHost"] == [size, size]
    want = reference(bundle, "reference_matcher", {**inputs, "patch_tokens": tokens.numpy()})
    for got in (first, second):
        np.testing.assert_array_equal(got["reference_map"], want["reference_map"])
    with pytest.raises(EngineContractError, match="takes no input banks"):
        matcher.upload("banks", inputs["bank"])


def test_kept_memory_is_used_again_once_it_is_garbage(bundle: Bundle, gpu) -> None:
    session = load(bundle, "sam_decoder")
    inputs = decoder_inputs(bundle)
    whole = session.execute(inputs, keep=("low_res_logits",))["low_res_logits"]
    part = whole.view((0, 1), whole.shape[2:])
    want = part.numpy()
    del whole  # the part holds on to the memory
    allocated = gpu.cuda.calls["cudaMalloc"]
    session.execute(decoder_inputs(bundle, seed=9), keep=("low_res_logits",))
    gc.collect()
    assert gpu.cuda.calls["cudaMalloc"] == allocated + 1
    np.testing.assert_array_equal(part.numpy(), want)
    for seed in range(4):
        session.execute(decoder_inputs(bundle, seed=seed), keep=("low_res_logits",))
        gc.collect()
    assert gpu.cuda.calls["cudaMalloc"] == allocated + 1


def test_threads_take_turns(bundle: Bundle, gpu) -> None:
    session = load(bundle, "sam_decoder")
    calls = [decoder_inputs(bundle, 1 + seed % 2, seed) for seed in range(6)]
    with ThreadPoolExecutor(4) as pool:
        for call, got in zip(calls, pool.map(session.execute, calls), strict=True):
            want = reference(bundle, "sam_decoder", call)
            np.testing.assert_array_equal(got["low_res_logits"], want["low_res_logits"])


def test_closing_frees_everything_and_ends_the_session(bundle: Bundle, gpu) -> None:
    session = load(bundle, "sam_decoder")
    session.capture()
    session.execute(decoder_inputs(bundle, 2))
    kept = session.execute(decoder_inputs(bundle), keep=("low_res_logits",))["low_res_logits"]
    session.close()
    session.close()
    with pytest.raises(EngineError, match="is closed"):
        session.execute(decoder_inputs(bundle))
    with pytest.raises(EngineError, match="is closed"):
        kept.numpy()
    del kept
    gc.collect()
    assert not gpu.cuda.memory
    assert not gpu.cuda.queues
    assert not gpu.cuda.graphs


def test_an_engine_that_cannot_be_captured_runs_without(bundle: Bundle, gpu, caplog) -> None:
    gpu.capturable = False
    session = load(bundle, "sam_decoder")
    session.capture()
    assert not session.captured
    assert "without a CUDA graph" in caplog.text
    assert not gpu.cuda.calls["cudaStreamBeginCapture"]


def test_the_runtime_cache_is_kept_from_start_to_start(bundle: Bundle, gpu, caplog) -> None:
    session = load(bundle, "sam_decoder")
    session.prepare()
    assert gpu.loaded_cache is None
    session.close()
    (file,) = Path(bundle.path).rglob("sam_decoder.runtime_cache")
    assert file.read_bytes() == gpu.compiled
    session = load(bundle, "sam_decoder")
    session.prepare()
    assert gpu.loaded_cache == gpu.compiled
    written = file.stat().st_mtime_ns
    session.close()
    assert file.stat().st_mtime_ns == written
    assert not list(file.parent.glob(temporary_pattern(file.name)))


def test_too_many_prompts_are_refused(bundle: Bundle, gpu) -> None:
    gpu.most = 2
    session = load(bundle, "sam_decoder")
    with pytest.raises(EngineContractError, match=r"takes 1 to 2 in the axis 'batch' .*, not 3"):
        session.execute(decoder_inputs(bundle, 3))


def test_tensors_of_another_backend_are_refused(bundle: Bundle, gpu) -> None:
    session = load(bundle, "sam_decoder")
    inputs = decoder_inputs(bundle)
    inputs["features"] = HostTensor(inputs["features"])
    with pytest.raises(EngineContractError, match="not a HostTensor"):
        session.execute(inputs)


def test_a_plan_that_is_not_for_this_gpu_says_what_the_library_said(bundle: Bundle, gpu) -> None:
    gpu.graphs.clear()
    with pytest.raises(EngineError, match="the plan is not for this GPU") as caught:
        load(bundle, "sam_decoder")
    assert "engines explain" in caught.value.remedy


def test_engines_for_other_architectures_versions_or_of_other_bytes(bundle: Bundle, gpu) -> None:
    paths = publish(bundle, "sam_decoder", architectures=("sm86",), version=engine_version())
    (bundle.path / "engines" / "tensorrt-rtx" / "sm86-sm89" / "sam_decoder.json").unlink()
    with pytest.raises(EngineMissingError, match=r"sm89.*there are some for sm86") as caught:
        load(bundle, "sam_decoder")
    assert "zeroflaw build" in caught.value.remedy
    publish(bundle, "sam_decoder", version="1.0.0.1")
    with pytest.raises(EngineStaleError, match=r"1\.0\.0\.1"):
        load(bundle, "sam_decoder")
    paths = publish(bundle, "sam_decoder", version=engine_version())
    paths.plan.write_bytes(paths.plan.read_bytes()[:-1])
    with pytest.raises(EngineDamagedError, match="bytes where"):
        load(bundle, "sam_decoder")


def test_another_precision_than_the_built_one_is_refused(bundle: Bundle, gpu) -> None:
    with pytest.raises(EngineError, match="built in fp32, not fp16"):
        load_session(bundle, "sam_decoder", backend="tensorrt-rtx", precision="fp16")


@pytest.mark.parametrize(
    ("status", "devices", "text"),
    [
        ("cudaErrorInsufficientDriver", 0, "no NVIDIA driver"),
        ("cudaErrorNoDevice", 0, "no NVIDIA GPU"),
        ("cudaSuccess", 0, "no NVIDIA GPU"),
        ("cudaErrorUnknown", 0, "cudaErrorUnknown"),
    ],
)
def test_a_missing_driver_or_gpu_is_told(
    bundle: Bundle, gpu, status: str, devices: int, text: str
) -> None:
    gpu.cuda.status = getattr(gpu.cuda.cudaError_t, status)
    gpu.cuda.devices = devices
    with pytest.raises(BackendUnavailableError, match=text) as caught:
        load(bundle, "sam_decoder")
    assert "driver" in caught.value.remedy


def test_a_cuda_error_names_the_call(bundle: Bundle, gpu) -> None:
    session = load(bundle, "sam_decoder")
    session.prepare()
    failed = gpu.cuda.cudaError_t.cudaErrorIllegalAddress
    gpu.cuda.cudaEventSynchronize.side_effect = lambda event: (failed,)
    with pytest.raises(EngineError, match=r"EventSynchronize failed: .*IllegalAddress") as caught:
        session.execute(decoder_inputs(bundle))
    assert "restart this process" in caught.value.remedy


def test_this_machine_says_what_it_lacks() -> None:
    """The real bindings, on whatever machine this is."""
    found = availability("tensorrt-rtx")
    if not found.available:
        assert found.missing
        assert found.remedy


def test_the_real_library_refuses_a_plan_that_is_none(bundle: Bundle) -> None:
    import tensorrt_rtx

    paths = publish(bundle, "sam_decoder", version=engine_version())
    built = engine_lookup.find_engine(bundle, "sam_decoder", backend="tensorrt-rtx")
    assert built.path == paths.plan
    with pytest.raises(EngineError, match="cannot be deserialized") as caught:
        tensorrt_engine.deserialized(tensorrt_rtx, built, host_code=False)
    assert "no reason was given" not in caught.value.cause


def test_signatures_are_read_from_the_real_bindings() -> None:
    import cuda.bindings.runtime as cuda
    import tensorrt_rtx

    assert argument_counts(cuda.cudaMemcpyAsync) == {5}
    assert argument_counts(cuda.cudaGetDeviceCount) == {0}
    assert argument_counts(tensorrt_rtx.IExecutionContext.execute_async_v3) == {1}
    assert argument_counts(tensorrt_rtx.IExecutionContext.set_input_shape) == {2}


def test_views_of_device_tensors_are_checked(bundle: Bundle, gpu) -> None:
    session = load(bundle, "sam_decoder")
    kept = session.execute(decoder_inputs(bundle), keep=("low_res_logits",))["low_res_logits"]
    assert isinstance(kept, CudaTensor)
    with pytest.raises(IndexError):
        kept.view((1, 0), kept.shape[2:])
    with pytest.raises(ValueError, match="cannot be seen"):
        kept.view((0,), kept.shape[2:])
