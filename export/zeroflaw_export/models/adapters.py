"""Linear adapters: one linear layer for each tapped block, into the shared image-text space.

APRIL-GAN (arXiv 2305.17382, section 2.2) trains these and nothing else. Its checkpoints are
`{"trainable_linearlayer": {"fc.0.weight": [embedding, width], "fc.0.bias": [embedding], ...}}`;
those of SDP+ (arXiv 2311.00453) say `linear_layers` instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file
from torch import nn

from zeroflaw_engines.errors import WeightsError
from zeroflaw_export.weights.checkpoints import read_state_dict

APRIL_GAN_KEY: Final = "trainable_linearlayer"
SDP_PLUS_KEY: Final = "linear_layers"


class LinearAdapters(nn.Module):
    """One linear layer with bias for each tapped block.

    Args:
        width: Width of the tower's tokens.
        embedding_size: Width of the shared space.
    """

    def __init__(self, blocks: int, width: int, embedding_size: int) -> None:
        super().__init__()
        self.fc = nn.ModuleList(nn.Linear(width, embedding_size) for _ in range(blocks))

    def forward(self, tokens: list[torch.Tensor]) -> list[torch.Tensor]:
        """Map the patch tokens of each block.

        Args:
            tokens: For each block, float [batch, patches, width], without the CLS token.

        Returns:
            For each block, float [batch, patches, embedding_size], not normalised.
        """
        return [layer(block) for layer, block in zip(self.fc, tokens, strict=True)]


def load_adapters(
    adapters: LinearAdapters, path: Path, *, keys: tuple[str, ...] = (APRIL_GAN_KEY,)
) -> None:
    """Load a method's `.pth` layout, or the same names in a safetensors file.

    Args:
        keys: Under which the layers may lie; default: APRIL-GAN's, so that those of SDP+, which
            were trained on another stream of the tower, are not taken for its own.

    Raises:
        WeightsError: The file holds no adapters, or those of another method or another shape.
    """
    state = read_state_dict(path, unwrap=keys)
    want = {name: tuple(value.shape) for name, value in adapters.state_dict().items()}
    got = {name: tuple(value.shape) for name, value in state.items()}
    for name, shape in want.items():
        if name not in got:
            raise WeightsError(
                f"{path} has no adapter tensor {name}",
                f"give adapters with the tensors {', '.join(want)}",
            )
        if got[name] != shape:
            raise WeightsError(
                f"{path} has {name} of shape {list(got[name])}, not {list(shape)}",
                "give adapters that were trained for this CLIP architecture",
            )
    extra = sorted(set(got) - set(want))
    if extra:
        raise WeightsError(
            f"{path} has tensors that are not adapters: {', '.join(extra[:5])}",
            f"give a file with the tensors {', '.join(want)} only",
        )
    for name, value in state.items():
        if not torch.isfinite(value).all():
            raise WeightsError(
                f"{path} has values in {name} that are not finite", "give whole adapters"
            )
    adapters.load_state_dict({name: value.float() for name, value in state.items()})


def save_adapters(adapters: LinearAdapters, path: Path) -> None:
    """Write adapters: a safetensors file, or APRIL-GAN's layout for `.pth`."""
    state = {name: value.contiguous() for name, value in adapters.state_dict().items()}
    if path.suffix == ".pth":
        torch.save({APRIL_GAN_KEY: state}, path)
    else:
        save_file(state, path)
