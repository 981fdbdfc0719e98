"""Built encoders that take several images in one call, on a simulated GPU."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from support.gpu.built_engines import publish
from support.gpu.engine_calls import decoder_inputs, engine_version, load, reference
from zeroflaw_engines.builder.parity import check_parity, fixed_inputs
from zeroflaw_engines.built_engines.options import BatchRange
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.errors import BuildError, EngineContractError
from zeroflaw_engines.sessions.batches import taken_apart
from zeroflaw_engines.sessions.onnxruntime_session import OnnxRuntimeSession


@pytest.fixture
def bundle(batch_bundle: Bundle, tmp_path: Path) -> Bundle:
    """In the place of the small bundle: the one whose encoders take up to 4 images."""
    return open_bundle(shutil.copytree(batch_bundle.path, tmp_path / "bundle"))


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("count", [1, 3, 4])
def test_each_image_of_a_call_reaches_the_decoder_on_the_device(bundle: Bundle, count) -> None:
    encoder, decoder = load(bundle, "sam_encoder"), load(bundle, "sam_decoder")
    assert encoder.contract.max_batch == 4
    encoder.prepare()
    encoder.capture()
    inputs = fixed_inputs(encoder.contract, count)
    want = reference(bundle, "sam_encoder", inputs)["features"]
    outputs = encoder.execute(inputs, keep=("features",))
    prompt = decoder_inputs(bundle)
    for number, part in enumerate(taken_apart(encoder.contract, outputs, count)):
        np.testing.assert_array_equal(part["features"].numpy(), want[number : number + 1])
        given = {**prompt, "features": want[number : number + 1]}
        got = decoder.execute({**prompt, "features": part["features"]})
        np.testing.assert_array_equal(
            got["low_res_logits"], reference(bundle, "sam_decoder", given)["low_res_logits"]
        )


@pytest.mark.usefixtures("gpu")
def test_tokens_of_each_image_are_matched_on_the_device(bundle: Bundle) -> None:
    encoder, matcher = load(bundle, "clip_encoder"), load(bundle, "reference_matcher")
    inputs = fixed_inputs(encoder.contract, 3)
    want = reference(bundle, "clip_encoder", inputs)["patch_tokens"]
    outputs = encoder.execute(inputs, keep=("patch_tokens",))
    bank = fixed_inputs(matcher.contract)
    for number, part in enumerate(taken_apart(encoder.contract, outputs, 3)):
        given = {**bank, "patch_tokens": want[number]}
        got = matcher.execute({**bank, "patch_tokens": part["patch_tokens"]})
        np.testing.assert_array_equal(
            got["reference_map"], reference(bundle, "reference_matcher", given)["reference_map"]
        )


@pytest.mark.parametrize("most", [1, 2])
def test_a_session_takes_what_its_engine_was_built_for(bundle: Bundle, gpu, most) -> None:
    plan = f"plan for {most}".encode() * 9
    publish(bundle, "sam_encoder", plan=plan, version=engine_version(), images=BatchRange(max=most))
    gpu.axes = {"images": (1, most)}
    gpu.graphs[plan] = (bundle.onnx_path("sam_encoder"), bundle.contract("sam_encoder"))
    session = load(bundle, "sam_encoder")
    assert session.contract.max_batch == most
    inputs = fixed_inputs(session.contract, most)
    got = session.execute(inputs)["features"]
    np.testing.assert_array_equal(got, reference(bundle, "sam_encoder", inputs)["features"])
    with pytest.raises(EngineContractError, match=f"1 to {most} images in one call, not 3"):
        session.execute(fixed_inputs(session.contract, 3))
    whole = taken_apart(session.contract, {"features": got}, most)
    assert [part["features"].shape for part in whole] == [(1, *got.shape[1:])] * most


class MixedUp:
    """A session that is right for single images, and mixes up those of a batch."""

    def __init__(self, session: OnnxRuntimeSession) -> None:
        self.contract, self._session = session.contract, session

    def execute(self, inputs):
        return {name: value[::-1] for name, value in self._session.execute(inputs).items()}


@pytest.mark.parametrize("engine", ["clip_encoder", "sam_encoder"])
def test_parity_of_a_build_looks_at_every_image_of_a_call(bundle: Bundle, engine) -> None:
    session = OnnxRuntimeSession(bundle.onnx_path(engine), bundle.contract(engine))
    assert check_parity(session, session).status == "passed"
    with pytest.raises(BuildError, match="differs from the FP32 reference"):
        check_parity(MixedUp(session), session)
