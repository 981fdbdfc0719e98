"""The precision report of a parsed network: what its operations are typed as, before compilation.

A product may be written in FP32 whose operands were rounded to FP16 just before: TensorRT takes
that for an FP16 product whose sums are FP32, as tensor cores do it. Such operands count as FP16.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from zeroflaw_engines.built_engines.precision_report import (
    HEAVY,
    OperationKind,
    PrecisionReport,
    precision_report,
)

_KINDS: Final[dict[str, OperationKind]] = {
    "ATTENTION_INPUT": "attention",
    "MATRIX_MULTIPLY": "gemm",
    "CONVOLUTION": "convolution",
    "DECONVOLUTION": "convolution",
    "NORMALIZATION": "norm",
    "SOFTMAX": "softmax",
    "CAST": "cast",
}
_PRECISIONS: Final = {"HALF": "float16", "FLOAT": "float32", "BF16": "bfloat16"}
_ATTENTION_SUFFIX: Final = "_AttentionInput"
_MOVING: Final = {"SHUFFLE", "SLICE", "IDENTITY", "SQUEEZE", "UNSQUEEZE"}
_DEEPEST: Final = 16  # longest way from a product back to the cast that rounds its operand

# Objects of whichever bindings.
Handle = Any


def network_precision(network: Handle) -> PrecisionReport:
    """Count the layers of a network by what they are typed as."""
    producers = _producers(network)
    return precision_report(
        "network",
        (
            (_KINDS[layer.type.name], _precision(layer, producers))
            for layer in _layers(network)
            if layer.type.name in _KINDS
        ),
    )


def attention_nodes(network: Handle) -> dict[str, str]:
    """Return the precision of every attention operator, by ONNX node."""
    producers = _producers(network)
    return {
        layer.name.removesuffix(_ATTENTION_SUFFIX): _precision(layer, producers)
        for layer in _layers(network)
        if layer.type.name == "ATTENTION_INPUT"
    }


def _layers(network: Handle) -> Iterator[Handle]:
    return (network.get_layer(index) for index in range(network.num_layers))


def _inputs(layer: Handle) -> list[Handle]:
    tensors = (layer.get_input(index) for index in range(layer.num_inputs))
    return [tensor for tensor in tensors if tensor is not None]


def _producers(network: Handle) -> dict[str, Handle]:
    """Return the layer that makes a tensor, by the tensor's name."""
    return {
        layer.get_output(index).name: layer
        for layer in _layers(network)
        for index in range(layer.num_outputs)
    }


def _precision(layer: Handle, producers: Mapping[str, Handle]) -> str:
    """Return the precision of the first two inputs; masks, scales and biases come behind them."""
    heavy = _KINDS.get(layer.type.name) in HEAVY
    found = set()
    for tensor in _inputs(layer)[:2]:
        name = tensor.dtype.name
        if heavy and name == "FLOAT" and _rounded(tensor, producers, _DEEPEST):
            name = "HALF"
        if name in _PRECISIONS:
            found.add(_PRECISIONS[name])
    if not found:
        return "none"
    return found.pop() if len(found) == 1 else "mixed"


def _rounded(tensor: Handle, producers: Mapping[str, Handle], depth: int) -> bool:
    """Return whether the values of an FP32 tensor are FP16 ones, but for a constant factor."""
    layer = producers.get(tensor.name)
    if layer is None or depth == 0:
        return False
    inputs = _inputs(layer)
    kind = layer.type.name
    if kind == "CAST":
        return bool(inputs[0].dtype.name == "HALF")
    if kind in _MOVING:
        return _rounded(inputs[0], producers, depth - 1)
    if kind == "ELEMENTWISE":  # the importer of Attention scales queries and keys
        varying = [one for one in inputs if not _constant(one, producers, depth)]
        return len(varying) == 1 and _rounded(varying[0], producers, depth - 1)
    return False


def _constant(tensor: Handle, producers: Mapping[str, Handle], depth: int) -> bool:
    layer = producers.get(tensor.name)
    if layer is None or depth == 0:
        return False
    if layer.type.name == "CONSTANT":
        return True
    moving = layer.type.name in {*_MOVING, "CAST", "UNARY"}
    return moving and _constant(_inputs(layer)[0], producers, depth - 1)
