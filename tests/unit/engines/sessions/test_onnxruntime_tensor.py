"""How the host reads tensors that ONNX Runtime kept on a device, and parts of them.

The CPU stands in for the device: a tensor that says it is not on the host is read as one on a GPU
is, by the same calls of ONNX Runtime.
"""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest

from support.gpu.engine_calls import decoder_inputs
from zeroflaw_engines.backends import load_session
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.errors import EngineError
from zeroflaw_engines.sessions.device_tensor import Tensor
from zeroflaw_engines.sessions.onnxruntime_session import OnnxRuntimeSession
from zeroflaw_engines.sessions.onnxruntime_tensor import OrtDeviceTensor, OrtMemory

PROMPTS = 16
without_cuda = pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason="looks at what ONNX Runtime says where it has no copies from and to a GPU",
)


class Copies(list[int]):
    """Elements of each copy to the host."""


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Copies:
    """What is copied to the host, counted; a whole value is one copy."""
    counted = Copies()
    read, download = onnxruntime.IOBinding.copy_outputs_to_cpu, OrtMemory.download

    def counting(binding):
        arrays = read(binding)
        counted.extend(array.size for array in arrays)
        return arrays

    def downloading(memory, value, shape, dtype):
        # On the CPU a value's array is its own memory; elsewhere it is a copy.
        array = np.array(download(memory, value, shape, dtype))
        counted.append(array.size)
        return array

    monkeypatch.setattr(onnxruntime.IOBinding, "copy_outputs_to_cpu", counting)
    monkeypatch.setattr(OrtMemory, "download", downloading)
    return counted


@pytest.fixture
def session(bundle: Bundle) -> OnnxRuntimeSession:
    session = load_session(bundle, "sam_decoder", threads=1)
    assert isinstance(session, OnnxRuntimeSession)
    return session


def kept_logits(bundle: Bundle, session: OnnxRuntimeSession) -> tuple[OrtDeviceTensor, Tensor]:
    """Return logits of 16 prompts as if they were on a device, and their values."""
    given = decoder_inputs(bundle, batch=PROMPTS)
    kept = session.execute(given, keep=("low_res_logits",))["low_res_logits"]
    assert kept.shape[0] == PROMPTS
    return replace(kept, host=None), kept.numpy().copy()


def test_of_a_kept_tensor_only_the_part_that_is_asked_for_is_copied(
    bundle, session, copies
) -> None:
    tensor, values = kept_logits(bundle, session)
    side = tensor.shape[-1]
    for prompt in range(PROMPTS):
        token = prompt % 4
        part = tensor.view((prompt, token), (1, 1, side, side))
        got = part.numpy()
        np.testing.assert_array_equal(got[0, 0], values[prompt, token])
        assert got.flags.owndata, "host memory of its own"
        assert got.flags.writeable
    assert copies == [side * side] * PROMPTS


def test_a_part_of_a_part_and_of_another_shape(bundle, session, copies) -> None:
    tensor, values = kept_logits(bundle, session)
    side = tensor.shape[-1]
    row = tensor.view((5,), (4, side * side)).view((2,), (side, side)).view((7,), (side, 1))
    np.testing.assert_array_equal(row.numpy()[:, 0], values[5, 2, 7])
    assert copies == [side]
    np.testing.assert_array_equal(tensor.view((), (PROMPTS * 4, side, side)).numpy()[9],
                                  values.reshape(-1, side, side)[9])  # fmt: skip
    assert copies == [side, values.size]


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int32", "int64", "bool"])
def test_parts_of_every_dtype_of_the_contracts(bundle, session, copies, dtype: str) -> None:
    """Also of what was uploaded, which no output of the session need be like."""
    values = np.arange(24).reshape(4, 6).astype(dtype)
    value = onnxruntime.OrtValue.ortvalue_from_numpy(values)
    memory = kept_logits(bundle, session)[0].memory
    tensor = OrtDeviceTensor(value, None, memory, values.shape, dtype, values.shape)
    got = tensor.view((3,), (2, 3)).numpy()
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, values[3].reshape(2, 3))
    assert copies == [6]


def test_threads_read_parts_while_the_engine_runs(bundle, session) -> None:
    tensor, values = kept_logits(bundle, session)
    side = tensor.shape[-1]
    given = decoder_inputs(bundle, batch=2)
    want = session.execute(given)["low_res_logits"]

    def read(prompt: int) -> Tensor:
        return tensor.view((prompt, 1), (side, side)).numpy()

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(session.execute, given) for _ in range(4)]
        parts = list(pool.map(read, [*range(PROMPTS)] * 4))
    for i, part in enumerate(parts):
        np.testing.assert_array_equal(part, values[i % PROMPTS, 1])
    for call in calls:
        np.testing.assert_array_equal(call.result()["low_res_logits"], want)


def test_a_part_outlives_its_session_and_keeps_no_weights(bundle, session, copies) -> None:
    tensor, values = kept_logits(bundle, session)
    side = tensor.shape[-1]
    loaded = weakref.ref(session._session)
    clone = session.clone()
    session.close()
    part = tensor.view((3, 2), (side, side))
    np.testing.assert_array_equal(part.numpy(), values[3, 2])
    assert copies == [side * side], "the clone still has what was loaded"
    clone.close()
    gc.collect()
    assert loaded() is None, "a tensor keeps the engine loaded"
    got = part.numpy()
    np.testing.assert_array_equal(got, values[3, 2])
    assert copies == [side * side, values.size]
    assert got.base is None or got.base.size == got.size, "a part keeps the whole on the host"


@without_cuda
@pytest.mark.parametrize("number", [0, 1])
def test_a_part_is_read_from_the_device_that_its_tensor_is_on(bundle, session, number: int) -> None:
    tensor, _ = kept_logits(bundle, session)
    memory = replace(tensor.memory, device="cuda", number=number)
    with pytest.raises(EngineError, match=f"from cuda:{number}") as caught:
        replace(tensor, memory=memory).view((0,), tensor.shape[1:]).numpy()
    # Of NVIDIA, a GPU's own memory, of that number.
    said = f"copying tensors from Device:[DeviceType:1 MemoryType:0 VendorId:4318 DeviceId:{number}"
    assert said in caught.value.cause
    assert "nvidia-smi" in caught.value.remedy


@without_cuda
def test_an_upload_that_fails_is_an_error_of_ours() -> None:
    with pytest.raises(EngineError, match=r"an array of \[2, 3\] to cuda:1") as caught:
        OrtDeviceTensor.uploaded(np.zeros((2, 3), np.float32), OrtMemory("cuda", 1))
    assert "nvidia-smi" in caught.value.remedy
