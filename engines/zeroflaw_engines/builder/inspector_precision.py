"""The precision report from TensorRT's own account of an engine, where a GPU can load it.

*Unverified*: no GPU has run this yet. The layout of the JSON is that of NVIDIA's documentation
of the engine inspector at detailed verbosity.
"""

from __future__ import annotations

import json
import re
from typing import Any

from zeroflaw_engines.built_engines.precision_report import (
    OperationKind,
    PrecisionReport,
    precision_report,
)

_TYPES = (("float16", r"\bhalf\b|fp16|float16"), ("bfloat16", "bf16|bfloat16"),
          ("float32", r"\bfloat\b|fp32|float32"))  # fmt: skip
_KINDS: tuple[tuple[OperationKind, str], ...] = (
    ("attention", "mha|attention"),
    ("convolution", "conv"),
    ("gemm", "gemm|matmul|matrix_?multiply|fully_?connected|__myl_Fc"),
    ("norm", "Mean.*Sqrt|normalization"),
    ("softmax", "Maxr?SubExp|softmax"),
    ("cast", "^cast|reformat"),
)


def inspector_precision(trt: Any, logger: Any, plan: Any) -> PrecisionReport | None:  # noqa: ANN401
    """Report the precision of a plan that was built a moment ago.

    Returns:
        None if this machine cannot load the engine.
    """
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    if engine is None:
        return None
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return precision_of_layers(json.loads(text).get("Layers", []))


def precision_of_layers(layers: list[dict[str, Any]]) -> PrecisionReport | None:
    """Count the inspector's layers; None if it gives names alone (another verbosity)."""
    detailed = [layer for layer in layers if isinstance(layer, dict)]
    if not detailed:
        return None
    return precision_report("inspector", ((_kind(layer), _precision(layer)) for layer in detailed))


def _kind(layer: dict[str, Any]) -> OperationKind:
    text = f"{layer.get('LayerType', '')} {layer.get('Name', '')}"
    return next(
        (kind for kind, pattern in _KINDS if re.search(pattern, text, re.IGNORECASE)), "other"
    )


def _precision(layer: dict[str, Any]) -> str:
    formats = [str(one.get("Format/Datatype", "")) for one in layer.get("Inputs", [])[:2]]
    found = {
        name
        for text in formats
        for name, pattern in _TYPES
        if re.search(pattern, text, re.IGNORECASE)
    }
    if not found:
        return "none"
    return found.pop() if len(found) == 1 else "mixed"
