"""The graphs of an engine: as the manifest records them, and as a backend loads one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from zeroflaw_engines.contract import MAX_BATCH, EngineName

# What a graph is written for: the backends that read it share its preferences.
GraphTarget = Literal["onnxruntime", "openvino", "tensorrt"]
Precision = Literal["fp32", "fp16"]
# How SAM's relative position is written in a graph; `none` for engines that have none.
RelativePositionForm = Literal["extended", "extended_padded", "additive"]
AttentionForm = Literal[RelativePositionForm, "none"]


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the manifest's parts."""


class GraphVariant(Struct, frozen=True, kw_only=True):
    """Another graph of an engine, with the same weights.

    Attributes:
        target: What it is written for; one variant a target.
        onnx: The graph's file.
        weights: The file of its external weights, if it has one; that of the reference where
            the bytes are the same.
        opset: Version of the ONNX operators.
        precision: Precision of the graph; `fp16` is strongly typed, with islands of FP32.
        attention: How SAM's relative position is written.
        recipe: Identity of the precision recipe; None for FP32.
    """

    target: Literal["openvino", "tensorrt"]
    onnx: str
    weights: str | None
    opset: int
    precision: Precision
    attention: AttentionForm
    recipe: str | None = None


class EngineFile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One engine's graphs: the FP32 reference, and variants of it for other targets.

    Attributes:
        onnx: The reference's file.
        weights: The file of its external weights, if it has one.
        opset: Version of the ONNX operators.
        precision: Precision of the reference.
        attention: How SAM's relative position is written in the reference. None in bundles of
            version 2 or older, where it is `extended` in `sam_encoder`.
        variants: Graphs for other targets; `onnxruntime` always takes the reference.
        max_batch: Most images that one call takes, of encoders: above 1 the first axis of every
            graph is dynamic. 1 in bundles of version 6 or older.
    """

    onnx: str
    weights: str | None
    opset: int
    precision: Literal["fp32"] = "fp32"
    attention: AttentionForm | None = None
    variants: tuple[GraphVariant, ...] = ()
    max_batch: Annotated[int, msgspec.Meta(ge=1, le=MAX_BATCH)] = 1

    def variant(self, target: GraphTarget) -> GraphVariant | None:
        """Return the variant for a target, if there is one."""
        return next((graph for graph in self.variants if graph.target == target), None)


@dataclass(frozen=True)
class Graph:
    """One graph of an engine, as a backend loads it.

    Attributes:
        path: The ONNX file.
        weights_path: The file of its external weights, if it has one.
        opset: Version of the ONNX operators.
        precision: `fp16` is strongly typed, with islands of FP32.
        attention: How SAM's relative position is written.
        recipe: Identity of the precision recipe; None for FP32.
        sha256: Digests of its files by file name.
    """

    engine: EngineName
    path: Path
    weights_path: Path | None
    opset: int
    precision: Precision
    attention: AttentionForm
    recipe: str | None
    sha256: Mapping[str, str]


def graph_target(precision: str) -> GraphTarget:
    """Return whose graph ONNX Runtime and TensorRT run in a precision.

    Args:
        precision: `fp16` is that of the variants for TensorRT, `fp32` that of the reference.
    """
    return "tensorrt" if precision == "fp16" else "onnxruntime"
