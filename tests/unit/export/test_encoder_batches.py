"""Encoders that take several images in one call, against the PyTorch models image by image."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from support.exported_bundle import tiny_job
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.manifest import BATCHES_SINCE, SCHEMA_VERSION
from zeroflaw_engines.bundle.manifest_text import decode_manifest, encode_manifest
from zeroflaw_engines.contract import (
    CLIP_ENCODER,
    MAX_BATCH,
    SAM_ENCODER,
    EngineSizes,
    ReferenceSizes,
    engine_contract,
)
from zeroflaw_engines.errors import EngineContractError, ExportError, ParityError
from zeroflaw_engines.sessions.batches import stacked, taken_apart
from zeroflaw_engines.sessions.onnxruntime_session import OnnxRuntimeSession
from zeroflaw_export.export import export_bundle
from zeroflaw_export.graphs.onnx_writer import onnx_from_module
from zeroflaw_export.models.adapters import LinearAdapters
from zeroflaw_export.models.architectures import clip_architecture, sam_architecture
from zeroflaw_export.models.clip_encoder import ClipEncoder
from zeroflaw_export.models.random_weights import randomise_weights
from zeroflaw_export.models.reference_matcher import reference_sizes
from zeroflaw_export.models.sam_encoder import PyramidSamEncoder, SamEncoder
from zeroflaw_export.parity import checks as parity
from zeroflaw_export.parity.references import reference_clip, reference_sam_encoder

pytestmark = pytest.mark.long

TOLERANCE = 1e-4  # of the largest value


def sizes_of(**changes: object) -> EngineSizes:
    """Sizes of which the encoders read a few."""
    base = EngineSizes(224, 32, 256, 16, 32, 27, ReferenceSizes(4, 256, 64, 16), max_batch=8)
    return dataclasses.replace(base, **changes)


def close(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max()


@pytest.fixture(params=["tiny", "mini"])
def sam_session(request, tiny_sam, tmp_path: Path):
    """A batched SAM encoder on ONNX Runtime, and what SAM itself gives."""
    if request.param == "tiny":
        sam, module, sizes = tiny_sam, SamEncoder(tiny_sam), sizes_of()
    else:
        sam = sam_architecture("mini").build()
        randomise_weights(sam, 5)
        module = PyramidSamEncoder(sam)
        sizes = sizes_of(sam_image_size=512, sam_feature_size=64, sam_feature_channels=64)
    contract = engine_contract(SAM_ENCODER, sizes)
    onnx_from_module(module.eval(), contract, tmp_path / "sam.onnx")
    return OnnxRuntimeSession(tmp_path / "sam.onnx", contract), reference_sam_encoder(sam)


def test_features_of_a_batch_are_those_of_sam_for_each_image(sam_session) -> None:
    session, reference = sam_session
    side = session.contract.inputs[0].shape[1]
    rng = np.random.default_rng(1)
    contents = [
        rng.integers(0, 256, (side - 37 * i, side - 21 * (i % 2), 3), dtype=np.uint8)
        for i in range(3)
    ]
    want = [reference(content) for content in contents]
    for chosen in ([0], [0, 1, 2], [2, 0, 1, 0, 2, 1, 1, 0]):
        images = [parity.sam_encoder_inputs(contents[i], session.contract) for i in chosen]
        outputs = session.execute(stacked(session.contract, images), keep=("features",))
        parts = taken_apart(session.contract, outputs, len(chosen))
        for number, part in zip(chosen, parts, strict=True):
            close(part["features"].numpy(), want[number])


@pytest.fixture(params=["tiny", "mini"])
def clip_session(request, tiny_clip, tmp_path: Path):
    """A batched CLIP encoder on ONNX Runtime, and what CLIP and APRIL-GAN's map give."""
    architecture = clip_architecture(request.param)
    size = 224 if request.param == "tiny" else 128
    clip = tiny_clip
    if request.param == "mini":
        clip = architecture.build(size)
        randomise_weights(clip, 6)
    adapters = LinearAdapters(
        len(architecture.tapped_blocks), architecture.token_width, architecture.embedding_size
    )
    randomise_weights(adapters, 7)
    sizes = sizes_of(
        clip_image_size=size,
        embedding_size=architecture.embedding_size,
        reference=reference_sizes(architecture, size, 2**20),
    )
    module = ClipEncoder(clip, adapters, architecture.tapped_blocks, size, batched=True).eval()
    contract = engine_contract(CLIP_ENCODER, sizes)
    onnx_from_module(module, contract, tmp_path / "clip.onnx")
    reference = partial(reference_clip, clip, adapters, architecture.tapped_blocks)
    return OnnxRuntimeSession(tmp_path / "clip.onnx", contract), reference


def test_maps_scores_and_tokens_of_a_batch_are_those_of_clip_for_each_image(clip_session) -> None:
    session, reference = clip_session
    _, size, _, _ = session.contract.inputs[0].shape
    rng = np.random.default_rng(2)
    texts = rng.standard_normal((2, session.contract.inputs[1].shape[1])).astype(np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    images = rng.integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    want = [reference(image, texts) for image in images]
    for chosen in ([1], [0, 1, 2], [2, 2, 0, 1, 0, 1, 2, 0]):
        inputs = [{"image": images[i][None], "text_embeddings": texts} for i in chosen]
        outputs = session.execute(stacked(session.contract, inputs), keep=("patch_tokens",))
        parts = taken_apart(session.contract, outputs, len(chosen))
        for number, part in zip(chosen, parts, strict=True):
            anomaly_map, score, tokens = want[number]
            np.testing.assert_allclose(part["anomaly_map"][0], anomaly_map, atol=1e-4)
            np.testing.assert_allclose(part["image_score"], [score], atol=1e-4)
            close(part["patch_tokens"].numpy(), tokens)


def test_a_bundle_says_how_many_images_it_takes(batch_bundle: Bundle) -> None:
    manifest = batch_bundle.manifest
    assert manifest.max_batch == manifest.sizes.max_batch == 4
    assert manifest.schema_version == BATCHES_SINCE
    targets = {(figure.engine, figure.target) for figure in manifest.parity}
    for engine in (CLIP_ENCODER, SAM_ENCODER):
        assert {(engine, "onnxruntime"), (engine, "tensorrt")} <= targets
        assert batch_bundle.contract(engine).max_batch == 4
    assert batch_bundle.contract("sam_decoder").max_batch == 1
    # Nor is anything of settings in it, which older readers refuse.
    text = (batch_bundle.path / "bundle.json").read_bytes()
    assert encode_manifest(decode_manifest(text, "here")) == text
    assert b'"settings"' not in text


def test_a_bundle_that_asks_for_no_batches_is_what_it_was(tiny_bundle: Bundle) -> None:
    text = (tiny_bundle.path / "bundle.json").read_text()
    assert "max_batch" not in text
    assert json.loads(text)["schema_version"] == SCHEMA_VERSION
    assert tiny_bundle.manifest.max_batch == 1
    assert not any(
        "images" in str(tiny_bundle.contract(name)) for name in tiny_bundle.manifest.engines
    )


class MixedUp:
    """A session that is right for single images, and mixes up those of a batch."""

    def __init__(self, session: OnnxRuntimeSession) -> None:
        self.contract, self._session = session.contract, session

    def execute(self, inputs, **_: object):
        outputs = self._session.execute(inputs)
        return {name: value[::-1] for name, value in outputs.items()}


def test_parity_sees_images_that_are_mixed_up(batch_bundle: Bundle) -> None:
    contract = batch_bundle.contract(SAM_ENCODER)
    session = OnnxRuntimeSession(batch_bundle.onnx_path(SAM_ENCODER), contract)
    wanted = {}
    for kind in parity.IMAGE_KINDS:
        one = parity.sam_encoder_inputs(parity.sam_content(kind, 256), contract)
        wanted[kind] = session.execute(stacked(contract, [one]))["features"]
    parity.check_sam_encoder(session, wanted)
    with pytest.raises(ParityError, match="features"):
        parity.check_sam_encoder(MixedUp(session), wanted)

    contract = batch_bundle.contract(CLIP_ENCODER)
    session = OnnxRuntimeSession(batch_bundle.onnx_path(CLIP_ENCODER), contract)
    embeddings = batch_bundle.text_embeddings("object")

    def alone(image, texts):
        outputs = session.execute({"image": image[None], "text_embeddings": texts})
        (got,) = taken_apart(contract, outputs, 1)
        return got["anomaly_map"][0], float(got["image_score"][0]), got["patch_tokens"]

    parity.check_clip_encoder(session, alone, embeddings)
    with pytest.raises(ParityError, match="clip_encoder"):
        parity.check_clip_encoder(MixedUp(session), alone, embeddings)


def test_a_call_beyond_the_limit_is_refused(batch_bundle: Bundle) -> None:
    contract = batch_bundle.contract(SAM_ENCODER)
    session = OnnxRuntimeSession(batch_bundle.onnx_path(SAM_ENCODER), contract)
    for count in (5, 0):
        with pytest.raises(EngineContractError, match=f"1 to 4 images in one call, not {count}"):
            session.execute(
                {
                    "image": np.zeros((count, 256, 256, 3), np.uint8),
                    "image_size": np.zeros((count, 2), np.int32),
                }
            )
        with pytest.raises(EngineContractError, match=f"1 to 4 images in one call, not {count}"):
            stacked(contract, [{}] * count)
    with pytest.raises(EngineContractError, match="one size of the axis 'images'"):
        session.execute(
            {
                "image": np.zeros((2, 256, 256, 3), np.uint8),
                "image_size": np.zeros((3, 2), np.int32),
            }
        )


@pytest.mark.parametrize("number", [0, MAX_BATCH + 1, 2.5, True])
def test_a_batch_that_no_export_makes_is_refused(number, tmp_path: Path) -> None:
    job = dataclasses.replace(tiny_job("object"), max_batch=number)
    with pytest.raises(ExportError, match="max_batch"):
        export_bundle(job, tmp_path / "bundle")
