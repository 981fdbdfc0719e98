"""SAM's image encoder as ONNX graphs, in a process of its own: the plain export and ours.

    python -m zeroflaw_benchmarks.bench.process.encoder_graphs '{"architecture": "vit_b", ...}'

Weights are random with a fixed seed, the same as those that torch runs in `encoder_run`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from segment_anything.modeling import Sam
from torch import nn

from zeroflaw_benchmarks.bench.process.child_process import answer
from zeroflaw_benchmarks.bench.process.encoder_run import SEED, encoder_contract
from zeroflaw_engines.contract import EngineContract
from zeroflaw_export.graphs.onnx_writer import onnx_from_module
from zeroflaw_export.models.architectures import sam_architecture
from zeroflaw_export.models.random_weights import randomise_weights
from zeroflaw_export.models.sam_attention import ATTENTION_OF_TARGET
from zeroflaw_export.models.sam_encoder import SamEncoder


@dataclass(frozen=True)
class GraphsTask:
    """What is to be exported.

    Attributes:
        architecture: Name of the SAM.
        directory: Where the graphs are written.
    """

    architecture: str
    directory: str


@dataclass(frozen=True)
class EncoderSizes:
    """Sizes of one SAM.

    Attributes:
        side: Of its image, px.
        channels: Of its features.
    """

    side: int
    channels: int


class PlainEncoder(nn.Module):
    """segment_anything's own modules, behind nothing but its normalisation."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.encoder = sam.image_encoder
        self.register_buffer("mean", sam.pixel_mean)
        self.register_buffer("std", sam.pixel_std)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Encodes uint8 [1, S, S, 3] to float32 [1, C, S / 16, S / 16]."""
        features: torch.Tensor = self.encoder(
            (image.permute(0, 3, 1, 2).float() - self.mean) / self.std
        )
        return features


def encoder_sizes(architecture: str) -> EncoderSizes:
    """Sizes of a SAM, without making its weights."""
    with torch.device("meta"):
        sam = sam_architecture(architecture).build()
    return EncoderSizes(sam.image_encoder.img_size, sam.prompt_encoder.embed_dim)


def graph_path(directory: Path, form: str) -> Path:
    """Where the graph of one form lies: `plain`, or a form of our attention."""
    return directory / form / "sam_encoder.onnx"


def write_graphs(architecture: str, directory: Path) -> None:
    """Exports the plain graph and each form that a CPU backend is given."""
    sizes = encoder_sizes(architecture)
    sam = sam_architecture(architecture).build()
    randomise_weights(sam, SEED)
    contract = encoder_contract(sizes.side, sizes.channels)
    forms = {ATTENTION_OF_TARGET[target] for target in ("onnxruntime", "openvino")}
    for form in sorted(forms):
        _write(SamEncoder(sam, form), contract, graph_path(directory, form))
    only_image = EngineContract(contract.name, contract.inputs[:1], contract.outputs)
    _write(PlainEncoder(sam), only_image, graph_path(directory, "plain"))


def _write(module: nn.Module, contract: EngineContract, path: Path) -> None:
    path.parent.mkdir(parents=True)
    onnx_from_module(module.eval(), contract, path)


def _write_graphs_of(task: GraphsTask) -> str:
    write_graphs(task.architecture, Path(task.directory))
    return task.directory


if __name__ == "__main__":
    answer(GraphsTask, _write_graphs_of)
