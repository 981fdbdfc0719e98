"""Bundles of older versions, which may hold a graph of its own for OpenVINO."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.errors import BundleDamagedError

NAME = "sam_encoder.openvino.onnx"


@pytest.fixture
def with_variant(copied: Path, edit_manifest: Callable[..., Path]) -> Path:
    """A bundle with another graph of the SAM encoder, on the weights of the reference."""
    data = Path(shutil.copyfile(copied / "sam_encoder.onnx", copied / NAME)).read_bytes()
    variant = {
        "target": "openvino", "onnx": NAME, "weights": "sam_encoder.onnx.data", "opset": 23,
        "precision": "fp32", "attention": "extended", "recipe": None,
    }  # fmt: skip

    def add(raw: dict[str, Any]) -> None:
        raw["engines"]["sam_encoder"]["variants"] = [variant]
        raw["files"][NAME] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}

    return edit_manifest(add)


def test_openvino_takes_its_own_graph(with_variant: Path, tiny_bundle: Bundle) -> None:
    bundle = open_bundle(with_variant)
    graph = bundle.graph("sam_encoder", "openvino")
    assert (graph.path, graph.attention) == (with_variant / NAME, "extended")
    assert graph.weights_path == with_variant / "sam_encoder.onnx.data"
    assert set(graph.sha256) == {NAME, "sam_encoder.onnx.data"}
    assert bundle.graph("sam_encoder", "onnxruntime").path == with_variant / "sam_encoder.onnx"
    assert bundle.identity == tiny_bundle.identity


def test_that_graph_is_verified_too(with_variant: Path) -> None:
    (with_variant / NAME).write_bytes(b"")
    with pytest.raises(BundleDamagedError, match=NAME):
        open_bundle(with_variant)
