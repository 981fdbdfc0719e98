"""ClipSAM (arXiv 2401.12665): the map of its first half, CLIP with one UMCI for each stage.

Its second half, MMR, is a refiner of the runtime. There is no public code and no checkpoint: the
layout of weights is our own, a safetensors file of `UmciStages` whose metadata say with which
parameters it was trained.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional

from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings
from zeroflaw_engines.errors import ExportError, WeightsError
from zeroflaw_export.models.architectures import ClipArchitecture
from zeroflaw_export.models.clip_encoder import (
    ClipEncoder,
    token_grids,
    upsampled,
)
from zeroflaw_export.models.load import WeightsSource, load_state, seed_of
from zeroflaw_export.models.localizers.localizer import BuiltLocalizer, Localizer, Tower
from zeroflaw_export.models.localizers.umci import (
    ClipSamParameters,
    StripAttention,
    Umci,
    UmciStages,
    pooled_side,
)
from zeroflaw_export.models.pyramid import TRUNK_STRIDES
from zeroflaw_export.models.random_weights import randomise_weights
from zeroflaw_export.parity.references import score_and_tokens, tapped_image
from zeroflaw_export.weights.checkpoints import read_state_dict

NAME: Final = "clipsam"
# Decided after the training, so weights that were trained with another value serve as well.
_FREE: Final = frozenset({"combination"})


class ClipSamEncoder(ClipEncoder):
    """CLIP tower, UMCI, and the mean of the stages' maps.

    Args:
        stages: One UMCI for each tapped block, or level of a pyramid.
        tapped_blocks: 1-based.
        image_size: Side of the square input, px.
        batched: Whether it takes several images, and gives patch tokens an axis for them.
    """

    adapters: UmciStages

    def __init__(
        self,
        clip: CLIP,
        stages: UmciStages,
        tapped_blocks: tuple[int, ...],
        image_size: int,
        *,
        batched: bool = False,
    ) -> None:
        parameters = stages.parameters_of_method
        super().__init__(
            clip,
            stages,
            tapped_blocks,
            image_size,
            batched=batched,
            align_corners=parameters.align_corners,
        )
        self.of_logits = parameters.combination == "logits"

    def anomaly_map(self, taps: list[torch.Tensor], text_embeddings: torch.Tensor) -> torch.Tensor:
        """Compute O, the mean over the stages, of P(abnormal) or of the logits."""
        maps = []
        stages = self.adapters.modules_of_stages()
        for stage, tokens, name in zip(stages, taps, self.upsampling, strict=True):
            logits = stage(tokens, text_embeddings[None])
            maps.append(upsampled(logits[..., 1] - logits[..., 0], getattr(self, name)))
        if self.of_logits:
            return torch.sigmoid(torch.stack(maps).mean(dim=0))
        return torch.stack([torch.sigmoid(each) for each in maps]).mean(dim=0)


def check(architecture: ClipArchitecture, image_size: int, parameters: ClipSamParameters) -> None:
    """Refuse an image so small that a stage has no whole cell of the scale path.

    Raises:
        ExportError: It is.
    """
    strides = [architecture.patch_size]
    if architecture.has_pyramid:
        strides = [TRUNK_STRIDES[level] for level in architecture.tapped_blocks]
    grid, size = image_size // max(strides), max(parameters.pool_sizes)
    if pooled_side(grid, size, parameters.pool_border) < 1:
        raise ExportError(
            f"{NAME} cannot pool a grid of {grid} tokens into cells of {size}, which"
            f" {architecture.name} has at {image_size} px",
            "choose a larger image size, or smaller pool_sizes",
        )


def new_stages(
    clip: CLIP, architecture: ClipArchitecture, image_size: int, parameters: ClipSamParameters
) -> UmciStages:
    """Build the modules of all stages, with PyTorch's initial values."""
    grids = token_grids(clip, architecture.tapped_blocks, image_size)
    return UmciStages(
        architecture.token_width, architecture.embedding_size, grids, parameters
    ).eval()


def load_stages(stages: UmciStages, source: WeightsSource) -> None:
    """Load the weights of all stages, or draw them from a seed.

    Raises:
        WeightsError: The file holds those of another method, or was trained with other parameters.
    """
    path = source.path
    if path is None:
        randomise_weights(stages, seed_of(source) + 1)
        return
    state = read_state_dict(path)
    if not any(name.startswith("stages.") for name in state):
        raise WeightsError(
            f"{path} does not hold weights of {NAME}: it has {', '.join(sorted(state)[:3])}, …",
            f"give a file that `zeroflaw train-localizer {NAME}` wrote",
        )
    _require_parameters(path, stages.parameters_of_method)
    load_state(stages, state, path, NAME)


def save_stages(stages: UmciStages, path: Path) -> None:
    """Write the weights of all stages and the parameters that they were trained with."""
    record = {"localizer": NAME, "parameters": json.dumps(asdict(stages.parameters_of_method))}
    state = {name: value.contiguous() for name, value in stages.state_dict().items()}
    save_file(state, path, metadata=record)


def _require_parameters(path: Path, wanted: ClipSamParameters) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            record = file.metadata() or {}
        trained: dict[str, Any] = json.loads(record["parameters"])
    except Exception as error:  # a file of another kind makes the reader raise almost anything
        raise WeightsError(
            f"{path} does not say with which parameters of {NAME} it was trained",
            f"give a file that `zeroflaw train-localizer {NAME}` wrote",
        ) from error
    for name, value in json.loads(json.dumps(asdict(wanted))).items():
        if name not in _FREE and trained.get(name) != value:
            raise WeightsError(
                f"{path} was trained with {name} {trained.get(name)}, and {value} was asked for",
                f"export it with --localizer-set {name}={_as_text(trained.get(name))}, or give"
                " weights that were trained with the other value",
            )


def _as_text(value: object) -> str:
    """Write a parameter as the command line takes it."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


@torch.inference_mode()
def reference(
    clip: CLIP,
    stages: UmciStages,
    tapped_blocks: tuple[int, ...],
    image: NDArray[np.uint8],
    embeddings: TextEmbeddings,
) -> tuple[NDArray[np.float32], float, NDArray[np.float32]]:
    """Compute map, image score and tokens in the equations' own order, with PyTorch's operators.

    Args:
        tapped_blocks: 1-based.
        image: uint8 [S, S, 3].
        embeddings: float32 [2, E].

    Returns:
        float32 [S, S]; P(abnormal) of the CLS token; and the tokens of the blocks, or the
        reference tokens of a pyramid, float32 [blocks, tokens, width], L2-normalised.
    """
    text = torch.from_numpy(embeddings)
    seen = tapped_image(clip, tapped_blocks, image)
    parameters, size = stages.parameters_of_method, image.shape[0]
    logits = []
    for stage, tokens in zip(stages.modules_of_stages(), seen["image_intermediates"], strict=True):
        places = _reference_stage(stage, tokens, text, parameters)
        logits.append(_resized(places, (size, size), parameters))
    stacked = torch.stack(logits)
    if parameters.combination == "logits":
        anomaly_map = torch.softmax(stacked.mean(dim=0), dim=1)[0, 1]
    else:
        anomaly_map = torch.softmax(stacked, dim=2).mean(dim=0)[0, 1]
    return anomaly_map.numpy(), *score_and_tokens(seen, text)


def _reference_stage(
    stage: Umci, tokens: torch.Tensor, text: torch.Tensor, parameters: ClipSamParameters
) -> torch.Tensor:
    """Compute the logits of one stage, float32 [1, 2, grid, grid]."""
    size = (stage.grid, stage.grid)
    columns = text.T[None]
    projected = stage.project(tokens).permute(0, 2, 1).reshape(1, -1, *size)

    def strip(module: StripAttention, sides: tuple[int | None, int | None]) -> torch.Tensor:
        pooled = functional.adaptive_avg_pool2d(projected, sides)
        places = module.visual(pooled.flatten(2)).permute(0, 2, 1)
        first, second = (t(columns).permute(0, 2, 1) for t in (module.text_1, module.text_2))
        attend = functional.scaled_dot_product_attention
        if parameters.strip_attention == "stacked":
            seen = attend(attend(places, first, first), second, second)
        else:
            seen = attend(places, second, attend(first, places, places))
        return _resized(seen.permute(0, 2, 1).reshape(1, -1, *pooled.shape[2:]), size, parameters)

    scales = []
    for module, cell in zip(stage.modules_of_scales(), parameters.pool_sizes, strict=True):
        pooled = functional.avg_pool2d(
            projected, cell, ceil_mode=parameters.pool_border == "partial"
        )
        cells = module.visual(pooled)
        seen = functional.scaled_dot_product_attention(
            cells.flatten(2).permute(0, 2, 1),
            module.key(columns).permute(0, 2, 1),
            module.value(columns).permute(0, 2, 1),
        )
        scales.append(_resized(seen.permute(0, 2, 1).reshape(cells.shape), size, parameters))
    rows_and_columns = strip(stage.row, (None, 1)) + strip(stage.column, (1, None))
    paths = (stage.original(projected), stage.strip(rows_and_columns), stage.scale(sum(scales)))
    fused = functional.relu(stage.fusion(torch.cat(paths, dim=1)) + projected)
    logits: torch.Tensor = stage.head(fused.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return logits


def _resized(
    planes: torch.Tensor, size: tuple[int, int], parameters: ClipSamParameters
) -> torch.Tensor:
    return functional.interpolate(
        planes, size=size, mode="bilinear", align_corners=parameters.align_corners
    )


def build(tower: Tower, parameters: ClipSamParameters) -> BuiltLocalizer:
    """Build ClipSAM's localizer.

    Raises:
        WeightsError: The weights are not those of UMCI for the architecture and the parameters.
    """
    stages = new_stages(tower.clip, tower.architecture, tower.image_size, parameters)
    load_stages(stages, tower.weights)
    blocks = tower.architecture.tapped_blocks
    encoder = ClipSamEncoder(tower.clip, stages, blocks, tower.image_size, batched=tower.batched)
    return BuiltLocalizer(encoder.eval(), partial(reference, tower.clip, stages, blocks))


CLIPSAM = Localizer(
    name=NAME,
    summary="cross-attention of rows, columns and scales with the texts, trained on another set",
    parameters=ClipSamParameters,
    takes_text=True,
    takes_weights=True,
    build=build,
    check=check,
)
