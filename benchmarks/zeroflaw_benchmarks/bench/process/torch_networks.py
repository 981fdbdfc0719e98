"""CLIP and SAM as open_clip and segment_anything run them, each as a module of tensors alone.

Inputs and outputs are those of our engines' contracts, so that both do the same work: pixels come
as uint8 and are normalised on the device. Networks compute in one dtype; what their own code keeps
in float32 (SAM's prompts, CLIP's maps) stays there.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from torch import nn
from torch.nn import functional

from zeroflaw_benchmarks.bench.process.device_run import Arrays
from zeroflaw_benchmarks.reference.reference_models import reference_clip, reference_sam
from zeroflaw_benchmarks.reference.reference_pipeline import MEAN, STD, ReferenceClip
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.contract import CLIP_ENCODER, SAM_ENCODER, EngineName

DTYPES: Final = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_LOGIT_SCALE: Final = 100.0


class ClipNetwork(nn.Module):
    """APRIL-GAN on open_clip's tower: tokens of tapped blocks, adapters, upsampled logits, softmax.

    Args:
        dtype: Of the tower and the adapters; they are converted in place.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, clip: ReferenceClip, dtype: torch.dtype) -> None:
        super().__init__()
        self.visual = clip.model.visual.to(dtype)
        self.adapters = clip.adapters.to(dtype)
        self.indices = [block - 1 for block in clip.tapped_blocks]
        self.side = clip.size
        self.dtype = dtype
        for name, value in (("mean", MEAN), ("std", STD)):
            tensor = torch.from_numpy(255 * value).float().reshape(1, 3, 1, 1)
            self.register_buffer(name, tensor)

    def forward(
        self, image: torch.Tensor, text_embeddings: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Localise what is closer to the abnormal sentences than to the normal ones.

        Args:
            image: uint8 [1, S, S, 3], RGB.
            text_embeddings: float32 [2, E], L2-normalised: normal, abnormal.

        Returns:
            The anomaly map, float32 [1, S, S] in [0, 1]; the image score, float32 [1].
        """
        pixels = (image.permute(0, 3, 1, 2).float() - self.mean) / self.std
        seen = self.visual.forward_intermediates(
            pixels.to(self.dtype),
            indices=self.indices,
            normalize_intermediates=False,
            output_fmt="NLC",
        )
        text = text_embeddings.T.to(self.dtype)
        maps = []
        for tokens in self.adapters(seen["image_intermediates"]):
            logits = (_LOGIT_SCALE * functional.normalize(tokens, dim=-1) @ text).float()
            grid = round(logits.shape[1] ** 0.5)
            logits = logits.permute(0, 2, 1).reshape(1, 2, grid, grid)
            large = functional.interpolate(
                logits, size=self.side, mode="bilinear", align_corners=True
            )
            maps.append(torch.softmax(large, dim=1)[:, 1])
        embedding = functional.normalize(seen["image_features"], dim=-1)
        scores = torch.softmax((_LOGIT_SCALE * embedding @ text).float(), dim=-1)[:, 1]
        return torch.stack(maps).mean(dim=0), scores


class SamEncoderNetwork(nn.Module):
    """SAM's image encoder behind `Sam.preprocess`.

    Args:
        dtype: Of the encoder; it is converted in place.
    """

    def __init__(self, sam: Sam, dtype: torch.dtype) -> None:
        super().__init__()
        self.sam = sam
        self.dtype = dtype
        sam.image_encoder.to(dtype)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Encode a square image: uint8 [1, S, S, 3], RGB, to float32 [1, C, G, G]."""
        planes = self.sam.preprocess(image.permute(0, 3, 1, 2).float())
        features: torch.Tensor = self.sam.image_encoder(planes.to(self.dtype)).float()
        return features


class SamDecoderNetwork(nn.Module):
    """SAM's prompt encoder and mask decoder on points and logits of an earlier call.

    The prompt encoder's own code mixes in float32, so it stays there.

    Args:
        dtype: Of the mask decoder; it is converted in place.
    """

    def __init__(self, sam: Sam, dtype: torch.dtype) -> None:
        super().__init__()
        self.prompt_encoder = sam.prompt_encoder
        self.mask_decoder = sam.mask_decoder.to(dtype)
        self.dtype = dtype

    def forward(
        self,
        features: torch.Tensor,
        point_coords: torch.Tensor,
        point_labels: torch.Tensor,
        mask_input: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode one prompt without a box.

        Args:
            features: float32 [1, C, G, G].
            point_coords: float32 [1, n, 2], (x, y) in SAM's square image.
            point_labels: int32 [1, n], 1 and 0.
            mask_input: float32 [1, 1, L, L], logits.

        Returns:
            The low-res logits of all four masks, float32 [1, 4, L, L], and their predicted IoUs,
            float32 [1, 4].
        """
        sparse, dense = self.prompt_encoder(
            points=(point_coords, point_labels), boxes=None, masks=mask_input
        )
        # `forward` would leave out the first mask, which our engine gives as well.
        masks, iou = self.mask_decoder.predict_masks(
            image_embeddings=features.to(self.dtype),
            image_pe=self.prompt_encoder.get_dense_pe().to(self.dtype),
            sparse_prompt_embeddings=sparse.to(self.dtype),
            dense_prompt_embeddings=dense.to(self.dtype),
        )
        return masks.float(), iou.float()


def network(bundle: Bundle, engine: EngineName, precision: str) -> nn.Module:
    """Load the network that does what an engine does, on the CPU, for inference.

    Weights are the bundle's if they are random, else random ones; times are the same.

    Args:
        precision: Of `DTYPES`.
    """
    dtype = DTYPES[precision]
    if engine == CLIP_ENCODER:
        found: nn.Module = ClipNetwork(reference_clip(bundle), dtype)
    elif engine == SAM_ENCODER:
        found = SamEncoderNetwork(reference_sam(bundle), dtype)
    else:
        found = SamDecoderNetwork(reference_sam(bundle), dtype)
    return found.eval().requires_grad_(requires_grad=False)


def network_inputs(engine: EngineName, inputs: Arrays) -> tuple[NDArray[np.generic], ...]:
    """Return the inputs of a network, in the order of its arguments, from those of the engine."""
    if engine == CLIP_ENCODER:
        return inputs["image"], inputs["text_embeddings"]
    if engine == SAM_ENCODER:
        return (inputs["image"],)
    points = inputs["point_labels"][0] >= 0  # SAM appends its row of no point by itself
    return (
        inputs["features"],
        np.ascontiguousarray(inputs["point_coords"][:, points]),
        np.ascontiguousarray(inputs["point_labels"][:, points]),
        inputs["mask_input"],
    )


def output_names(engine: EngineName) -> tuple[str, ...]:
    """Name the outputs of a network as the contract names those of the engine."""
    if engine == CLIP_ENCODER:
        return "anomaly_map", "image_score"
    if engine == SAM_ENCODER:
        return ("features",)
    return "low_res_logits", "predicted_iou"
