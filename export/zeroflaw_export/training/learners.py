"""The localizers that can be trained, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from open_clip.model import CLIP

from zeroflaw_engines.errors import TrainingError
from zeroflaw_export.datasets import Layout
from zeroflaw_export.models.adapters import LinearAdapters
from zeroflaw_export.models.architectures import ClipArchitecture
from zeroflaw_export.models.load import load_linear_adapters
from zeroflaw_export.models.localizers.april_gan import APRIL_GAN
from zeroflaw_export.models.localizers.clipsam import CLIPSAM, load_stages, new_stages
from zeroflaw_export.training.april_gan import adapters_learner, published_recipe
from zeroflaw_export.training.clipsam import (
    clipsam_recipe,
    default_stage_weights,
    umci_learner,
)
from zeroflaw_export.training.job import TrainingJob
from zeroflaw_export.training.learner import Learner
from zeroflaw_export.training.train import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class Learnable:
    """A localizer that can be trained.

    Attributes:
        recipe: The published settings for a data set of a layout.
        has_stage_weights: Whether the losses of its stages are weighed.
        suffixes: Of the file that is written.
        suffix_remedy: What to do about another suffix.
        check: Refuses a job before any weights are read.
        build: Makes the learner of a job on its device. Initial values come from PyTorch's
            generator, unless the job brings its own.
    """

    recipe: Callable[[Layout], TrainingSettings]
    has_stage_weights: bool
    suffixes: frozenset[str]
    suffix_remedy: str
    check: Callable[[TrainingJob, ClipArchitecture, int], None]
    build: Callable[[TrainingJob, CLIP, ClipArchitecture, int, torch.device], Learner]


def learnable(name: str) -> Learnable:
    """Look up the training of a localizer.

    Raises:
        TrainingError: There is none.
    """
    if name not in LEARNERS:
        raise TrainingError(
            f"there is no training for a localizer {name!r}", f"choose one of {', '.join(LEARNERS)}"
        )
    return LEARNERS[name]


def _check_adapters(job: TrainingJob, architecture: ClipArchitecture, _image_size: int) -> None:
    APRIL_GAN.parameters_from(job.localizer_parameters)
    if architecture.has_pyramid:
        raise TrainingError(
            f"the adapters of {architecture.name} are trained with its tower, not on a frozen one",
            "train it by `python -m zeroflaw_export.mini.make`, or name a CLIP with a ViT tower",
        )


def _build_adapters(
    job: TrainingJob,
    _clip: CLIP,
    architecture: ClipArchitecture,
    _image_size: int,
    device: torch.device,
) -> Learner:
    if job.initial_weights is not None:
        adapters = load_linear_adapters(architecture, job.initial_weights)
    else:
        adapters = LinearAdapters(
            len(architecture.tapped_blocks),
            architecture.token_width,
            architecture.embedding_size,
        )
    return adapters_learner(adapters.to(device))


def _check_umci(job: TrainingJob, architecture: ClipArchitecture, image_size: int) -> None:
    CLIPSAM.check(architecture, image_size, CLIPSAM.parameters_from(job.localizer_parameters))


def _build_umci(
    job: TrainingJob,
    clip: CLIP,
    architecture: ClipArchitecture,
    image_size: int,
    device: torch.device,
) -> Learner:
    parameters = CLIPSAM.parameters_from(job.localizer_parameters)
    stages = new_stages(clip, architecture, image_size, parameters)
    if job.initial_weights is not None:
        load_stages(stages, job.initial_weights)
    weights = job.stage_weights or default_stage_weights(
        len(architecture.tapped_blocks), pyramid=architecture.has_pyramid
    )
    return umci_learner(stages.to(device), weights)


LEARNERS: Final[dict[str, Learnable]] = {
    APRIL_GAN.name: Learnable(
        recipe=published_recipe,
        has_stage_weights=False,
        suffixes=frozenset({".safetensors", ".pth"}),
        suffix_remedy="name a .safetensors file, or a .pth file for APRIL-GAN's layout",
        check=_check_adapters,
        build=_build_adapters,
    ),
    CLIPSAM.name: Learnable(
        recipe=lambda _layout: clipsam_recipe(),
        has_stage_weights=True,
        suffixes=frozenset({".safetensors"}),
        suffix_remedy="name a .safetensors file",
        check=_check_umci,
        build=_build_umci,
    ),
}
