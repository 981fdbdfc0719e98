"""The graphs that others export of SAM, in a process of its own.

python -m zeroflaw_benchmarks.bench.process.peer_graphs '{"bundle": "mini", ...}'
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from zeroflaw_benchmarks.bench.process.child_process import answer
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.contract import SAM_ENCODER, EngineContract

# The file of each graph, below the directory of the task.
OFFICIAL_DECODER: Final = "sam_onnx_decoder.onnx"
OFFICIAL_DECODER_LOW_RES: Final = "sam_onnx_decoder_low_res.onnx"
SAMEXPORTER_DECODER: Final = "samexporter_decoder.onnx"
SAMEXPORTER_ENCODER: Final = "samexporter_encoder/encoder.onnx"
PLAIN_ENCODER: Final = "plain_encoder/plain_sam_encoder.onnx"
_OFFICIAL_OPSET: Final = 17  # the script's default (export_onnx_model.py)
_SAMEXPORTER_OPSET: Final = 18


@dataclass(frozen=True)
class GraphsTask:
    """What is to be exported.

    Attributes:
        bundle: As `open_bundle` takes it; the graphs are of its SAM.
        directory: Where they are written.
        wanted: Their files, of the constants above.
    """

    bundle: str
    directory: str
    wanted: tuple[str, ...]


def write_graphs(task: GraphsTask) -> str:
    """Export with the very modules and options that the peers' own scripts use."""
    from zeroflaw_benchmarks.reference.reference_models import reference_sam

    bundle = open_bundle(task.bundle, verify_digests=False)
    sam: Any = reference_sam(bundle)
    for name in task.wanted:
        path = Path(task.directory) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == PLAIN_ENCODER:
            from zeroflaw_benchmarks.reference.plain_encoder import PlainEncoder
            from zeroflaw_export.graphs.onnx_writer import onnx_from_module

            ours = bundle.contract(SAM_ENCODER)
            only_image = EngineContract(ours.name, ours.inputs[:1], ours.outputs)
            onnx_from_module(PlainEncoder(sam).eval(), only_image, path)
        elif name == SAMEXPORTER_ENCODER:
            _encoder(sam, path)
        elif name == SAMEXPORTER_DECODER:
            from samexporter.export_decoder import SamOnnxModel as Theirs

            _decoder(Theirs(sam, return_single_mask=False), sam, path, _SAMEXPORTER_OPSET)
        elif name == OFFICIAL_DECODER:
            from segment_anything.utils.onnx import SamOnnxModel

            _decoder(SamOnnxModel(sam, return_single_mask=False), sam, path, _OFFICIAL_OPSET)
        else:
            from onnx.utils import extract_model

            whole = str(Path(task.directory) / OFFICIAL_DECODER)
            inputs = ["image_embeddings", "point_coords", "point_labels", "mask_input"]
            outputs = ["iou_predictions", "low_res_masks"]
            extract_model(whole, str(path), [*inputs, "has_mask_input"], outputs)
    return task.directory


def _decoder(module: Any, sam: Any, path: Path, opset: int) -> None:  # noqa: ANN401 - torch modules
    """As `scripts/export_onnx_model.py` of segment_anything does it."""
    import torch

    side, grid = sam.image_encoder.img_size, sam.prompt_encoder.image_embedding_size
    inputs = {
        "image_embeddings": torch.randn(1, sam.prompt_encoder.embed_dim, *grid),
        "point_coords": torch.randint(0, side, (1, 5, 2)).float(),
        "point_labels": torch.randint(0, 4, (1, 5)).float(),
        "mask_input": torch.randn(1, 1, 4 * grid[0], 4 * grid[1]),
        "has_mask_input": torch.ones(1),
        "orig_im_size": torch.tensor([1500.0, 2250.0]),
    }
    _export(
        module,
        inputs,
        path,
        opset,
        output_names=["masks", "iou_predictions", "low_res_masks"],
        dynamic_axes={"point_coords": {1: "num_points"}, "point_labels": {1: "num_points"}},
    )


def _encoder(sam: Any, path: Path) -> None:  # noqa: ANN401 - torch modules
    """As samexporter's `export_encoder.py` does it, without its preprocessing."""
    import torch
    from samexporter.onnx_utils import ImageEncoderOnnxModel

    side = sam.image_encoder.img_size
    module = ImageEncoderOnnxModel(model=sam, use_preprocess=False)
    inputs = {"input_image": torch.randn(1, 3, side, side)}
    _export(module, inputs, path, _SAMEXPORTER_OPSET, output_names=["image_embeddings"])


def _export(module: Any, inputs: dict[str, Any], path: Path, opset: int, **options: Any) -> None:  # noqa: ANN401
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            opset_version=opset,
            dynamo=False,
            **options,
        )


if __name__ == "__main__":
    answer(GraphsTask, write_graphs)
