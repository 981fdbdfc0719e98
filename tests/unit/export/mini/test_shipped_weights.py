"""The weights of `mini` out of its graphs, and frames as a data set: what UMCI is trained on."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file

from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.contract import CLIP_ENCODER, engine_contract
from zeroflaw_engines.sessions.onnxruntime_session import OnnxRuntimeSession
from zeroflaw_export.datasets import read_dataset, read_sample_image, read_sample_mask
from zeroflaw_export.drawn_frames.draw import draw_frame
from zeroflaw_export.mini.clipsam import write_frames_as_dataset, write_initial_weights
from zeroflaw_export.mini.shipped_weights import tensors_of, write_shipped_weights
from zeroflaw_export.mini.training_frames import TrainingFrames
from zeroflaw_export.models.architectures import clip_architecture
from zeroflaw_export.models.clip_encoder import ClipEncoder
from zeroflaw_export.models.load import WeightsSource, load_clip, load_linear_adapters
from zeroflaw_export.training.run import class_embeddings


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    paths = folder / "clip.safetensors", folder / "adapters.safetensors"
    write_shipped_weights(*paths)
    return paths


def source(path):
    return WeightsSource(name=path.name, path=path)


def test_they_give_what_the_shipped_graphs_give(weights):
    architecture, bundle = clip_architecture("mini"), open_bundle("mini")
    clip = load_clip(architecture, 448, source(weights[0]))
    adapters = load_linear_adapters(architecture, source(weights[1]))
    encoder = ClipEncoder(clip, adapters, architecture.tapped_blocks, 448).eval()
    contract = engine_contract(CLIP_ENCODER, bundle.manifest.sizes)
    session = OnnxRuntimeSession(bundle.onnx_path(CLIP_ENCODER), contract)
    image = draw_frame("train", "wood", "scratch", seed=5, size=448).image[None]
    text = bundle.text_embeddings("object")
    want = session.execute({"image": image, "text_embeddings": text})
    with torch.inference_mode():
        got = encoder(torch.from_numpy(image), torch.from_numpy(text))
    assert want["anomaly_map"].std() > 0.01
    for name, value in zip(("anomaly_map", "image_score", "patch_tokens"), got, strict=True):
        np.testing.assert_allclose(value, want[name], atol=1e-5)
    np.testing.assert_allclose(class_embeddings(clip)("object"), text, atol=1e-6)
    session.close()


def test_a_tensor_that_a_graph_lacks_is_not_made_up(weights):
    model = onnx.load(open_bundle("mini").onnx_path(CLIP_ENCODER))
    wanted = {"visual.head.0.weight", "adapters.fc.1.weight", "visual.nothing.weight"}
    found = tensors_of(model, wanted)
    assert set(found) == wanted - {"visual.nothing.weight"}
    torch.testing.assert_close(
        found["adapters.fc.1.weight"], load_file(weights[1])["fc.1.weight"], atol=0, rtol=0
    )


def test_the_training_begins_with_the_adapters(weights, tmp_path):
    path = tmp_path / "initial.safetensors"
    write_initial_weights(*weights, path)
    initial, adapters = load_file(path), load_file(weights[1])
    for level in range(3):
        assert torch.equal(
            initial[f"stages.{level}.project.weight"], adapters[f"fc.{level}.weight"]
        )
    write_initial_weights(*weights, tmp_path / "again.safetensors")
    again = load_file(tmp_path / "again.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in initial.items())


def test_frames_become_a_data_set(tmp_path):
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8))
    masks = [np.zeros((32, 32), np.bool_) for _ in range(3)]
    masks[1][4:9, 6:20] = True
    frames = TrainingFrames(images, masks, ["wood", "wood", "object"])
    write_frames_as_dataset(frames, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    write_frames_as_dataset(frames, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == before
    found = {product.name: product.samples for product in read_dataset(tmp_path).classes}
    assert {name: len(samples) for name, samples in found.items()} == {"object": 1, "wood": 2}
    (spoiled,) = [sample for sample in found["wood"] if sample.anomalous]
    assert np.array_equal(read_sample_image(spoiled), images[1])
    assert np.array_equal(read_sample_mask(spoiled, (32, 32)), masks[1])
