"""The references that an export is checked against: the models in PyTorch.

They are open_clip's towers with APRIL-GAN's map, and segment_anything's own modules. The export
modules are not involved, so that a mistake in one of them shows.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP
from segment_anything.modeling import Sam
from torch.nn import functional

from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings
from zeroflaw_engines.sessions.device_tensor import Tensor
from zeroflaw_export.models.adapters import LinearAdapters
from zeroflaw_export.models.architectures import CLIP_MEAN, CLIP_STD, float32
from zeroflaw_export.parity.checks import SamDecoderReference, SamEncoderReference


@torch.inference_mode()
def reference_clip(
    clip: CLIP,
    adapters: LinearAdapters,
    tapped_blocks: tuple[int, ...],
    image: NDArray[np.uint8],
    embeddings: TextEmbeddings,
) -> tuple[NDArray[np.float32], float, NDArray[np.float32]]:
    """Compute APRIL-GAN's map and image score in its own order of operations (test.py:159-183).

    Args:
        tapped_blocks: 1-based.
        image: uint8 [S, S, 3].
        embeddings: float32 [2, E].

    Returns:
        float32 [S, S], mean over the blocks; P(abnormal) of the CLS token; and the tokens of the
        blocks, or the reference tokens of a pyramid, float32 [blocks, tokens, width],
        L2-normalised.
    """
    text = torch.from_numpy(embeddings)
    seen = tapped_image(clip, tapped_blocks, image)
    maps = []
    for layer, tokens in zip(adapters.fc, seen["image_intermediates"], strict=True):
        unit = layer(tokens)
        unit = unit / unit.norm(dim=-1, keepdim=True)
        logits = 100.0 * unit @ text.T
        side = int(logits.shape[1] ** 0.5)
        grid = logits.permute(0, 2, 1).view(1, 2, side, side)
        grid = functional.interpolate(
            grid, size=image.shape[0], mode="bilinear", align_corners=True
        )
        maps.append(torch.softmax(grid, dim=1)[0, 1])
    return torch.stack(maps).mean(dim=0).numpy(), *score_and_tokens(seen, text)


def reference_pixels(image: NDArray[np.uint8]) -> torch.Tensor:
    """Normalise an image for CLIP: uint8 [S, S, 3] -> float32 [1, 3, S, S]."""
    unit = torch.from_numpy(image.copy()).float() / 255
    return ((unit - float32(CLIP_MEAN)) / float32(CLIP_STD)).permute(2, 0, 1)[None]


def tapped_image(
    clip: CLIP, tapped_blocks: tuple[int, ...], image: NDArray[np.uint8]
) -> dict[str, Any]:
    """Run the image tower on one image.

    Args:
        tapped_blocks: 1-based.
        image: uint8 [S, S, 3].

    Returns:
        What `forward_intermediates` of the tower gives: `image_features`, `image_intermediates`
        without norm, and of a pyramid `reference_tokens`.
    """
    seen: dict[str, Any] = clip.visual.forward_intermediates(
        reference_pixels(image),
        indices=[block - 1 for block in tapped_blocks],
        normalize_intermediates=False,
        output_fmt="NLC",
    )
    return seen


def score_and_tokens(
    seen: Mapping[str, Any], text: torch.Tensor
) -> tuple[float, NDArray[np.float32]]:
    """Compute APRIL-GAN's image score, and the tokens that go into reference banks.

    Args:
        seen: From `tapped_image`.
        text: float32 [2, E].

    Returns:
        P(abnormal) of the CLS token; and float32 [blocks, tokens, width], L2-normalised.
    """
    cls = seen["image_features"]
    cls = cls / cls.norm(dim=-1, keepdim=True)
    score = torch.softmax(100.0 * cls @ text.T, dim=-1)[0, 1]
    pyramid = seen.get("reference_tokens")
    taps = torch.cat(seen["image_intermediates"]) if pyramid is None else pyramid
    return float(score), (taps / taps.norm(dim=-1, keepdim=True)).numpy()


def reference_sam_encoder(sam: Sam) -> SamEncoderReference:
    """Return `Sam.preprocess` and `Sam.image_encoder` as one function."""

    @torch.inference_mode()
    def features(content: NDArray[np.uint8]) -> NDArray[np.float32]:
        planes = torch.from_numpy(content.copy()).permute(2, 0, 1)
        encoded: NDArray[np.float32] = sam.image_encoder(
            sam.preprocess(planes.float()[None])
        ).numpy()
        return encoded

    return features


def reference_sam_decoder(sam: Sam) -> SamDecoderReference:
    """Return `PromptEncoder` and `MaskDecoder` as one function."""
    return lambda features, prompt: _reference_decoder(sam, features, prompt)


@torch.inference_mode()
def _reference_decoder(
    sam: Sam, features: NDArray[np.float32], prompt: dict[str, Tensor]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    labels = prompt["point_labels"]
    is_point = (labels == 0) | (labels == 1)
    points = (
        torch.from_numpy(prompt["point_coords"][is_point][None]),
        torch.from_numpy(labels[is_point][None]),
    )
    has_box = bool((labels >= 2).any())
    boxes = torch.from_numpy(prompt["point_coords"][labels >= 2].reshape(1, 4)) if has_box else None
    masks = torch.from_numpy(prompt["mask_input"]) if prompt["has_mask_input"][0] else None
    sparse, dense = sam.prompt_encoder(points=points, boxes=boxes, masks=masks)
    logits, iou = sam.mask_decoder.predict_masks(
        image_embeddings=torch.from_numpy(features),
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
    )
    return logits.numpy(), iou.numpy()


@torch.inference_mode()
def reference_text(clip: CLIP, tokens: NDArray[np.int32]) -> NDArray[np.float32]:
    """Run `CLIP.encode_text`.

    Args:
        tokens: int32 [N, T], T at most the context.

    Returns:
        float32 [N, E], L2-normalised.
    """
    padded = np.zeros((len(tokens), clip.context_length), np.int64)
    padded[:, : tokens.shape[1]] = tokens
    embeddings: NDArray[np.float32] = clip.encode_text(
        torch.from_numpy(padded), normalize=True
    ).numpy()
    return embeddings


def keep_freed_memory() -> None:
    """Make glibc reuse freed memory instead of giving it back to the system.

    PyTorch's eager SAM allocates and frees gigabytes in every block; without this, half of the
    time of the parity check is spent on page faults (ViT-B: 30 s against 15 s).
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    m_trim_threshold, m_mmap_max = -1, -4
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, 2**31 - 1)
