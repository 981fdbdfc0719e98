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

from zeroflaw.cli.options import DeviceOption
from zeroflaw_engines import arguments
from zeroflaw_engines.process.terminal import out, run_module
from zeroflaw_engines.sessions.onnxruntime_provider import (
    PROVIDERS,
    require_provider,
    select_provider,
)
from zeroflaw_engines.sessions.options import OnnxRuntimeOptions
from zeroflaw_engines.sessions.quiet_onnxruntime import ort, quiet_settings

EXIT_WRONG: Final = 5
# Largest relative error: rounding gives about 1e-6 in FP32 and 5e-4 in FP16.
TOLERANCES: Final = {"fp32": 1e-5, "fp16": 2e-3}
_TYPES: Final = {"fp32": (np.float32, TensorProto.FLOAT), "fp16": (np.float16, TensorProto.FLOAT16)}
_OPSET: Final = 23
_IR_VERSION: Final = 10
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

    @property
    def leading(self) -> tuple[int, int, int]:
        """Return batch, heads and tokens: all axes of a tensor but the last."""
        return self.batch, self.heads, self.tokens

    @property
    def sizes(self) -> dict[str, int]:
        """Return the last axis of each input."""
        return {"q": self.query_size, "k": self.query_size, "v": self.value_size}


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


@dataclass(frozen=True)
class AttentionErrors:
    """Relative errors: Euclidean norm of the difference by that of the right result.

    Each is the largest of three calls, and infinite where a value is not finite.

    Attributes:
        unfused: As zeroflaw runs it.
        fused: With `OnnxRuntimeOptions.fused_attention`.
    """

    unfused: float
    fused: float


def attention_errors(
    shape: AttentionShape, backend: str, precision: str, device: int = 0
) -> AttentionErrors:
    """Measure the errors of one attention on noise.

    Args:
        device: Number of the GPU, as CUDA counts.

    Raises:
        BackendUnavailableError: ONNX Runtime lacks the provider.
    """
    provider = PROVIDERS[backend]
    model, given = _model(shape, precision), _inputs(shape, precision)
    right = _attention(**{name: array.astype(float) for name, array in given.items()})
    errors = []
    for fused in (False, True):
        settings = quiet_settings()
        options = OnnxRuntimeOptions(fused_attention=fused, device=device)
        chosen = select_provider(settings, provider, options)
        session = ort.InferenceSession(model, settings, **chosen.keywords)
        require_provider(session, provider)
        errors.append(max(_error(session.run(None, given)[0], right) for _ in range(3)))
    return AttentionErrors(*errors)


def _error(got: _Array, right: _Array) -> float:
    error = np.linalg.norm(got.astype(float) - right) / np.linalg.norm(right)
    return float(error) if np.isfinite(error) else np.inf


def _model(shape: AttentionShape, precision: str) -> bytes:
    sizes = {**shape.sizes, "y": shape.value_size}
    tensors = [
        helper.make_tensor_value_info(name, _TYPES[precision][1], [*shape.leading, size])
        for name, size in sizes.items()
    ]
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"], scale=1.0)
    graph = helper.make_graph([node], "attention", tensors[:3], tensors[3:])
    model: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
    ).SerializeToString()
    return model


def _inputs(shape: AttentionShape, precision: str) -> dict[str, _Array]:
    rng = np.random.default_rng(0)
    # Scores of unit variance: neither one token alone nor the mean of all.
    scale = shape.query_size**-0.25
    return {
        name: (rng.standard_normal((*shape.leading, size)) * scale).astype(_TYPES[precision][0])
        for name, size in shape.sizes.items()
    }


def _attention(q: _Array, k: _Array, v: _Array) -> _Array:
    scores = q @ k.swapaxes(-1, -2)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    result: _Array = weights @ v / weights.sum(axis=-1, keepdims=True)
    return result


def main(
    *,
    backend: Annotated[str, typer.Option(help="One of ONNX Runtime's.")] = "onnxruntime-cuda",
    device: DeviceOption = 0,
) -> None:
    """Print the error of every shape, fused and not. Exit code 5: what zeroflaw uses is wrong."""
    arguments.choice("--backend", backend, tuple(PROVIDERS))
    table = Table("attention", "precision", "as zeroflaw runs it", "fused kernels allowed")
    wrong = False
    for precision, tolerance in TOLERANCES.items():
        for shape in SHAPES:
            errors = attention_errors(shape, backend, precision, device)
            wrong |= errors.unfused > tolerance
            shown = (
                f"{error:.1e}" + " WRONG" * (error > tolerance)
                for error in (errors.unfused, errors.fused)
            )
            table.add_row(shape.name, precision, *shown)
    out.print(table)
    if wrong:
        raise typer.Exit(EXIT_WRONG)


if __name__ == "__main__":
    run_module(main)
