"""Trains SAM's decoder on the prompts that it will really get.

The towers and SAM's encoder are finished by now, and stay as they are: their maps and features
of training frames are computed once, PPG (`zeroflaw.prompt_points`) makes its points of them,
and the decoder learns the three stages from those points, good and bad ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from torch import nn

from zeroflaw.geometry import frame_geometry
from zeroflaw.prompt_points import point_prompts
from zeroflaw_benchmarks.mini.cascade_loss import Prompts, Stages, cascade_loss
from zeroflaw_benchmarks.mini.checkpointed import train_steps
from zeroflaw_benchmarks.mini.crops import draw_crops
from zeroflaw_benchmarks.mini.sam_prompts import LOW_RES_CELL, no_points
from zeroflaw_benchmarks.mini.sam_training import PATCH, sam_features
from zeroflaw_benchmarks.mini.training_frames import TrainingFrames
from zeroflaw_engines.errors import TrainingError
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_export.clip_encoder import ClipEncoder
from zeroflaw_export.sam_decoder import SamDecoder

_AT_ONCE: Final = 8
# A positive point further than this from any defect points at none, px.
_ASTRAY: Final = 24


@dataclass(frozen=True, kw_only=True)
class CascadeTraining:
    """Settings of the decoder's last training.

    Attributes:
        frames: Crops of whole frames to ask about.
        window: Smallest and largest side of what a crop shows, px of the frame.
        defective: Share of the crops laid over a defect.
        batch: Prompts in a step.
        steps: Steps.
        learning_rate: Peak.
        stages: Weights of the losses of the stages.
        seed: Of the crops and of their order.
    """

    frames: int = 400
    window: tuple[float, float] = (400, 512)
    defective: float = 0.85
    batch: int = 8
    steps: int = 240
    learning_rate: float = 4e-4
    stages: Stages = (0.15, 0.5, 1.2)
    seed: int = 5


@dataclass(frozen=True)
class AskedFrames:
    """What the decoder is trained on.

    Attributes:
        features: float16 [N, C, G, G].
        prompts: N prompts and their answers.
    """

    features: torch.Tensor
    prompts: Prompts


def ask_frames(
    clip_encoder: ClipEncoder,
    text: torch.Tensor,
    sam: Sam,
    frames: TrainingFrames,
    *,
    parameters: MethodParameters,
    settings: CascadeTraining,
) -> AskedFrames:
    """Points of PPG on the maps of training frames; frames without an extreme region are left out.

    Args:
        clip_encoder: Gives the maps.
        text: float32 [2, E], embeddings of the sentences of a product.
        sam: Gives the features.
        frames: What to look at.
        parameters: Of PPG.
        settings: How many and which.

    Raises:
        TrainingError: No map has an extreme region.
    """
    side = sam.image_encoder.img_size
    features, coords, labels, wanted = [], [], [], []
    for first in range(0, settings.frames, _AT_ONCE):
        rng = np.random.default_rng([settings.seed, first])
        images, truth, _ = draw_crops(
            frames, rng, _AT_ONCE, side=side, window=settings.window, cell=LOW_RES_CELL,
            defective=settings.defective,
        )  # fmt: skip
        with torch.inference_mode():
            shown = torch.from_numpy(images)
            maps, _ = clip_encoder(shown, text)
            seen = sam_features(sam, shown, side // PATCH, (0, 0))
        for each in range(len(images)):
            asked = _points(maps[each].numpy(), seen[each].numpy(), parameters)
            if asked is not None:
                features.append(seen[each].half())
                coords.append(asked[0])
                labels.append(asked[1])
                wanted.append(truth[each] if _on_defect(asked, truth[each]) else 0 * truth[each])
    if not features:
        raise TrainingError(
            f"the maps of {settings.frames} training frames have no extreme region",
            "train the towers for longer: give the command again with a new WORK",
        )
    prompts = Prompts(
        torch.from_numpy(np.stack(coords)),
        torch.from_numpy(np.stack(labels)),
        torch.from_numpy(np.stack(wanted)),
    )
    return AskedFrames(torch.stack(features).clone(), prompts)


Points = tuple[NDArray[np.float32], NDArray[np.int32]]


def _points(
    anomaly_map: NDArray[np.float32], features: NDArray[np.float32], parameters: MethodParameters
) -> Points | None:
    """Coords and labels of a prompt's rows, or None if nothing in the map is extreme."""
    map_size, cells = anomaly_map.shape[0], features.shape[1]
    side = cells * PATCH
    geometry = frame_geometry(
        (side, side), map_size=map_size, sam_size=side, feature_size=cells, squash_sam=False
    )
    found = point_prompts(anomaly_map, features, geometry, parameters)
    if found is None:
        return None
    coords, labels = no_points()
    coords[: len(found.coords)], labels[: len(found.labels)] = found.coords, found.labels
    return coords, labels


def _on_defect(points: Points, truth: NDArray[np.float32]) -> bool:
    """Whether a positive point lies on a defect or near it."""
    coords, labels = points
    places = np.argwhere(truth > 0)[:, ::-1] * LOW_RES_CELL + LOW_RES_CELL / 2
    if not len(places):
        return False
    positive = coords[labels == 1]
    apart = np.abs(positive[:, None] - places[None]).max(axis=-1)
    return bool(apart.min() <= _ASTRAY)


def train_cascade(
    sam: Sam,
    asked: AskedFrames,
    settings: CascadeTraining,
    folder: Path,
    report: Callable[[str, int, float], None],
) -> None:
    """Trains the decoder in place.

    Args:
        sam: Whose encoder gave the features.
        asked: From `ask_frames`.
        settings: How long and how fast.
        folder: Where the checkpoint is kept.
        report: Is told the phase, the step and its loss.
    """
    trained = nn.ModuleList([sam.prompt_encoder, sam.mask_decoder]).train()
    decoder = SamDecoder(sam)

    def loss(step: int) -> torch.Tensor:
        rng = np.random.default_rng([settings.seed, settings.frames, step])
        rows = torch.from_numpy(rng.choice(len(asked.features), settings.batch, replace=False))
        prompts = asked.prompts
        batch = Prompts(prompts.coords[rows], prompts.labels[rows], prompts.wanted[rows])
        total, _ = cascade_loss(
            decoder,
            asked.features[rows].float(),
            batch,
            shift=torch.zeros(2),
            weights=settings.stages,
        )
        return total

    train_steps(
        trained,
        loss,
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        checkpoint=folder / "cascade.pt",
        report=lambda step, value: report("cascade", step, value),
    )
    sam.eval()
