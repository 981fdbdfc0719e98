"""anomalib's WinCLIP on the weights of a CLIP that is there: no download, and its own code."""

from __future__ import annotations

import copy
from unittest import mock

import numpy as np
import torch
from torch import nn

from zeroflaw_export.models.architectures import CLIP_MEAN, CLIP_STD, float32


class _SequenceFirst(nn.Module):
    """A transformer as open_clip had it before its pull request 906: [L, N, D] in and out."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.transformer(tokens.permute(1, 0, 2)).permute(1, 0, 2)


def anomalib_winclip(
    clip, texts: np.ndarray, *, scales: tuple[int, int] = (2, 3), sequence_first: bool = True
):
    """Build anomalib's model. It is imported here: that takes seconds, and brings Lightning.

    anomalib 2.7 gives its windows to open_clip's transformer sequence first, and asks for an
    open_clip below 2.26.1. Later ones take batches first, so that windows would attend to each
    other and not to their own tokens (open-edge-platform/anomalib#2571).

    Args:
        texts: float32 [2, E], in place of its own prompt ensemble.
        scales: Sides of its windows, patches.
        sequence_first: Whether windows meet the transformer that anomalib was written for.
    """
    from anomalib.models.image.winclip import torch_model

    class Model(torch_model.WinClipModel):
        def _get_window_embeddings(self, feature_map, masks):
            visual = self.clip.visual
            transformer = visual.transformer
            if sequence_first:
                visual.transformer = _SequenceFirst(transformer)
            try:
                return super()._get_window_embeddings(feature_map, masks)
            finally:
                visual.transformer = transformer

    mine = mock.Mock(return_value=(copy.deepcopy(clip), None, None))
    with mock.patch.object(torch_model.open_clip, "create_model_and_transforms", mine):
        model = Model(scales=scales).eval()
    model._text_embeddings = torch.from_numpy(texts)
    return model


def pixels(image: np.ndarray) -> torch.Tensor:
    """Normalise an image uint8 [S, S, 3] as CLIP does, float32 [1, 3, S, S]."""
    planes = torch.from_numpy(image.copy()).float() / 255
    return ((planes - float32(CLIP_MEAN)) / float32(CLIP_STD)).permute(2, 0, 1)[None]


@torch.inference_mode()
def telling_texts(clip, image: np.ndarray) -> np.ndarray:
    """Embeddings between which an image and its windows lie, float32 [2, E]: maps that vary."""
    embedding = clip.visual(pixels(image))[0].numpy()
    embedding /= np.linalg.norm(embedding)
    rng = np.random.default_rng(5)
    texts = embedding + 0.3 * rng.standard_normal((2, len(embedding))) / len(embedding) ** 0.5
    return (texts / np.linalg.norm(texts, axis=1, keepdims=True)).astype(np.float32)
