"""SDP and SDP+ (CLIP-AD, arXiv 2311.00453): attention of values in stages, and linear layers.

File names are those of github.com/ByChelsea/CLIP-AD at f004973.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from open_clip.model import CLIP
from torch.nn import functional

from zeroflaw_engines.errors import ExportError
from zeroflaw_export.models.adapters import APRIL_GAN_KEY, SDP_PLUS_KEY, LinearAdapters
from zeroflaw_export.models.architectures import ClipArchitecture
from zeroflaw_export.models.clip_encoder import LOGIT_SCALE, bilinear_matrix, upsampled
from zeroflaw_export.models.image_tower import ImageTower
from zeroflaw_export.models.load import load_linear_adapters
from zeroflaw_export.models.localizers.localizer import BuiltLocalizer, Localizer, Tower
from zeroflaw_export.models.localizers.map_matrices import gaussian_matrix, smoothed_upsampling
from zeroflaw_export.models.localizers.value_path import dual_block
from zeroflaw_export.parity.value_path_references import reference_sdp

StreamTap = Literal["next_attention", "block"]


@dataclass(frozen=True, kw_only=True)
class _StagedParameters:
    """What SDP and SDP+ share.

    Attributes:
        stream_tap: Where the original path is read for the end of a stage: behind the next block's
            attention, as the public code gives it, or behind the block itself.
        sigma: Of the Gaussian over the map, px of the map; 0: none.
    """

    stream_tap: StreamTap = "next_attention"
    sigma: float = 8.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: One is out of its range.
        """
        if not 0 <= self.sigma <= 64:
            raise ValueError("sigma is in [0, 64]")


@dataclass(frozen=True, kw_only=True)
class SdpParameters(_StagedParameters):
    """The parameters of SDP.

    Attributes:
        map_scale: Factor on the difference of the weighed similarities, mean over the stages,
            before the sigmoid that takes it into [0, 1].
    """

    map_scale: float = LOGIT_SCALE

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: One is out of its range.
        """
        super().__post_init__()
        if not 0 < self.map_scale <= 1000:
            raise ValueError("map_scale is in (0, 1000]")


@dataclass(frozen=True, kw_only=True)
class SdpPlusParameters(_StagedParameters):
    """The parameters of SDP+.

    Attributes:
        similarity_weight: Of SDP's similarity where it is added to the maps of the linear layers.
    """

    similarity_weight: float = 1.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: One is out of its range.
        """
        super().__post_init__()
        if not 0 <= self.similarity_weight <= 100:
            raise ValueError("similarity_weight is in [0, 100]")


class SdpEncoder(ImageTower):
    """CLIP's image tower in two paths and the map of SDP, or of SDP+ (test.py, test_ft.py).

    Args:
        stages: The last block of each, 1-based.
        image_size: Side of the square input, px.
        adapters: One linear layer for each stage, of SDP+; None: SDP.
        batched: Whether it takes several images, and gives patch tokens an axis for them.
    """

    upsample: torch.Tensor
    upsample_logits: torch.Tensor
    smooth: torch.Tensor

    def __init__(
        self,
        clip: CLIP,
        parameters: SdpParameters | SdpPlusParameters,
        stages: tuple[int, ...],
        image_size: int,
        adapters: LinearAdapters | None = None,
        *,
        batched: bool = False,
    ) -> None:
        super().__init__(clip, batched=batched)
        self.adapters = adapters
        self.stages = stages
        self.parameters_of_method = parameters
        self.grid = image_size // clip.visual.patch_size[0]
        self.register_buffer(
            "upsample", smoothed_upsampling(self.grid, image_size, parameters.sigma)
        )
        if adapters is not None:
            self.register_buffer("upsample_logits", bilinear_matrix(self.grid, image_size))
            smooth = gaussian_matrix(image_size, parameters.sigma)
            self.register_buffer("smooth", torch.from_numpy(smooth).float())

    def forward(
        self, image: torch.Tensor, text_embeddings: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Localise what is closer to the abnormal sentences than to the normal ones.

        Args:
            image: uint8 [B, S, S, 3], RGB, each frame squashed to a square; B is 1 unless the
                module is batched.
            text_embeddings: float32 [2, E], L2-normalised: row 0 normal, row 1 abnormal.

        Returns:
            The anomaly map, float32 [B, S, S] in [0, 1]. The image score, float32 [B] in [0, 1]:
            P(abnormal) of the CLS token. The patch tokens of the original path, float32
            [blocks, tokens, width], L2-normalised, with a first axis of B if it is batched.
        """
        ends, streams, seconds = self._two_paths(self.pixels(image))
        similarities = []
        cosines = torch.zeros(1)
        for stream, second in zip(streams, seconds, strict=True):
            tokens = torch.cat([stream[:, :1], second[:, 1:]], dim=1)
            shared = self.visual.ln_post(tokens) @ self.visual.proj
            cosines = functional.normalize(shared, dim=-1) @ text_embeddings.T
            similarities.append(_similarity(cosines))
        similarity = torch.stack(similarities).mean(dim=0).reshape(-1, self.grid, self.grid)
        similar = self.upsample @ similarity @ self.upsample.T
        own = self.parameters_of_method
        if isinstance(own, SdpPlusParameters):
            learned = self._learned_map(streams, text_embeddings)
            # In [-w, 1 + w], which no public value leaves. Cut at 0 and 1 instead, a good frame
            # would be 0 everywhere, which is what a dead engine gives.
            weight = own.similarity_weight
            summed = learned + weight * similar
            anomaly_map = ((summed + weight) / (1 + 2 * weight)).clamp(0.0, 1.0)
        else:
            anomaly_map = torch.sigmoid(2 * own.map_scale * similar)
        cls = LOGIT_SCALE * cosines[:, 0]
        scores = torch.sigmoid(cls[:, 1] - cls[:, 0])
        return anomaly_map, scores, self.patch_tokens([end[:, 1:] for end in ends])

    def _two_paths(
        self, pixels: torch.Tensor
    ) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
        """Return the original path at the end of each stage, as it is read there, and the second.

        The second path starts anew in each stage: it is the sum of what its blocks add.
        """
        own = self.parameters_of_method
        stream = self.visual._embeds(pixels)  # noqa: SLF001 - open_clip has no other name for it
        second = torch.zeros(1)
        ends: list[torch.Tensor] = []
        streams: list[torch.Tensor] = []
        seconds: list[torch.Tensor] = []
        for number, block in enumerate(self.visual.transformer.resblocks, start=1):
            both = dual_block(block, stream)
            if len(streams) < len(ends):
                streams.append(both.attended if own.stream_tap == "next_attention" else stream)
            starts = number == 1 or number - 1 in self.stages
            second = both.values if starts else second + both.values
            stream = both.stream
            if number in self.stages:
                ends.append(stream)
                seconds.append(second)
        # Behind the last block there is no attention.
        return ends, [*streams, stream], seconds

    def _learned_map(self, streams: list[torch.Tensor], text: torch.Tensor) -> torch.Tensor:
        """Mean over the stages of P(abnormal) by the linear layers, smoothed: [B, S, S]."""
        assert self.adapters is not None  # noqa: S101 - SDP+ has them
        maps = []
        for tokens in self.adapters([stream[:, 1:] for stream in streams]):
            logits = LOGIT_SCALE * functional.normalize(tokens, dim=-1) @ text.T
            difference = logits[..., 1] - logits[..., 0]
            maps.append(torch.sigmoid(upsampled(difference, self.upsample_logits)))
        return self.smooth @ torch.stack(maps).mean(dim=0) @ self.smooth.T


def _similarity(cosines: torch.Tensor) -> torch.Tensor:
    """Take what both texts share out of the similarity of the abnormal one (util/surgery.py).

    There each text feature is weighed by w = p / mean(p), p the softmax over the CLS token's
    cosines, and the mean over the texts of the products is taken away. Of two texts, mean(p) is
    1/2 and what is left of the abnormal one is p_1 cos_1 - p_0 cos_0.

    Args:
        cosines: float32 [B, 1 + patches, 2], of the CLS token and the patches.

    Returns:
        float32 [B, patches] in [-1, 1].
    """
    weights = torch.softmax(cosines[:, :1], dim=-1)
    weighed = weights * cosines[:, 1:]
    return weighed[..., 1] - weighed[..., 0]


def build(tower: Tower, parameters: SdpParameters | SdpPlusParameters) -> BuiltLocalizer:
    """Build the localizer of SDP, or of SDP+.

    Raises:
        WeightsError: The weights are not linear layers for the architecture.
    """
    stages = tower.architecture.tapped_blocks
    adapters = None
    if isinstance(parameters, SdpPlusParameters):
        adapters = load_linear_adapters(
            tower.architecture, tower.weights, keys=(SDP_PLUS_KEY, APRIL_GAN_KEY)
        )
    encoder = SdpEncoder(
        tower.clip, parameters, stages, tower.image_size, adapters, batched=tower.batched
    )
    reference = partial(reference_sdp, tower.clip, adapters, stages=stages, parameters=parameters)
    return BuiltLocalizer(encoder.eval(), reference)


def check(
    architecture: ClipArchitecture,
    image_size: int,  # noqa: ARG001 - every size of the architecture is right
    parameters: object,  # noqa: ARG001 - all that are acceptable fit every tower
) -> None:
    """Refuse a pyramid, and a tower that its tapped blocks do not divide into equal stages.

    Raises:
        ExportError: As above.
    """
    if architecture.has_pyramid:
        raise ExportError(
            f"SDP cannot be built on {architecture.name}, whose tower has no attention",
            "choose a CLIP with a ViT, as vit_l_14_336",
        )
    layers, stages = int(architecture.config["vision_cfg"]["layers"]), architecture.tapped_blocks
    if [block * len(stages) for block in stages] != [layers * (i + 1) for i in range(len(stages))]:
        raise ExportError(
            f"the tapped blocks {stages} of {architecture.name} are not the ends of equal stages of"
            f" its {layers} blocks",
            "choose another CLIP, as vit_l_14_336",
        )


SDP = Localizer(
    name="sdp",
    summary="attention of values in four stages, without training",
    parameters=SdpParameters,
    takes_text=True,
    takes_weights=False,
    build=build,
    check=check,
    ensembles="sdp_prompt_ensembles.toml",
)

SDP_PLUS = Localizer(
    name="sdp_plus",
    summary="SDP, and linear layers that were trained on another data set",
    parameters=SdpPlusParameters,
    takes_text=True,
    takes_weights=True,
    build=build,
    check=check,
    ensembles="sdp_prompt_ensembles.toml",
)
