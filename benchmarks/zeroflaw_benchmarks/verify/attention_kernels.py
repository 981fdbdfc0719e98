"""Whether an execution provider of ONNX Runtime computes attention, and with which kernels.

    python -m zeroflaw_benchmarks.verify.attention_kernels --backend onnxruntime-cuda

One operator at a time, in the shapes of the exported graphs, against float64 on the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

import numpy as np
import typer
from numpy.typing import NDArray
from onnx import TensorProto, helper
from rich.table import Table

from zeroflaw.cli.terminal import fail, out
from zeroflaw_engines import arguments
from zeroflaw_engines.errors import ZeroflawError
from zeroflaw_engines.onnxruntime_provider import PROVIDERS, require_provider, select_provider
from zeroflaw_engines.quiet_onnxruntime import ort
from zeroflaw_engines.session_options import OnnxRuntimeOptions

EXIT_WRONG: Final = 5
# Largest relative error: rounding gives about 1e-6 in FP32 and 5e-4 in FP16.
TOLERANCES: Final = {"fp32": 1e-5, "fp16": 2e-3}
_TYPES: Final = {"fp32": (np.float32, TensorProto.FLOAT), "fp16": (np.float16, TensorProto.FLOAT16)}
_OPSET: Final = 23
_IR_VERSION: Final = 10
_ERRORS_ONLY: Final = 3
_Array = NDArray[Any]


@dataclass(frozen=True)
class AttentionShape:
    """Sizes of one attention.

    Attributes:
        name: Where it occurs.
        batch: Windows, or 1.
        heads: Computed in one call.
        tokens: Of queries, keys and values alike.
        query_size: Of a query and a key in each head.
        value_size: Of a value in each head.
    """

    name: str
    batch: int
    heads: int
    tokens: int
    query_size: int
    value_size: int


SHAPES: Final = (
    AttentionShape("mini, SAM's windows", 16, 3, 64, 48, 32),
    AttentionShape("mini, SAM's global blocks", 1, 1, 1024, 96, 32),
    AttentionShape("mini, SAM's global blocks, padded", 1, 3, 1024, 96, 96),
    AttentionShape("ViT-B, global blocks", 1, 1, 4096, 192, 64),
    AttentionShape("ViT-H, windows", 25, 16, 196, 108, 80),
    AttentionShape("ViT-H, windows, padded", 25, 16, 196, 112, 112),
    AttentionShape("ViT-H, global blocks", 1, 1, 4096, 208, 80),
    AttentionShape("ViT-H, global blocks, padded", 1, 1, 4096, 208, 208),
    AttentionShape("ViT-L/14 at 518 px", 1, 16, 1370, 64, 64),
)


def attention_error(
    shape: AttentionShape, backend: str, precision: str, *, fused_attention: bool
) -> float:
    """Measure the relative error of one attention on noise.

    Args:
        shape: Its sizes.
        backend: One of ONNX Runtime's.
        precision: fp32 or fp16.
        fused_attention: See `OnnxRuntimeOptions`.

    Returns:
        The largest of three calls: Euclidean norm of the difference by that of the right result,
        infinite where a value is not finite.

    Raises:
        BackendUnavailableError: ONNX Runtime lacks the provider.
    """
    provider = PROVIDERS[backend]
    settings = ort.SessionOptions()
    settings.log_severity_level = _ERRORS_ONLY
    options = OnnxRuntimeOptions(fused_attention=fused_attention)
    chosen = select_provider(settings, provider, options)
    session = ort.InferenceSession(_model(shape, precision), settings, **chosen)
    require_provider(session, provider)
    given = _inputs(shape, precision)
    right = _attention(**{name: array.astype(np.float64) for name, array in given.items()})
    errors = []
    for _ in range(3):
        got = np.asarray(session.run(None, given)[0], np.float64)
        error = np.linalg.norm(got - right) / np.linalg.norm(right)
        errors.append(float(error) if np.isfinite(error) else np.inf)
    return max(errors)


def _model(shape: AttentionShape, precision: str) -> bytes:
    sizes = {"q": shape.query_size, "k": shape.query_size, "v": shape.value_size}
    dtype = _TYPES[precision][1]
    inputs, (output,) = (
        [
            helper.make_tensor_value_info(
                name, dtype, [shape.batch, shape.heads, shape.tokens, size]
            )
            for name, size in tensors.items()
        ]
        for tensors in (sizes, {"y": shape.value_size})
    )
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"], scale=1.0)
    graph = helper.make_graph([node], "attention", inputs, [output])
    model: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
    ).SerializeToString()
    return model


def _inputs(shape: AttentionShape, precision: str) -> dict[str, _Array]:
    rng = np.random.default_rng(0)
    leading = (shape.batch, shape.heads, shape.tokens)
    dtype = _TYPES[precision][0]
    # Scores of unit variance: neither one token alone nor the mean of all.
    sizes = (("q", shape.query_size), ("k", shape.query_size), ("v", shape.value_size))
    return {
        name: (rng.standard_normal((*leading, size)) * shape.query_size**-0.25).astype(dtype)
        for name, size in sizes
    }


def _attention(q: _Array, k: _Array, v: _Array) -> _Array:
    scores = q @ k.swapaxes(-1, -2)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    result: _Array = weights @ v / weights.sum(axis=-1, keepdims=True)
    return result


def main(
    *,
    backend: Annotated[str, typer.Option(help="One of ONNX Runtime's.")] = "onnxruntime-cuda",
) -> None:
    """Print the error of every shape, fused and not. Exit code 5: what zeroflaw uses is wrong."""
    arguments.choice("--backend", backend, tuple(PROVIDERS))
    table = Table("attention", "precision", "as zeroflaw runs it", "fused kernels allowed")
    wrong = False
    for precision, tolerance in TOLERANCES.items():
        for shape in SHAPES:
            unfused, fused = (
                attention_error(shape, backend, precision, fused_attention=fused)
                for fused in (False, True)
            )
            wrong |= unfused > tolerance
            table.add_row(
                shape.name,
                precision,
                *(f"{error:.1e}" + " WRONG" * (error > tolerance) for error in (unfused, fused)),
            )
    out.print(table)
    if wrong:
        raise typer.Exit(EXIT_WRONG)


if __name__ == "__main__":
    try:
        typer.run(main)
    except ZeroflawError as problem:
        fail(problem)
