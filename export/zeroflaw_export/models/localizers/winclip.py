"""WinCLIP (arXiv 2303.14814): windows of tokens between two sentences, without any training.

Each window of 2 x 2 and of 3 x 3 patches goes through the transformer by itself, with the class
token. The order of operations is that of anomalib 2.7 (models/image/winclip/torch_model.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP
from torch.nn import functional

from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings
from zeroflaw_engines.contract import ReferenceSizes
from zeroflaw_engines.errors import ExportError
from zeroflaw_export.models.architectures import ClipArchitecture
from zeroflaw_export.models.clip_encoder import bilinear_matrix
from zeroflaw_export.models.image_tower import ImageTower
from zeroflaw_export.models.localizers.localizer import BuiltLocalizer, Localizer, Tower
from zeroflaw_export.models.localizers.window_matcher import plain_window_map, window_matcher
from zeroflaw_export.models.localizers.windows import Windows, mean_inverse
from zeroflaw_export.models.reference_matcher import MOST_PHOTOS
from zeroflaw_export.parity.references import reference_pixels

# The image as a whole, and the windows of two scales.
_SCALES: Final = 3
# A difference of two logits below this counts as this: sigmoid(-80) = 2e-35 can be divided by.
_LEAST_LOGIT: Final = -80.0


@dataclass(frozen=True, kw_only=True)
class WinClipParameters:
    """The open points of WinCLIP.

    Attributes:
        small_window: Side of the windows of the first scale, patches.
        mid_window: Side of those of the second scale, patches.
        temperature: Divides the cosines before softmax, in [0.01, 1].
    """

    small_window: int = 2
    mid_window: int = 3
    temperature: float = 0.07

    def windows(self, grid: int) -> tuple[Windows, Windows]:
        """Return the windows of both scales on a square grid of patches."""
        return Windows(grid, self.small_window), Windows(grid, self.mid_window)


class WinClipEncoder(ImageTower):
    """A ViT of CLIP on the whole image and on windows of its tokens.

    Args:
        image_size: Side of the square input, px.
        batched: Whether it takes several images, and gives patch tokens an axis for them.
    """

    upsample: torch.Tensor
    one: torch.Tensor

    def __init__(
        self, clip: CLIP, image_size: int, parameters: WinClipParameters, *, batched: bool = False
    ) -> None:
        super().__init__(clip, batched=batched)
        self.temperature = parameters.temperature
        grid = image_size // clip.visual.patch_size[0]
        self.windows = parameters.windows(grid)
        self.register_buffer("upsample", bilinear_matrix(grid, image_size, align_corners=False))
        self.register_buffer("one", torch.ones(1))
        for number, windows in enumerate(self.windows):
            # The class token comes first, and patches after it.
            tokens = functional.pad(windows.patches + 1, (1, 0))
            self.register_buffer(f"tokens_{number}", tokens.flatten())
            self.register_buffer(f"around_{number}", windows.around)
            self.register_buffer(f"inverse_counts_{number}", windows.inverse_counts)

    def forward(
        self, image: torch.Tensor, text_embeddings: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Localise what is closer to the abnormal sentences than to the normal ones.

        Args:
            image: uint8 [B, S, S, 3], RGB, each frame squashed to a square; B is 1 unless the
                module is batched.
            text_embeddings: float32 [2, E], L2-normalised: row 0 normal, row 1 abnormal.

        Returns:
            The anomaly map, float32 [B, S, S] in [0, 1]: the harmonic mean of P(abnormal) of the
            image, of the small and of the mid windows around each patch, upsampled.
            The image score, float32 [B] in (0, 1]: P(abnormal) of the class token.
            The patch tokens, float32 [3, tokens, width], L2-normalised: of block 0 the patches
            after the last norm; of blocks 1 and 2 the embeddings of the window around each patch,
            with zeros up to the width. With a first axis of B if it is batched.
        """
        embedded = self._embedded(image)
        seen = self.visual.ln_post(self.visual.transformer(embedded))
        score = self._abnormal(self._projected(seen[:, 0]), text_embeddings)
        inverse = torch.div(self.one, score)[:, None, None]
        blocks = [functional.normalize(seen[:, 1:], dim=-1)]
        for number, windows in enumerate(self.windows):
            found = self._of_windows(embedded, number, windows)
            scores = self._abnormal(found, text_embeddings)
            inverse = inverse + mean_inverse(
                scores.reshape(-1, windows.places, windows.places),
                windows,
                getattr(self, f"inverse_counts_{number}"),
            )
            blocks.append(found.index_select(1, getattr(self, f"around_{number}")))
        width = max(block.shape[-1] for block in blocks)
        wide = [functional.pad(block, (0, width - block.shape[-1])) for block in blocks]
        grid = torch.div(_SCALES * self.one, inverse)
        return self.upsample @ grid @ self.upsample.T, score, self.joined(wide)

    def _embedded(self, image: torch.Tensor) -> torch.Tensor:
        """Return class token and patches with their positions, after the first norm."""
        visual = self.visual
        patches = visual.conv1(self.pixels(image)).flatten(2).transpose(1, 2)
        cls = visual.class_embedding.expand(image.shape[0], 1, -1)
        embedded: torch.Tensor = visual.ln_pre(
            torch.cat([cls, patches], dim=1) + visual.positional_embedding
        )
        return embedded

    def _of_windows(self, embedded: torch.Tensor, number: int, windows: Windows) -> torch.Tensor:
        """Return the unit embeddings of all windows of a scale, float32 [B, places², E]."""
        count = windows.places**2
        # Norms and positions are of each token alone: a window takes the tokens as they are.
        tokens = embedded.index_select(1, getattr(self, f"tokens_{number}"))
        tokens = tokens.reshape(-1, windows.side**2 + 1, embedded.shape[-1])
        cls = self.visual.ln_post(self.visual.transformer(tokens)[:, 0])
        unit = self._projected(cls)
        return unit.reshape(-1, count, unit.shape[-1])

    def _projected(self, cls: torch.Tensor) -> torch.Tensor:
        return functional.normalize(cls @ self.visual.proj, dim=-1)

    def _abnormal(self, unit: torch.Tensor, text_embeddings: torch.Tensor) -> torch.Tensor:
        """Return P(abnormal) of unit embeddings [..., E]: softmax over two is a sigmoid."""
        logits = unit @ text_embeddings.T / self.temperature
        return torch.sigmoid((logits[..., 1] - logits[..., 0]).clamp(min=_LEAST_LOGIT))


@torch.inference_mode()
def reference_winclip(
    clip: CLIP, parameters: WinClipParameters, image: NDArray[np.uint8], embeddings: TextEmbeddings
) -> tuple[NDArray[np.float32], float, NDArray[np.float32]]:
    """Compute map, image score and tokens window by window, as the paper describes them.

    Args:
        image: uint8 [S, S, 3].
        embeddings: float32 [2, E].

    Returns:
        float32 [S, S]; P(abnormal) of the image; and tokens float32 [3, tokens, width].
    """
    visual, text = clip.visual, torch.from_numpy(embeddings)
    embedded: list[torch.Tensor] = []
    hook = visual.ln_pre.register_forward_hook(lambda _, __, output: embedded.append(output))
    try:
        seen = visual.forward_intermediates(
            reference_pixels(image),
            indices=1,
            normalize_intermediates=True,
            output_fmt="NLC",
        )
    finally:
        hook.remove()

    def abnormal(embedding: torch.Tensor) -> float:
        cosines = functional.cosine_similarity(embedding[None], text, dim=-1)
        return float(torch.softmax(cosines.double() / parameters.temperature, dim=0)[1])

    score = abnormal(seen["image_features"][0])
    patches = seen["image_intermediates"][0][0]
    side = round(len(patches) ** 0.5)
    inverse = torch.full((side, side), 1 / score, dtype=torch.float64)
    width = max(patches.shape[-1], text.shape[-1])
    blocks = torch.zeros(_SCALES, side * side, width)
    blocks[0, :, : patches.shape[-1]] = patches / patches.norm(dim=-1, keepdim=True)
    for block, windows in enumerate(parameters.windows(side), start=1):
        total, count = torch.zeros(2, side, side, dtype=torch.float64)
        places = list(np.ndindex(windows.places, windows.places))
        inside = torch.zeros(len(places), side, side, dtype=torch.bool)
        for window, (top, left) in zip(inside, places, strict=True):
            window[top : top + windows.side, left : left + windows.side] = True
        cls, grid = embedded[0][0, :1], embedded[0][0, 1:].reshape(side, side, -1)
        tokens = torch.stack([torch.cat([cls, grid[window]]) for window in inside])
        of_windows = (visual.ln_post(visual.transformer(tokens)) @ visual.proj)[:, 0]
        for window, embedding in zip(inside, of_windows, strict=True):
            total[window] += 1 / abnormal(embedding)
            count[window] += 1
        inverse += total / count
        for patch in np.ndindex(side, side):
            top, left = (min(max(at - windows.middle, 0), windows.places - 1) for at in patch)
            embedding = of_windows[places.index((top, left))]
            row = blocks[block, patch[0] * side + patch[1]]
            row[: len(embedding)] = embedding / embedding.norm()
    grid = (_SCALES / inverse).float()[None, None]
    upsampled = functional.interpolate(grid, size=image.shape[:2], mode="bilinear")
    return upsampled[0, 0].numpy(), score, blocks.numpy()


def build(tower: Tower, parameters: WinClipParameters) -> BuiltLocalizer:
    """Build WinCLIP's localizer."""
    encoder = WinClipEncoder(tower.clip, tower.image_size, parameters, batched=tower.batched)
    return BuiltLocalizer(encoder.eval(), partial(reference_winclip, tower.clip, parameters))


def check(architecture: ClipArchitecture, image_size: int, parameters: WinClipParameters) -> None:
    """Refuse what WinCLIP cannot run on.

    Raises:
        ExportError: The tower is a pyramid, a window is larger than the grid of patches, or a
            parameter is out of its range.
    """
    if architecture.has_pyramid:
        raise ExportError(
            f"winclip runs the blocks of a ViT on windows of its patches, and {architecture.name}"
            " is a pyramid on a convolutional trunk",
            "choose a ViT, as vit_b_16_plus_240, or another localizer",
        )
    small, mid, grid = (
        parameters.small_window,
        parameters.mid_window,
        image_size // architecture.patch_size,
    )
    if not 1 <= small < mid:
        raise ExportError(
            f"the windows of winclip are {small} and {mid} patches wide",
            "choose 1 <= small_window < mid_window",
        )
    if mid > grid:
        raise ExportError(
            f"{architecture.name} has {grid} x {grid} patches at {image_size} px, fewer than a"
            f" window of {mid} x {mid}",
            "choose a larger image size, or smaller windows",
        )
    if not 0.01 <= parameters.temperature <= 1:
        raise ExportError(
            f"the temperature of winclip is {parameters.temperature:g}",
            "choose 0.01 to 1; the paper has 0.07",
        )


def window_reference_sizes(
    architecture: ClipArchitecture, image_size: int, bank_bytes: int
) -> ReferenceSizes:
    """Size the banks: patches and windows of two scales, as wide as the wider of them."""
    tokens = (image_size // architecture.patch_size) ** 2
    width = max(architecture.token_width, architecture.embedding_size)
    rows = min(bank_bytes // (2 * _SCALES * width), MOST_PHOTOS * tokens)
    return ReferenceSizes(_SCALES, tokens, width, rows)


WINCLIP = Localizer(
    name="winclip",
    summary="windows of 2 x 2 and 3 x 3 patches, each seen alone; nothing is trained",
    parameters=WinClipParameters,
    takes_text=True,
    takes_weights=False,
    build=build,
    check=check,
    quick_gelu="native",
    tapped_blocks=lambda architecture, _: (architecture.config["vision_cfg"]["layers"],),
    reference_sizes=window_reference_sizes,
    matcher=window_matcher,
    plain_reference_map=plain_window_map,
    method_parameters={
        "reference_distance": "half_cosine",
        "reference_fusion": "mean",
        "reference_image_scoring": "mean",
    },
)
