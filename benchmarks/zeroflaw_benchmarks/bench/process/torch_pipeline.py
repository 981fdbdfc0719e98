"""The encoders of the reference pipeline on a device, compiled or as CUDA graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from segment_anything.modeling import Sam
from torch import nn

from zeroflaw_benchmarks.bench.process.run_on import TorchMode
from zeroflaw_benchmarks.bench.process.torch_device import TorchDevice
from zeroflaw_benchmarks.bench.process.torch_modes import prepared
from zeroflaw_benchmarks.bench.process.torch_networks import DTYPES, ClipNetwork
from zeroflaw_benchmarks.reference.reference_pipeline import MapOf, ReferenceClip


class PreparedEncoder(nn.Module):
    """SAM's image encoder as `prepared` runs it, in the place of the one that `SamPredictor` calls.

    Args:
        encoder: On the device, in its dtype.
    """

    def __init__(
        self,
        encoder: nn.Module,
        side: int,
        dtype: torch.dtype,
        device: TorchDevice,
        mode: TorchMode,
    ) -> None:
        super().__init__()
        self.img_size = side
        self._planes = torch.zeros(1, 3, side, side, dtype=dtype, device=device.torch_device)
        self._run = prepared(encoder, [self._planes], mode, device)

    @torch.inference_mode()
    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """Encode normalised planes: float32 [1, 3, S, S] to float32 [1, C, G, G]."""
        self._planes.copy_(planes)
        (features,) = self._run()
        # A copy: the next frame overwrites what a graph gives.
        return features.to(torch.float32, copy=True)


@torch.inference_mode()
def encoders_on(
    clip: ReferenceClip, sam: Sam, device: TorchDevice, mode: TorchMode, precision: str
) -> MapOf:
    """Move both networks to a device and make their encoders ready there, in place.

    SAM's prompts and decoder are as `SamPredictor` runs them: eager, in float32.

    Args:
        precision: Of the encoders, of `DTYPES`.

    Returns:
        CLIP's part, called as `reference_map`.

    Raises:
        BenchmarkError: An encoder cannot run in that mode.
    """
    where, dtype = device.torch_device, DTYPES[precision]
    sam.to(where)
    side = sam.image_encoder.img_size
    encoder = sam.image_encoder.to(dtype)
    sam.image_encoder = PreparedEncoder(encoder, side, dtype, device, mode)
    width = next(clip.adapters.parameters()).shape[0]
    image = torch.zeros(1, clip.size, clip.size, 3, dtype=torch.uint8, device=where)
    text = torch.zeros(2, width, device=where)
    run = prepared(ClipNetwork(clip, dtype).eval().to(where), [image, text], mode, device)

    @torch.inference_mode()
    def map_of(
        _: ReferenceClip, frame: NDArray[np.uint8], embeddings: NDArray[np.float32]
    ) -> tuple[NDArray[Any], float]:
        size = (clip.size, clip.size)
        squashed = Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)
        image.copy_(torch.from_numpy(np.array(squashed))[None])
        text.copy_(torch.from_numpy(embeddings))
        anomaly_map, score = run()
        return anomaly_map[0].cpu().numpy(), float(score)

    return map_of
