"""The PyTorch models behind a bundle, with official, local or random weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import torch
from open_clip.model import CLIP, resize_pos_embed
from segment_anything.modeling import Sam
from torch import nn
from torch.nn import functional

from zeroflaw_engines.bundle.identities import WeightsIdentity
from zeroflaw_engines.errors import WeightsError
from zeroflaw_engines.files import sha256_of_file
from zeroflaw_export.models.adapters import APRIL_GAN_KEY, LinearAdapters, load_adapters
from zeroflaw_export.models.architectures import ClipArchitecture, SamArchitecture
from zeroflaw_export.models.random_weights import randomise_weights
from zeroflaw_export.weights.checkpoints import StateDict, read_state_dict

# OpenAI's archive carries these beside the weights, some of them in every block.
_CONSTANTS = frozenset({"input_resolution", "context_length", "vocab_size", "attn_mask"})
_POSITIONS: Final = "visual.positional_embedding"

# open_clip's and APRIL-GAN's way of resizing the position embedding, and that of AnomalyCLIP
# (AnomalyCLIP.py:362-370) and VisualAD: bilinear without antialiasing.
PositionInterpolation = Literal["bicubic_antialias", "bilinear"]


@dataclass(frozen=True)
class WeightsSource:
    """Where one model's weights come from: a file, or a seed.

    Attributes:
        name: As the manifest records it.
        path: The checkpoint, or None for random weights.
        seed: Seed of random weights.
    """

    name: str
    path: Path | None
    seed: int | None = None

    def require_file(self) -> None:
        """Check that the file is there, before minutes are spent on anything else.

        Raises:
            WeightsError: It is not.
        """
        if self.path is not None and not self.path.is_file():
            raise WeightsError(f"there is no weights file {self.path}", "check the path")

    def identity(self) -> WeightsIdentity:
        """Return what the manifest records."""
        digest = None if self.path is None else sha256_of_file(self.path)
        return WeightsIdentity(name=self.name, sha256=digest)


def load_clip(
    architecture: ClipArchitecture,
    image_size: int,
    source: WeightsSource,
    *,
    quick_gelu: bool | None = None,
    positions: PositionInterpolation = "bicubic_antialias",
) -> CLIP:
    """Load a CLIP with its weights, float32, in eval mode.

    Args:
        quick_gelu: Whether the activation is QuickGELU; None: as `uses_quick_gelu` says.
        positions: How the position embedding is resized to the image size.

    Raises:
        ExportError: The size does not fit the architecture.
        WeightsError: The checkpoint is not that of the architecture.
    """
    clip = architecture.build(image_size, quick_gelu=quick_gelu)
    if source.path is None:
        randomise_weights(clip, seed_of(source))
        return clip
    state = {
        # Of training on several GPUs, open_clip's checkpoints keep a first name.
        name.removeprefix("module."): value.float()
        for name, value in read_state_dict(source.path, unwrap="state_dict").items()
        if name.rsplit(".", 1)[-1] not in _CONSTANTS
    }
    if _POSITIONS in state:
        try:
            if positions == "bilinear":
                state[_POSITIONS] = _bilinear_positions(state[_POSITIONS], clip)
            else:
                resize_pos_embed(state, clip)
        except RuntimeError as error:
            raise WeightsError(
                f"{source.path} has a position embedding that does not fit: {error}",
                f"give a checkpoint of {architecture.name}",
            ) from error
    load_state(clip, state, source.path, architecture.name)
    return clip


def _bilinear_positions(positions: torch.Tensor, clip: CLIP) -> torch.Tensor:
    """Resize a position embedding as AnomalyCLIP does: float [1 + g * g, width]; CLS is kept."""
    old = round((len(positions) - 1) ** 0.5)
    size = clip.visual.grid_size
    if (old, old) == size:
        return positions
    grid = positions[1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, size, mode="bilinear", align_corners=False)
    return torch.cat([positions[:1], grid.flatten(2)[0].T])


def load_sam(architecture: SamArchitecture, source: WeightsSource) -> Sam:
    """Load a SAM with its weights, float32, in eval mode.

    Raises:
        WeightsError: The checkpoint is not that of the architecture.
    """
    sam = architecture.build()
    if source.path is None:
        randomise_weights(sam, seed_of(source))
    else:
        load_state(sam, read_state_dict(source.path), source.path, architecture.name)
    return sam


def load_linear_adapters(
    architecture: ClipArchitecture,
    source: WeightsSource,
    *,
    keys: tuple[str, ...] = (APRIL_GAN_KEY,),
) -> LinearAdapters:
    """Load linear adapters with their weights, in eval mode.

    Args:
        keys: As `load_adapters` takes them.

    Raises:
        WeightsError: The file does not hold adapters for this architecture.
    """
    adapters = LinearAdapters(
        len(architecture.tapped_blocks),
        architecture.token_width,
        architecture.embedding_size,
    ).eval()
    if source.path is None:
        randomise_weights(adapters, seed_of(source) + 1)
    else:
        load_adapters(adapters, source.path, keys=keys)
    return adapters


def seed_of(source: WeightsSource) -> int:
    """Return the seed of random weights.

    Raises:
        WeightsError: There is none.
    """
    if source.seed is None:
        raise WeightsError(f"{source.name} has neither a file nor a seed", "give one of them")
    return source.seed


def load_state(module: nn.Module, state: StateDict, path: Path, architecture: str) -> None:
    """Give a module its weights, in place.

    Args:
        path: Where the state is from, for errors.
        architecture: What it should be of, for errors.

    Raises:
        WeightsError: Names or shapes are others, or values are not finite.
    """
    want, remedy = module.state_dict(), f"give a checkpoint of {architecture}"
    missing = sorted(set(want) - set(state))
    unknown = sorted(set(state) - set(want))
    if missing or unknown:
        raise WeightsError(
            f"{path} is not a checkpoint of {architecture}: it lacks {len(missing)} tensors"
            f" ({', '.join(missing[:3])}) and has {len(unknown)} others ({', '.join(unknown[:3])})",
            remedy,
        )
    for name, value in state.items():
        if value.shape != want[name].shape:
            raise WeightsError(
                f"{path} has {name} of shape {list(value.shape)}, not {list(want[name].shape)}",
                remedy,
            )
        if not torch.isfinite(value).all():
            raise WeightsError(f"{path} has values in {name} that are not finite", remedy)
    module.load_state_dict(state)
