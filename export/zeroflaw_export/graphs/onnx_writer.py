"""An export module written as an ONNX file with at most one file of external weights."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from torch import nn
from torch.export import Dim

from zeroflaw_engines.contract import EngineContract
from zeroflaw_engines.errors import ExportError

OPSET = 23


def onnx_from_module(module: nn.Module, contract: EngineContract, path: Path) -> None:
    """Export a module whose `forward` takes and gives the contract's tensors in its order.

    Writes `path`, and beside it `<path>.data` with the weights.

    Args:
        module: An export module in eval mode.

    Raises:
        ExportError: The module cannot be exported.
    """
    examples = tuple(
        torch.zeros(
            [2 if isinstance(size, str) else size for size in spec.shape],
            dtype=getattr(torch, spec.dtype),
        )
        for spec in contract.inputs
    )
    dynamic = tuple(
        {axis: Dim(size) for axis, size in enumerate(spec.shape) if isinstance(size, str)} or None
        for spec in contract.inputs
    )
    with warnings.catch_warnings(), _quiet_exporter(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                module,
                examples,
                dynamo=True,
                opset_version=OPSET,
                input_names=[spec.name for spec in contract.inputs],
                output_names=[spec.name for spec in contract.outputs],
                dynamic_shapes=dynamic if any(dynamic) else None,
                external_data=True,
                verbose=False,
            )
        except Exception as error:  # the exporter's errors share no base
            raise ExportError(
                f"{contract.name} cannot be exported to ONNX: {error}",
                "use the versions of torch and onnxscript that this zeroflaw was tested with",
            ) from error
    if program is None:
        raise ExportError(f"{contract.name} was not exported", "report this with the log")
    # Where PyTorch made each node, and its own program, in words: most of a small graph's file.
    program.model.graph.metadata_props.clear()
    for node in program.model.graph:
        node.metadata_props.clear()
        node.doc_string = None
    program.save(path, external_data=True)
    del program
    onnx.checker.check_model(str(path))


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter and onnxscript, which log each pass; errors still raise."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
