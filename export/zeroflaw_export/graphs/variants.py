"""The FP16 graph of an engine for TensorRT, from its reference graph.

They take nothing but ONNX files, so that a bundle that exists already can be given FP16 graphs
where there is neither PyTorch nor the weights' files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import onnx
import onnx_ir as ir

from zeroflaw_engines.bundle.graph_entries import AttentionForm, EngineFile, GraphVariant
from zeroflaw_engines.contract import SAM_ENCODER, EngineName
from zeroflaw_engines.errors import ExportError
from zeroflaw_export.graphs.attention_rewrite import (
    fuse_relative_positions,
    merge_head_groups,
    pad_attention,
)
from zeroflaw_export.graphs.precision_recipe import FP16_RECIPE, PrecisionRecipe
from zeroflaw_export.graphs.typed_graph import apply_recipe

FP16_ENGINES: Final[tuple[EngineName, ...]] = (
    "clip_encoder",
    "sam_encoder",
    "sam_decoder",
    "reference_matcher",
)

# Tensors below this are kept inside the graph's file.
_EXTERNAL_FROM: Final = 1024


def write_fp16_variant(
    directory: Path,
    engine: EngineName,
    reference: EngineFile,
    target: Path,
    recipe: PrecisionRecipe = FP16_RECIPE,
) -> GraphVariant:
    """Write the strongly typed graph of an engine for TensorRT.

    Args:
        reference: Its FP32 graph, read from the directory and left as it is.
        target: Directory to write into, which may be the bundle's.

    Returns:
        The manifest's entry of the new graph.

    Raises:
        ExportError: The graph has an operator, a form or a weight that FP16 cannot take.
    """
    model = _load(directory / reference.onnx)
    form = fp16_model(model, engine, recipe)
    path = target / f"{engine}.fp16.onnx"
    weights = path.with_name(path.name + ".data")
    ir.save(model, path, external_data=weights.name, size_threshold_bytes=_EXTERNAL_FROM)
    onnx.checker.check_model(str(path))
    return GraphVariant(
        target="tensorrt",
        onnx=path.name,
        weights=weights.name if weights.exists() else None,
        opset=reference.opset,
        precision="fp16",
        attention=form,
        recipe=recipe.id,
    )


def fp16_model(model: ir.Model, engine: EngineName, recipe: PrecisionRecipe) -> AttentionForm:
    """Turn an FP32 reference graph into the strongly typed graph for TensorRT, in place.

    Returns:
        How SAM's relative position is written in the new graph.

    Raises:
        ExportError: The graph has an operator that the recipe does not cover.
    """
    form: AttentionForm = "none"
    if engine == SAM_ENCODER:
        fuse_relative_positions(model)
        form = "extended_padded"
    merge_head_groups(model)
    pad_attention(model, recipe.head_multiple)
    apply_recipe(model, recipe)
    return form


def _load(path: Path) -> ir.Model:
    try:
        return ir.load(path)
    except Exception as error:  # protobuf's and onnx_ir's errors share no base
        raise ExportError(
            f"{path} cannot be read: {error}", "verify the bundle with `zeroflaw bundle verify`"
        ) from error
