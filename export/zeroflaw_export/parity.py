"""Parity: each exported engine against the PyTorch original, on a real and on a noise image.

The originals are open_clip's tower with APRIL-GAN's map and segment_anything's own modules; the
export modules are not involved, so that a mistake in one of them shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP
from PIL import Image
from segment_anything.modeling import Sam
from torch.nn import functional

from zeroflaw_engines.contract import (
    LABEL_NOT_A_POINT,
    LABEL_UNUSED,
    EngineName,
)
from zeroflaw_engines.device_tensor import Tensor
from zeroflaw_engines.errors import ParityError
from zeroflaw_engines.manifest import ParityFigure
from zeroflaw_engines.prompt_bank import TextEmbeddings
from zeroflaw_engines.session import Session
from zeroflaw_export.adapters import LinearAdapters
from zeroflaw_export.architectures import CLIP_MEAN, CLIP_STD, float32

ImageKind = Literal["real", "noise"]
IMAGE_KINDS: Final[tuple[ImageKind, ...]] = ("real", "noise")

MAP_TOLERANCE: Final = 1e-4
SENTENCE_TOLERANCE: Final = 1e-4
RELATIVE_TOLERANCE: Final = 1e-3

# Numbers of points for which the decoder is checked, without and with a box and a mask.
_POINT_COUNTS: Final = (1, 2, 7, 20)


def parity_image(kind: ImageKind, height: int, width: int) -> NDArray[np.uint8]:
    """An image to check with: a photograph (coffee, CC0, from scikit-image), or noise.

    Returns:
        uint8 [height, width, 3], RGB.
    """
    if kind == "noise":
        return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    with files("zeroflaw_export").joinpath("parity.jpg").open("rb") as file:
        photo = Image.open(file).convert("RGB")
        return np.asarray(photo.resize((width, height), Image.Resampling.BICUBIC))


def check_clip_encoder(
    session: Session,
    clip: CLIP,
    adapters: LinearAdapters,
    tapped_blocks: tuple[int, ...],
    embeddings: TextEmbeddings,
) -> list[ParityFigure]:
    """Compares the anomaly map and the image score with open_clip's tower.

    Raises:
        ParityError: A difference is larger than is accepted.
    """
    figures = []
    size = session.contract.inputs[0].shape[1]
    assert isinstance(size, int)  # noqa: S101 - the contract fixes it
    for kind in IMAGE_KINDS:
        image = parity_image(kind, size, size)
        want_map, want_score = reference_clip(clip, adapters, tapped_blocks, image, embeddings)
        got = session.execute({"image": image[None], "text_embeddings": embeddings})
        figures += [
            _figure(
                "clip_encoder",
                kind,
                "anomaly map, largest difference",
                np.abs(got["anomaly_map"][0] - want_map).max(),
                MAP_TOLERANCE,
            ),
            _figure(
                "clip_encoder",
                kind,
                "image score, difference",
                abs(float(got["image_score"][0]) - want_score),
                MAP_TOLERANCE,
            ),
        ]
    return _accepted(figures)


@torch.inference_mode()
def reference_clip(
    clip: CLIP,
    adapters: LinearAdapters,
    tapped_blocks: tuple[int, ...],
    image: NDArray[np.uint8],
    embeddings: TextEmbeddings,
) -> tuple[NDArray[np.float32], float]:
    """APRIL-GAN's map and image score, in its own order of operations (test.py:159-183).

    Args:
        clip: open_clip's model.
        adapters: The linear layers.
        tapped_blocks: 1-based.
        image: uint8 [S, S, 3].
        embeddings: float32 [2, E].

    Returns:
        float32 [S, S], mean over the blocks, and P(abnormal) of the CLS token.
    """
    text = torch.from_numpy(embeddings)
    pixels = (torch.from_numpy(image.copy()).float() / 255 - float32(CLIP_MEAN)) / float32(CLIP_STD)
    seen = clip.visual.forward_intermediates(
        pixels.permute(2, 0, 1)[None],
        indices=[block - 1 for block in tapped_blocks],
        normalize_intermediates=False,
        output_fmt="NLC",
    )
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
    cls = seen["image_features"]
    cls = cls / cls.norm(dim=-1, keepdim=True)
    score = torch.softmax(100.0 * cls @ text.T, dim=-1)[0, 1]
    return torch.stack(maps).mean(dim=0).numpy(), float(score)


def check_sam_encoder(
    session: Session, sam: Sam
) -> tuple[list[ParityFigure], dict[ImageKind, NDArray[np.float32]]]:
    """Compares the features with `Sam.preprocess` and `Sam.image_encoder`.

    The real image is wide, so that SAM's padding is checked as well.

    Returns:
        The figures, and the original's features for the check of the decoder.

    Raises:
        ParityError: A difference is larger than is accepted.
    """
    figures, features = [], {}
    side = sam.image_encoder.img_size
    for kind in IMAGE_KINDS:
        height = side * 2 // 3 if kind == "real" else side
        content = parity_image(kind, height, side)
        with torch.inference_mode():
            planes = torch.from_numpy(content.copy()).permute(2, 0, 1)
            want = sam.image_encoder(sam.preprocess(planes.float()[None])).numpy()
        image = np.full((1, side, side, 3), 255, np.uint8)  # the graph has to blank the rest
        image[0, :height] = content
        size = np.array([height, side], np.int32)
        got = session.execute({"image": image, "image_size": size})["features"]
        figures.append(
            _figure(
                "sam_encoder",
                kind,
                "features, largest difference over largest value",
                _relative(got, want),
                RELATIVE_TOLERANCE,
            )
        )
        features[kind] = want
    return _accepted(figures), features


def check_sam_decoder(
    session: Session, sam: Sam, features: dict[ImageKind, NDArray[np.float32]]
) -> list[ParityFigure]:
    """Compares all four masks and IoUs with `PromptEncoder` and `MaskDecoder`.

    Raises:
        ParityError: A difference is larger than is accepted.
    """
    figures = []
    max_prompts = session.contract.inputs[1].shape[1]
    assert isinstance(max_prompts, int)  # noqa: S101 - the contract fixes it
    for kind, feature in features.items():
        logits_difference = iou_difference = 0.0
        for prompt in _decoder_prompts(sam, max_prompts):
            want_logits, want_iou = _reference_decoder(sam, feature, prompt)
            got = session.execute({"features": feature, **prompt})
            logits_difference = max(
                logits_difference, _relative(got["low_res_logits"], want_logits)
            )
            iou_difference = max(iou_difference, _relative(got["predicted_iou"], want_iou))
        figures += [
            _figure(
                "sam_decoder",
                kind,
                "low-res logits, largest difference over largest value",
                logits_difference,
                RELATIVE_TOLERANCE,
            ),
            _figure(
                "sam_decoder",
                kind,
                "predicted IoU, largest difference over largest value",
                iou_difference,
                RELATIVE_TOLERANCE,
            ),
        ]
    return _accepted(figures)


def check_text_encoder(
    session: Session, clip: CLIP, tokens: NDArray[np.int32]
) -> list[ParityFigure]:
    """Compares sentence embeddings with `CLIP.encode_text`.

    Args:
        session: The text encoder.
        clip: open_clip's model.
        tokens: int32 [N, T], T at most the context.

    Raises:
        ParityError: A difference is larger than is accepted.
    """
    got = session.execute({"token_ids": tokens})["sentence_embeddings"]
    padded = np.zeros((len(tokens), clip.context_length), np.int64)
    padded[:, : tokens.shape[1]] = tokens
    with torch.inference_mode():
        want = clip.encode_text(torch.from_numpy(padded), normalize=True).numpy()
    return _accepted(
        [
            _figure(
                "text_encoder",
                "real",
                "sentence embeddings, largest difference",
                np.abs(got - want).max(),
                SENTENCE_TOLERANCE,
            )
        ]
    )


def _decoder_prompts(sam: Sam, max_prompts: int) -> Iterator[dict[str, Tensor]]:
    rng = np.random.default_rng(1)
    side, low = sam.image_encoder.img_size, sam.prompt_encoder.mask_input_size[0]
    for count in _POINT_COUNTS:
        for with_box in (False, True):
            coords = np.zeros((1, max_prompts, 2), np.float32)
            labels = np.full((1, max_prompts), LABEL_UNUSED, np.int32)
            used = count + (2 if with_box else 1)
            coords[0, :used] = rng.uniform(0, side - 1, (used, 2))
            coords[0, used:] = rng.uniform(0, side - 1)  # unused rows must not matter
            labels[0, :count] = rng.integers(0, 2, count)
            labels[0, count:used] = (2, 3) if with_box else (LABEL_NOT_A_POINT,)
            mask = rng.normal(0, 4, (1, 1, low, low)).astype(np.float32) * with_box
            yield {
                "point_coords": coords,
                "point_labels": labels,
                "mask_input": mask,
                "has_mask_input": np.array([with_box], np.float32),
            }


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


def _relative(got: Tensor, want: Tensor) -> float:
    return float(np.abs(got - want).max() / np.abs(want).max())


def _figure(
    engine: EngineName, image: ImageKind, quantity: str, value: float, tolerance: float
) -> ParityFigure:
    return ParityFigure(
        engine=engine, image=image, quantity=quantity, value=float(value), tolerance=tolerance
    )


def _accepted(figures: list[ParityFigure]) -> list[ParityFigure]:
    for figure in figures:
        if not figure.value <= figure.tolerance:  # a NaN is refused as well
            raise ParityError(
                f"{figure.engine} differs from PyTorch on the {figure.image} image: "
                f"{figure.quantity} {figure.value:.2e}, accepted {figure.tolerance:.0e}",
                "nothing was published; check the versions of torch, onnxscript and onnxruntime, "
                "and that the weights are those of this architecture",
            )
    return figures
