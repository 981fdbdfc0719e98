"""Sessions on ONNX Runtime: what they refuse, and that threads do not disturb each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from zeroflaw_engines.backends import load_session
from zeroflaw_engines.builder.parity import fixed_inputs
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.contract import EngineName, engine_contract
from zeroflaw_engines.errors import (
    BackendUnavailableError,
    EngineContractError,
    EngineError,
)
from zeroflaw_engines.sessions.device_tensor import Tensor
from zeroflaw_engines.sessions.onnxruntime_session import OnnxRuntimeSession
from zeroflaw_engines.sessions.session import Session, zeros_for

ENGINES: tuple[EngineName, ...] = ("clip_encoder", "sam_encoder", "sam_decoder", "text_encoder")


@pytest.fixture(scope="module")
def sessions(tiny_bundle: Bundle) -> dict[str, Session]:
    return {name: load_session(tiny_bundle, name, threads=1) for name in ENGINES}


def some_inputs(name: str, seed: int, bundle: Bundle) -> dict[str, Tensor]:
    rng = np.random.default_rng(seed)
    if name == "clip_encoder":
        image = rng.integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
        return {"image": image, "text_embeddings": bundle.text_embeddings("object")}
    if name == "sam_encoder":
        image = rng.integers(0, 256, (1, 256, 256, 3), dtype=np.uint8)
        return {"image": image, "image_size": np.array([256, 100 + seed], np.int32)}
    if name == "sam_decoder":
        batch = 1 + seed % 3
        labels = rng.integers(-2, 4, (batch, 27)).astype(np.int32)
        return {
            "features": rng.normal(size=(1, 32, 16, 16)).astype(np.float32),
            "point_coords": rng.uniform(0, 256, (batch, 27, 2)).astype(np.float32),
            "point_labels": labels,
            "mask_input": rng.normal(size=(batch, 1, 64, 64)).astype(np.float32),
            "has_mask_input": rng.integers(0, 2, batch).astype(np.float32),
        }
    tokens = rng.integers(1, 49000, (1 + seed % 4, 5 + seed)).astype(np.int32)
    tokens[:, -1] = 49407
    return {"token_ids": tokens}


@pytest.mark.parametrize("name", ENGINES)
def test_the_result_is_that_of_the_bare_library(
    tiny_bundle: Bundle, sessions: dict[str, Session], name: str
) -> None:
    bare = onnxruntime.InferenceSession(
        str(tiny_bundle.path / f"{name}.onnx"), providers=["CPUExecutionProvider"]
    )
    inputs = some_inputs(name, 3, tiny_bundle)
    got = sessions[name].execute(inputs)
    want = dict(zip([out.name for out in bare.get_outputs()], bare.run(None, inputs), strict=True))
    assert list(got) == [spec.name for spec in sessions[name].contract.outputs]
    assert got.keys() == want.keys()
    for output in got:
        np.testing.assert_allclose(got[output], want[output], rtol=1e-4, atol=1e-5)
        assert np.abs(got[output]).max() > 0


@pytest.mark.parametrize("name", ENGINES)
def test_the_outputs_fulfil_the_contract(
    tiny_bundle: Bundle, sessions: dict[str, Session], name: str
) -> None:
    for inputs in (some_inputs(name, 2, tiny_bundle), zeros_for(sessions[name].contract)):
        got = sessions[name].execute(inputs)
        for spec in sessions[name].contract.outputs:
            assert spec.accepts(got[spec.name].dtype.name, got[spec.name].shape), spec
            assert np.isfinite(got[spec.name]).all()


def test_the_backend_names_itself(sessions: dict[str, Session]) -> None:
    want = f"onnxruntime {onnxruntime.__version__} CPUExecutionProvider"
    assert sessions["sam_decoder"].backend == want


@pytest.mark.parametrize("name", ENGINES)
def test_calls_side_by_side_give_what_they_give_alone(
    tiny_bundle: Bundle, sessions: dict[str, Session], name: str
) -> None:
    calls = [some_inputs(name, seed, tiny_bundle) for seed in range(6)]
    alone = [sessions[name].execute(call) for call in calls]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(sessions[name].execute, calls * 4))
    for i, got in enumerate(together):
        for output, want in alone[i % 6].items():
            np.testing.assert_allclose(got[output], want, rtol=1e-5, atol=1e-6)
    first = next(iter(alone[0]))
    assert any(
        alone[0][first].shape != other[first].shape or (alone[0][first] != other[first]).any()
        for other in alone[1:]
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda x: {k: v for k, v in x.items() if k != "image"},
        lambda x: {**x, "surprise": x["image"]},
        lambda x: {("img" if k == "image" else k): v for k, v in x.items()},
        lambda x: {},
    ],
    ids=["missing", "one too many", "misspelt", "none"],
)
def test_other_names_are_refused(tiny_bundle: Bundle, sessions, change) -> None:
    inputs = change(some_inputs("clip_encoder", 1, tiny_bundle))
    with pytest.raises(EngineContractError) as caught:
        sessions["clip_encoder"].execute(inputs)
    assert "clip_encoder takes the inputs ['image', 'text_embeddings']" in caught.value.cause
    assert str(sorted(inputs)) in caught.value.cause


def as_view(array: np.ndarray) -> np.ndarray:
    """The same values behind a step of two."""
    wide = np.repeat(array, 2, axis=-1)
    return wide[..., ::2]


@pytest.mark.parametrize(
    ("engine", "tensor", "change"),
    [
        ("clip_encoder", "image", lambda a: a.astype(np.float32)),
        ("clip_encoder", "image", lambda a: a.astype(np.int8)),
        ("clip_encoder", "image", lambda a: a[:, :223]),
        ("clip_encoder", "image", lambda a: a[0]),
        ("clip_encoder", "image", lambda a: a[..., :1]),
        ("clip_encoder", "image", lambda a: np.concatenate([a, a])),
        ("clip_encoder", "image", lambda a: a.transpose(0, 3, 1, 2).copy()),
        ("clip_encoder", "image", as_view),
        ("clip_encoder", "image", np.asfortranarray),
        ("clip_encoder", "image", lambda a: a[..., ::-1]),
        ("clip_encoder", "text_embeddings", lambda a: a.astype(np.float16)),
        ("clip_encoder", "text_embeddings", lambda a: a.astype(np.float64)),
        ("clip_encoder", "text_embeddings", lambda a: a.T.copy()),
        ("clip_encoder", "text_embeddings", np.asfortranarray),
        ("sam_encoder", "image_size", lambda a: a.astype(np.int64)),
        ("sam_encoder", "image_size", lambda a: a[:1]),
        ("sam_encoder", "image_size", as_view),
        ("sam_decoder", "point_coords", lambda a: a[:, :26].copy()),
        ("sam_decoder", "point_labels", lambda a: a.astype(np.float32)),
        ("sam_decoder", "mask_input", lambda a: a[:, 0]),
        ("sam_decoder", "mask_input", lambda a: a[:, :, ::2, ::2].copy()),
        ("sam_decoder", "has_mask_input", lambda a: a.astype(bool)),
        ("sam_decoder", "has_mask_input", lambda a: a[:, None]),
        ("text_encoder", "token_ids", lambda a: a.astype(np.int64)),
        ("text_encoder", "token_ids", lambda a: a[0]),
        ("sam_decoder", "features", lambda a: a.astype(">f4")),
    ],
)
def test_an_input_that_breaks_the_contract_is_refused(
    tiny_bundle: Bundle, sessions, engine: str, tensor: str, change: Callable
) -> None:
    inputs = some_inputs(engine, 1, tiny_bundle)
    inputs[tensor] = change(inputs[tensor])
    with pytest.raises(EngineContractError) as caught:
        sessions[engine].execute(inputs)
    assert f"{engine} takes " in caught.value.cause
    assert tensor in caught.value.cause
    assert caught.value.remedy


@pytest.mark.parametrize("tensor", ["point_labels", "mask_input", "has_mask_input"])
def test_batches_of_different_lengths_are_refused(
    tiny_bundle: Bundle, sessions, tensor: str
) -> None:
    inputs = some_inputs("sam_decoder", 2, tiny_bundle)
    inputs[tensor] = inputs[tensor][:1]
    with pytest.raises(EngineError):
        sessions["sam_decoder"].execute(inputs)


@pytest.mark.parametrize(
    "tokens", [np.ones((1, 78), np.int32), np.full((1, 5), 49408, np.int32)], ids=["long", "id"]
)
def test_tokens_that_clip_does_not_have_are_refused(sessions, tokens: np.ndarray) -> None:
    with pytest.raises(EngineError, match="text_encoder"):
        sessions["text_encoder"].execute({"token_ids": tokens})


@pytest.mark.parametrize(
    ("engine", "field", "tensor"),
    [
        ("clip_encoder", "clip_image_size", "image"),
        ("clip_encoder", "embedding_size", "text_embeddings"),
        ("sam_encoder", "sam_image_size", "image"),
        ("sam_encoder", "sam_feature_channels", "features"),
        ("sam_decoder", "sam_feature_size", "features"),
        ("sam_decoder", "max_prompts", "point_coords"),
        ("text_encoder", "embedding_size", "sentence_embeddings"),
    ],
)
def test_a_graph_of_other_sizes_is_refused(
    tiny_bundle: Bundle, engine: EngineName, field: str, tensor: str
) -> None:
    sizes = tiny_bundle.manifest.sizes
    other = dataclasses.replace(sizes, **{field: getattr(sizes, field) * 2})
    path = tiny_bundle.onnx_path(engine)
    with pytest.raises(EngineContractError) as caught:
        OnnxRuntimeSession(path, engine_contract(engine, other))
    assert str(path) in caught.value.cause
    assert tensor in caught.value.cause
    assert "export" in caught.value.remedy


def test_a_graph_of_another_engine_is_refused(tiny_bundle: Bundle) -> None:
    path = tiny_bundle.onnx_path("sam_encoder")
    with pytest.raises(EngineContractError) as caught:
        OnnxRuntimeSession(path, tiny_bundle.contract("clip_encoder"))
    assert str(path) in caught.value.cause
    assert "['image', 'image_size']" in caught.value.cause


@pytest.mark.parametrize(
    "data", [b"", b"text", b"\0" * 1000, bytes(range(256)) * 8], ids=["empty", "text", "0", "noise"]
)
def test_garbage_is_refused(tiny_bundle: Bundle, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "clip_encoder.onnx"
    path.write_bytes(data)
    with pytest.raises(EngineError) as caught:
        OnnxRuntimeSession(path, tiny_bundle.contract("clip_encoder"))
    assert str(path) in caught.value.cause
    assert "bundle verify" in caught.value.remedy or "export" in caught.value.remedy


@pytest.mark.parametrize("gone", [".onnx", ".onnx.data"])
def test_a_graph_or_weights_that_are_gone_are_told(
    tiny_bundle: Bundle, copied: Path, gone: str
) -> None:
    (copied / f"sam_decoder{gone}").unlink()
    with pytest.raises(EngineError) as caught:
        OnnxRuntimeSession(copied / "sam_decoder.onnx", tiny_bundle.contract("sam_decoder"))
    assert "sam_decoder.onnx" in caught.value.cause


@pytest.mark.parametrize("backend", ["tensorrt-11", "", "ONNXRuntime", "cuda"])
def test_an_unknown_backend_is_told_with_the_known_ones(tiny_bundle: Bundle, backend: str) -> None:
    with pytest.raises(BackendUnavailableError) as caught:
        load_session(tiny_bundle, "sam_decoder", backend=backend)
    assert repr(backend) in caught.value.cause
    assert "onnxruntime" in caught.value.remedy


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_the_number_of_threads_does_not_change_the_result(
    tiny_bundle: Bundle, sessions, threads: int
) -> None:
    inputs = some_inputs("sam_decoder", 4, tiny_bundle)
    want = sessions["sam_decoder"].execute(inputs)
    session = load_session(tiny_bundle, "sam_decoder", threads=threads)
    got = session.execute(inputs)
    session.close()
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-4, atol=1e-5)


def test_a_closed_session_gives_an_error_of_ours(tiny_bundle: Bundle) -> None:
    session = load_session(tiny_bundle, "sam_decoder")
    session.close()
    with pytest.raises(EngineError):
        session.execute(zeros_for(tiny_bundle.contract("sam_decoder")))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_what_is_uploaded_is_checked_and_stays_on_the_host(
    tiny_bundle: Bundle, backend: str
) -> None:
    session = load_session(tiny_bundle, "reference_matcher", backend=backend)
    inputs = fixed_inputs(session.contract)
    bank = inputs["bank"]
    assert session.upload("bank", bank) is bank
    assert session.execute(inputs)["reference_map"].max() > 0
    for name, array, fault in (
        ("banks", bank, "takes no input banks"),
        ("bank", bank.astype(np.float32), "not float32"),
        ("bank", bank[:, 1:], "takes bank: float16"),
        ("bank", np.asfortranarray(bank), "C-contiguous"),
    ):
        with pytest.raises(EngineContractError, match=fault):
            session.upload(name, array)
    session.close()
    with pytest.raises(EngineError, match="closed"):
        session.upload("bank", bank)
