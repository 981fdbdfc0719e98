"""The weights of `mini`, taken back out of the bundle that ships.

A localizer for the towers that ship is trained without training them again. Initializers of a
graph keep the names that their tensors have in PyTorch, but for matrices of linear layers, which
the exporter transposes and renames: those are found by the bias that is added to their product.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from safetensors.torch import save_file

from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.bundle.shipped import SHIPPED_NAME
from zeroflaw_engines.contract import CLIP_ENCODER, TEXT_ENCODER
from zeroflaw_engines.errors import WeightsError
from zeroflaw_export.models.adapters import LinearAdapters
from zeroflaw_export.models.architectures import clip_architecture

# CLIP's learned logit scale, which neither graph runs: the method multiplies by 100.
_UNUSED = "logit_scale"


def write_shipped_weights(clip_path: Path, adapters_path: Path) -> None:
    """Write the weights of both CLIP towers of `mini`, and of its adapters.

    Args:
        clip_path: A safetensors file to write.
        adapters_path: A safetensors file to write.

    Raises:
        WeightsError: The graphs that ship lack a tensor.
    """
    bundle = open_bundle(SHIPPED_NAME)
    architecture = clip_architecture(bundle.manifest.clip.architecture)
    clip = architecture.build(architecture.image_size)
    adapters = LinearAdapters(
        len(architecture.tapped_blocks), architecture.token_width, architecture.embedding_size
    )
    found: dict[str, torch.Tensor] = {_UNUSED: clip.logit_scale.detach()}
    wanted = {*clip.state_dict(), *(f"adapters.{name}" for name in adapters.state_dict())}
    for engine in (CLIP_ENCODER, TEXT_ENCODER):
        found |= tensors_of(onnx.load(bundle.onnx_path(engine)), wanted)
    if lacking := sorted(wanted - set(found)):
        raise WeightsError(
            f"the graphs of {bundle.path} lack {', '.join(lacking[:3])}",
            "use the bundle that this version of zeroflaw ships",
        )
    save_file({name: found[name] for name in clip.state_dict()}, clip_path)
    save_file({name: found[f"adapters.{name}"] for name in adapters.state_dict()}, adapters_path)


def tensors_of(model: onnx.ModelProto, wanted: Iterable[str]) -> dict[str, torch.Tensor]:
    """Return the wanted tensors that a graph holds, by their names in PyTorch."""
    constants = {each.name: each for each in model.graph.initializer}
    made_by = {output: node for node in model.graph.node for output in node.output}
    matrices = {}
    for node in model.graph.node:
        biases = [name for name in node.input if name in constants]
        if node.op_type != "Add" or len(biases) != 1:
            continue
        (product,) = [made_by.get(name) for name in node.input if name not in constants]
        if product is not None and product.op_type == "MatMul":
            matrices[biases[0]] = product.input[1]
    found = {}
    for name in wanted:
        bias = name.removesuffix("weight") + "bias"
        if name in constants:
            value = numpy_helper.to_array(constants[name])
        elif bias in matrices and matrices[bias] in constants:
            value = numpy_helper.to_array(constants[matrices[bias]]).T
        else:
            continue
        found[name] = torch.from_numpy(value.copy())
    return found
