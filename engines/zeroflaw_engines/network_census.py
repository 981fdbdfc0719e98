"""The census of a parsed network: what its operations are typed as, before compilation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from zeroflaw_engines.precision_census import OperationKind, PrecisionCensus, census_of

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


def network_census(network: Any) -> PrecisionCensus:  # noqa: ANN401 - of whichever bindings
    """Counts the layers of a network by what they are typed as."""
    return census_of(
        "network",
        (
            (_KINDS[layer.type.name], _precision(layer))
            for layer in _layers(network)
            if layer.type.name in _KINDS
        ),
    )


def attention_nodes(network: Any) -> dict[str, str]:  # noqa: ANN401 - as above
    """Precision by ONNX node of every attention operator."""
    return {
        layer.name.removesuffix(_ATTENTION_SUFFIX): _precision(layer)
        for layer in _layers(network)
        if layer.type.name == "ATTENTION_INPUT"
    }


def _layers(network: Any) -> Iterator[Any]:  # noqa: ANN401 - as above
    return (network.get_layer(index) for index in range(network.num_layers))


def _precision(layer: Any) -> str:  # noqa: ANN401 - as above
    """Of the first two inputs; masks, scales and biases come behind them."""
    tensors = [layer.get_input(index) for index in range(min(2, layer.num_inputs))]
    names = {tensor.dtype.name for tensor in tensors if tensor is not None}
    found = {_PRECISIONS[name] for name in names if name in _PRECISIONS}
    if not found:
        return "none"
    return found.pop() if len(found) == 1 else "mixed"
