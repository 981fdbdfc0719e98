"""Sessions on OpenVINO: their numbers, and what they refuse."""

from __future__ import annotations

import builtins
import importlib
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import openvino
import pytest

from zeroflaw_engines.backends import availability, choose_backend, load_session
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.errors import BackendUnavailableError, EngineContractError, EngineError
from zeroflaw_engines.sessions import openvino_session
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, HostTensor
from zeroflaw_engines.sessions.session import zeros_for

PRECISIONS = openvino_session.precisions_of(openvino.Core())


@pytest.fixture(scope="module")
def mini():
    return open_bundle("mini", verify_digests=False)


@pytest.fixture(scope="module")
def decoder(mini):
    return load_session(mini, "sam_decoder", backend="openvino", threads=1)


def inputs_of(mini, batch=1, seed=0):
    rng = np.random.default_rng(seed)
    given = {}
    for spec in mini.contract("sam_decoder").inputs:
        shape = [batch if isinstance(n, str) else n for n in spec.shape]
        given[spec.name] = rng.random(shape).astype(spec.dtype)
    given["point_coords"] *= mini.manifest.sizes.sam_image_size
    given["point_labels"][:] = rng.integers(-2, 4, given["point_labels"].shape)
    return given


def cosine(a, b):
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


def test_fp32_agrees_with_onnx_runtime(mini, decoder) -> None:
    reference = load_session(mini, "sam_decoder", threads=1)
    for batch in (1, 3, 2):
        given = inputs_of(mini, batch, seed=batch)
        got, want = decoder.execute(given), reference.execute(given)
        for name in want:
            scale = np.abs(want[name]).max()
            np.testing.assert_allclose(got[name] / scale, want[name] / scale, atol=2e-5)
    assert decoder.backend == f"openvino {openvino.__version__.partition('-')[0]} CPU fp32"


@pytest.mark.parametrize("precision", [p for p in PRECISIONS if p != "fp32"])
def test_lower_precisions_are_close_and_not_the_same(mini, decoder, precision) -> None:
    lower = load_session(mini, "sam_decoder", backend="openvino", precision=precision, threads=1)
    given = inputs_of(mini)
    got, want = lower.execute(given)["low_res_logits"], decoder.execute(given)["low_res_logits"]
    assert got.dtype == np.float32
    assert cosine(got, want) > 0.999
    assert (got != want).any()
    assert lower.backend.endswith(f" {precision}")


@pytest.mark.parametrize("precision", [p for p in ("bf16", "fp16") if p not in PRECISIONS])
def test_precisions_that_this_processor_lacks_are_refused(mini, precision) -> None:
    with pytest.raises(BackendUnavailableError, match=f"does not compute in {precision}"):
        load_session(mini, "sam_decoder", backend="openvino", precision=precision)


def test_a_processor_without_bf16_is_told_and_not_emulated() -> None:
    core = SimpleNamespace(
        get_property=lambda device, name: {
            "OPTIMIZATION_CAPABILITIES": ["FP32", "INT8"],
            "FULL_DEVICE_NAME": "Old CPU",
        }[name]
    )
    openvino_session.require_precision(core, "fp32")
    with pytest.raises(BackendUnavailableError, match=r"bf16 on this processor \(Old CPU\)"):
        openvino_session.require_precision(core, "bf16")


def test_kept_outputs_are_inputs_of_the_next_call(mini, decoder) -> None:
    given = inputs_of(mini)
    low = mini.manifest.sizes.low_res_size
    kept = decoder.execute(given, keep=("low_res_logits",))["low_res_logits"]
    plain = decoder.execute(given)["low_res_logits"]
    assert isinstance(kept, DeviceTensor)
    np.testing.assert_array_equal(kept.numpy(), plain)
    part = kept.view((0, 2), (1, 1, low, low))
    chained = decoder.execute({**given, "mask_input": part})
    want = decoder.execute({**given, "mask_input": plain[:, 2:3].copy()})
    np.testing.assert_array_equal(chained["low_res_logits"], want["low_res_logits"])
    np.testing.assert_array_equal(kept.numpy(), plain)


def test_calls_side_by_side_give_what_they_give_alone(mini, decoder) -> None:
    calls = [inputs_of(mini, 1 + seed % 2, seed) for seed in range(4)]
    alone = [decoder.execute(call) for call in calls]
    with ThreadPoolExecutor(4) as pool:
        for number, got in enumerate(pool.map(decoder.execute, calls * 2)):
            for name, want in alone[number % 4].items():
                np.testing.assert_allclose(got[name], want, atol=1e-5)


def test_the_model_cache_is_where_it_was_asked_for(mini, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache = tmp_path / "cache"
    session = load_session(mini, "sam_decoder", backend="openvino", model_cache=cache)
    assert list(cache.iterdir())
    again = load_session(mini, "sam_decoder", backend="openvino", model_cache=cache)
    given = inputs_of(mini)
    want = session.execute(given)
    for name, got in again.execute(given).items():
        np.testing.assert_allclose(got, want[name], atol=1e-5)
    load_session(mini, "sam_decoder", backend="openvino")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_read_only_inputs_are_not_overwritten_before_they_are_read(mini) -> None:
    """Frames and text embeddings come read-only; OpenVINO wants writable memory."""
    session = load_session(mini, "clip_encoder", backend="openvino", threads=1)
    size = mini.manifest.sizes.clip_image_size
    rng = np.random.default_rng(0)
    for _ in range(4):
        image = rng.integers(0, 256, (1, size, size, 3), dtype=np.uint8)
        given = {"image": image, "text_embeddings": mini.text_embeddings("object").copy()}
        want = session.execute(given)
        for array in given.values():
            array.flags.writeable = False
        got = session.execute(given)
        for name in want:
            np.testing.assert_array_equal(got[name], want[name])


def test_a_closed_session_gives_an_error_of_ours(mini) -> None:
    session = load_session(mini, "sam_decoder", backend="openvino")
    session.prepare()
    session.capture()
    session.close()
    with pytest.raises(EngineError, match="is closed"):
        session.execute(zeros_for(session.contract))


def test_bad_inputs_are_refused(mini, decoder) -> None:
    given = inputs_of(mini, 2)
    with pytest.raises(EngineContractError, match="one size of the axis 'batch'"):
        decoder.execute({**given, "has_mask_input": np.ones(3, np.float32)})
    with pytest.raises(EngineContractError, match="cannot keep"):
        decoder.execute(given, keep=("features",))
    with pytest.raises(EngineContractError, match="not a list"):
        decoder.execute({**given, "has_mask_input": [1.0]})
    small = HostTensor(np.ones((1, 2), np.float32))
    with pytest.raises(EngineContractError, match="features"):
        decoder.execute({**given, "features": small})


def test_a_graph_that_is_none_is_told(mini, tmp_path) -> None:
    path = tmp_path / "sam_decoder.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(EngineError, match="cannot load"):
        openvino_session.OpenVinoSession(path, mini.contract("sam_decoder"))
    with pytest.raises(EngineContractError, match="inputs"):
        openvino_session.OpenVinoSession(
            mini.onnx_path("sam_encoder"), mini.contract("sam_decoder")
        )


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """As if some modules were not installed."""
    real = importlib.import_module

    def refuse(name, *rest, **named):
        if name.split(".")[0] in names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest, **named)

    monkeypatch.setattr(importlib, "import_module", refuse)
    for name in list(sys.modules):
        if name.split(".")[0] in names:
            monkeypatch.delitem(sys.modules, name)
    assert builtins.__import__


def test_openvino_that_is_not_installed_is_told_with_its_extra(mini, monkeypatch) -> None:
    without(monkeypatch, "openvino")
    with pytest.raises(BackendUnavailableError, match="no Python module openvino") as caught:
        load_session(mini, "sam_decoder", backend="openvino")
    assert caught.value.remedy == "pip install 'zeroflaw[openvino]'"
    assert not availability("openvino").available
    choice = choose_backend("auto", bundle=mini)
    assert choice.backend == "onnxruntime"
    assert "openvino (the backend openvino is not installed" in choice.reason
