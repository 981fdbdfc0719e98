"""ClipSAM's CLIP encoder as ONNX: what PyTorch gives, FP32 and FP16, one image and several."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from zeroflaw_engines.contract import CLIP_ENCODER, EngineSizes, engine_contract
from zeroflaw_engines.sessions.onnxruntime_session import OnnxRuntimeSession
from zeroflaw_export.engine_writer import EngineWriter
from zeroflaw_export.graphs.onnx_writer import onnx_from_module
from zeroflaw_export.models.architectures import clip_architecture
from zeroflaw_export.models.load import WeightsSource, load_clip
from zeroflaw_export.models.localizers.clipsam import CLIPSAM, build
from zeroflaw_export.models.localizers.localizer import Tower
from zeroflaw_export.models.localizers.umci import ClipSamParameters
from zeroflaw_export.parity import checks as parity

SOURCE = WeightsSource(name="random", path=None, seed=3)
SMALL = ClipSamParameters(hidden_channels=8, pool_sizes=(3, 5), head_channels=8)


def built(name, size, parameters, max_batch=1):
    architecture = clip_architecture(name)
    CLIPSAM.check(architecture, size, parameters)
    tower = Tower(
        clip=load_clip(architecture, size, SOURCE), architecture=architecture, image_size=size,
        weights=SOURCE, batched=max_batch > 1,
    )  # fmt: skip
    sizes = EngineSizes(
        clip_image_size=size, embedding_size=architecture.embedding_size, sam_image_size=256,
        sam_feature_size=16, sam_feature_channels=32, max_prompts=27,
        reference=CLIPSAM.reference_sizes(architecture, size, 2**20), max_batch=max_batch,
    )  # fmt: skip
    return build(tower, parameters), sizes


def texts(width):
    rng = np.random.default_rng(2)
    text = rng.standard_normal((2, width)).astype(np.float32)
    return text / np.linalg.norm(text, axis=1, keepdims=True)


@pytest.mark.long
@pytest.mark.parametrize(("name", "size"), [("tiny", 112), ("mini", 160)])
def test_both_graphs_are_what_pytorch_gives(tmp_path, name, size):
    """The parity check of an export, which writes and tries the FP16 graph as well."""
    parts, sizes = built(name, size, SMALL)
    text = texts(sizes.embedding_size)
    written = EngineWriter(tmp_path, sizes, "fp16", lambda _: None).write(
        CLIP_ENCODER,
        parts.encoder,
        lambda session, accepted: parity.check_clip_encoder(
            session, parts.reference, text, accepted
        ),
    )
    assert [variant.precision for variant in written.engines[CLIP_ENCODER].variants] == ["fp16"]
    assert written.parity


@pytest.mark.long
def test_a_batch_is_its_images_one_by_one(tmp_path):
    """With a border of partial cells, of which ONNX Runtime and PyTorch must say the same."""
    parts, sizes = built("tiny", 112, replace(SMALL, pool_border="partial"), max_batch=3)
    path = tmp_path / "clip_encoder.onnx"
    contract = engine_contract(CLIP_ENCODER, sizes)
    onnx_from_module(parts.encoder, contract, path)
    session = OnnxRuntimeSession(path, contract)
    images = np.random.default_rng(1).integers(0, 256, (3, 112, 112, 3), np.uint8)
    text = texts(sizes.embedding_size)
    got = session.execute({"image": images, "text_embeddings": text})
    for i in range(3):
        want, score, _ = parts.reference(images[i], text)
        assert want.std() > 0.01
        np.testing.assert_allclose(got["anomaly_map"][i], want, atol=1e-5)
        assert got["image_score"][i] == pytest.approx(score, abs=1e-5)
    session.close()
