"""Calls of built engines, and what their graphs give for them."""

from __future__ import annotations

import numpy as np
import onnxruntime

from zeroflaw_engines import tensorrt_bindings
from zeroflaw_engines.backends import load_session
from zeroflaw_engines.bundle.bundle import Bundle


def engine_version() -> str:
    return tensorrt_bindings.installed_version("tensorrt-rtx")


def load(bundle: Bundle, name: str):
    return load_session(bundle, name, backend="tensorrt-rtx")


def decoder_inputs(bundle: Bundle, batch: int = 1, seed: int = 0):
    sizes = bundle.manifest.sizes
    rng = np.random.default_rng(seed)
    cells, low, rows = sizes.sam_feature_size, sizes.low_res_size, sizes.max_prompts
    features = rng.normal(size=(1, sizes.sam_feature_channels, cells, cells)).astype(np.float32)
    coords = rng.uniform(0, sizes.sam_image_size, (batch, rows, 2)).astype(np.float32)
    return {
        "features": features,
        "point_coords": coords,
        "point_labels": rng.integers(-2, 4, (batch, rows)).astype(np.int32),
        "mask_input": rng.normal(size=(batch, 1, low, low)).astype(np.float32),
        "has_mask_input": np.ones(batch, np.float32),
    }


def reference(bundle: Bundle, name: str, inputs):
    session = onnxruntime.InferenceSession(
        str(bundle.onnx_path(name)), providers=["CPUExecutionProvider"]
    )
    names = [out.name for out in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))
