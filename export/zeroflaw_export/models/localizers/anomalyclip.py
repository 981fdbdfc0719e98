"""AnomalyCLIP (arXiv 2310.18961): learned object-agnostic prompts, and attention of values.

Line numbers are those of github.com/zqhang/AnomalyCLIP at 45ed4dd.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from open_clip.model import CLIP
from torch.nn import functional

from zeroflaw_engines.errors import ExportError
from zeroflaw_export.models.architectures import ClipArchitecture
from zeroflaw_export.models.image_tower import ImageTower
from zeroflaw_export.models.localizers.anomalyclip_prompts import (
    STATES,
    PromptShape,
    load_prompts,
    prompt_embeddings,
)
from zeroflaw_export.models.localizers.localizer import BuiltLocalizer, Localizer, Tower
from zeroflaw_export.models.localizers.map_matrices import smoothed_upsampling
from zeroflaw_export.models.localizers.value_path import dual_block
from zeroflaw_export.parity.value_path_references import reference_anomalyclip

# The start mark, the words of the longer state and the end mark, as CLIP's tokenizer counts them.
_TOKENS_OF_WORDS = 2 + len(STATES[1].replace(".", " .").split())


@dataclass(frozen=True)
class AnomalyClipParameters:
    """What the public scripts set (test.sh, test.py).

    Attributes:
        features_list: Blocks whose patch tokens give maps, 1-based; negative ones count from the
            last, which is -1: block 24 of ViT-L/14, as in the released scripts.
        value_blocks: Last blocks with a path of values: 19, which the source calls DPAM_layer 20.
            In a tower of no more blocks, all have it.
        n_ctx: Learned tokens before the words of each state.
        depth: Text blocks that read learned tokens.
        t_n_ctx: Learned tokens of each text block after the first.
        temperature: That cosines are divided by before softmax, in [0.01, 1]: below it the score
            of a good image may be 0 in float32, which is what a dead engine gives.
        sigma: Of the Gaussian over the map, px of the map; 0: none.
    """

    features_list: tuple[int, ...] = (-1,)
    value_blocks: int = 19
    n_ctx: int = 12
    depth: int = 9
    t_n_ctx: int = 4
    temperature: float = 0.07
    sigma: float = 4.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: One is out of its range.
        """
        if not self.features_list or 0 in self.features_list:
            raise ValueError("features_list names blocks from 1 on, or from the last with -1")
        if self.value_blocks < 1 or self.depth < 1:
            raise ValueError("value_blocks and depth are at least 1")
        if not 1 <= self.t_n_ctx <= self.n_ctx:
            raise ValueError("t_n_ctx is at least 1, and n_ctx at least t_n_ctx")
        if not 0.01 <= self.temperature <= 1 or not 0 <= self.sigma <= 64:
            raise ValueError("temperature is in [0.01, 1], sigma in [0, 64]")

    def blocks(self, layers: int) -> tuple[int, ...]:
        """Return the blocks that give maps, 1-based, of a tower of so many."""
        return tuple(block if block > 0 else layers + 1 + block for block in self.features_list)

    def first_value_block(self, layers: int) -> int:
        """Return the first block with a path of values, 1-based."""
        return max(1, layers - self.value_blocks + 1)


class AnomalyClipEncoder(ImageTower):
    """CLIP's image tower with the path of values, and the map (AnomalyCLIP.py:267-390, test.py).

    Args:
        text_embeddings: float32 [2, E], L2-normalised: row 0 normal, row 1 abnormal.
        tapped_blocks: 1-based, whose tokens of the original path are compared with references.
        image_size: Side of the square input, px.
        batched: Whether it takes several images, and gives patch tokens an axis for them.
    """

    direction: torch.Tensor
    upsample: torch.Tensor

    def __init__(
        self,
        clip: CLIP,
        text_embeddings: torch.Tensor,
        parameters: AnomalyClipParameters,
        tapped_blocks: tuple[int, ...],
        image_size: int,
        *,
        batched: bool = False,
    ) -> None:
        super().__init__(clip, batched=batched)
        self.tapped_blocks = tapped_blocks
        layers = len(clip.visual.transformer.resblocks)
        self.map_blocks = parameters.blocks(layers)
        self.first_value_block = parameters.first_value_block(layers)
        self.grid = image_size // clip.visual.patch_size[0]
        # A softmax over two is the sigmoid of their difference.
        difference = (text_embeddings[1] - text_embeddings[0]) / parameters.temperature
        self.register_buffer("direction", difference[:, None])
        self.register_buffer(
            "upsample", smoothed_upsampling(self.grid, image_size, parameters.sigma)
        )

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Localise what is closer to the abnormal prompt than to the normal one.

        Args:
            image: uint8 [B, S, S, 3], RGB, each frame squashed to a square; B is 1 unless the
                module is batched.

        Returns:
            The anomaly map, float32 [B, S, S] in [0, 1]: mean over the blocks of P(abnormal),
            smoothed. The image score, float32 [B] in [0, 1]: P(abnormal) of the CLS token. The
            patch tokens of the original path, float32 [blocks, tokens, width], L2-normalised,
            with a first axis of B if the module is batched.
        """
        stream = self.visual._embeds(self.pixels(image))  # noqa: SLF001 - open_clip has no other name for it
        second = None
        taps, grids = [], []
        for number, block in enumerate(self.visual.transformer.resblocks, start=1):
            if number < self.first_value_block:
                stream = block(stream)
            else:
                both = dual_block(block, stream)
                second = both.values + (stream if second is None else second)
                stream = both.stream
            if number in self.tapped_blocks:
                taps.append(stream[:, 1:])
            if number in self.map_blocks:
                grids.append(self._abnormal(stream if second is None else second))
        smooth = self.upsample @ torch.stack(grids).mean(dim=0) @ self.upsample.T
        # The CLS token goes into the shared space without ln_post (AnomalyCLIP.py:387).
        cls = functional.normalize(stream[:, 0] @ self.visual.proj, dim=-1)
        scores = torch.sigmoid(cls @ self.direction)[:, 0]
        return smooth.clamp(0.0, 1.0), scores, self.patch_tokens(taps)

    def _abnormal(self, tokens: torch.Tensor) -> torch.Tensor:
        """P(abnormal) of the patches, before upsampling: [B, grid, grid]."""
        shared = self.visual.ln_post(tokens[:, 1:]) @ self.visual.proj
        logits = functional.normalize(shared, dim=-1) @ self.direction
        return torch.sigmoid(logits).reshape(-1, self.grid, self.grid)


def build(tower: Tower, parameters: AnomalyClipParameters) -> BuiltLocalizer:
    """Build AnomalyCLIP's localizer.

    Raises:
        WeightsError: The weights are not its prompts, or prompts of other sizes.
    """
    clip, blocks = tower.clip, tower.architecture.tapped_blocks
    shape = PromptShape(
        context=parameters.n_ctx,
        depth=parameters.depth,
        deep_tokens=parameters.t_n_ctx,
        width=clip.positional_embedding.shape[1],
    )
    text = prompt_embeddings(clip, load_prompts(tower.weights, shape))
    encoder = AnomalyClipEncoder(
        clip, text, parameters, blocks, tower.image_size, batched=tower.batched
    )
    layers = len(clip.visual.transformer.resblocks)
    reference = partial(
        reference_anomalyclip,
        clip,
        text,
        tapped_blocks=blocks,
        map_blocks=parameters.blocks(layers),
        first_value_block=parameters.first_value_block(layers),
        temperature=parameters.temperature,
        sigma=parameters.sigma,
    )
    return BuiltLocalizer(encoder.eval(), reference)


def check(
    architecture: ClipArchitecture,
    image_size: int,  # noqa: ARG001 - every size of the architecture is right
    parameters: AnomalyClipParameters,
) -> None:
    """Refuse a pyramid, and parameters that the towers have no room for.

    Raises:
        ExportError: As above.
    """
    if architecture.has_pyramid:
        raise ExportError(
            f"AnomalyCLIP cannot be built on {architecture.name}, whose tower has no attention",
            "choose a CLIP with a ViT, as vit_l_14_336",
        )
    layers = int(architecture.config["vision_cfg"]["layers"])
    wrong = [block for block in parameters.features_list if not 1 <= abs(block) <= layers]
    if wrong:
        raise ExportError(
            f"{architecture.name} has no block {', '.join(map(str, wrong))} (features_list)",
            f"name blocks from 1 to {layers}, or from -1 to -{layers} counted from the last",
        )
    context = int(architecture.config["text_cfg"].get("context_length", 77))
    if parameters.n_ctx + _TOKENS_OF_WORDS > context:
        raise ExportError(
            f"{parameters.n_ctx} learned tokens (n_ctx) and the words of a prompt are more than"
            f" the {context} tokens of {architecture.name}",
            f"choose n_ctx up to {context - _TOKENS_OF_WORDS}",
        )


ANOMALYCLIP = Localizer(
    name="anomalyclip",
    summary="learned prompts that name no product, and attention of values with values",
    parameters=AnomalyClipParameters,
    takes_text=False,
    takes_weights=True,
    default_weights="anomalyclip_visa",
    build=build,
    check=check,
    quick_gelu=True,
    positions="bilinear",
)
