"""The architectures that can be exported, and how to build each without weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import torch
from open_clip import get_model_config
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from segment_anything import sam_model_registry
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import nn

from zeroflaw_engines.errors import ExportError
from zeroflaw_export.models.pyramid import (
    TRUNK,
    PyramidImageEncoder,
    PyramidTower,
)

T = TypeVar("T")

SAM_MEAN: Final = (123.675, 116.28, 103.53)
SAM_STD: Final = (58.395, 57.12, 57.375)
CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Final = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ClipArchitecture:
    """A CLIP with a ViT tower, or with a pyramid on a trunk of timm's.

    Attributes:
        name: Name in the registry.
        config: open_clip's model configuration; with `timm_model_name`, the tower is a pyramid.
        image_size: Default side of the square input, px.
        native_image_size: Side at which the weights were trained, px.
        tapped_blocks: 1-based blocks, or levels from the finest, whose tokens are adapted.
        native_quick_gelu: Whether its weights were trained with QuickGELU, as OpenAI's were.
    """

    name: str
    config: dict[str, Any]
    image_size: int
    native_image_size: int
    tapped_blocks: tuple[int, ...]
    native_quick_gelu: bool = True

    @property
    def patch_size(self) -> int:
        """Side of one patch, or of one cell of a trunk's last stage, px."""
        return int(self.config["vision_cfg"]["patch_size"])

    @property
    def has_pyramid(self) -> bool:
        """Return whether the image tower is a pyramid on a convolutional trunk."""
        return "timm_model_name" in self.config["vision_cfg"]

    @property
    def token_width(self) -> int:
        """Width of the tokens that the adapters take."""
        return int(self.config["vision_cfg"]["width"])

    @property
    def embedding_size(self) -> int:
        """Width of the shared image-text space."""
        return int(self.config["embed_dim"])

    def uses_quick_gelu(self, image_size: int) -> bool:
        """Return whether the reference runs QuickGELU at this size.

        APRIL-GAN loads OpenAI's weights into a fresh erf-GELU model at every size but the
        native one, and its released adapters were trained that way.
        """
        return self.native_quick_gelu and image_size == self.native_image_size

    def check_image_size(self, image_size: int) -> None:
        """Refuse a size that the patches do not fill.

        Raises:
            ExportError: The size is not a multiple of the patch size.
        """
        if image_size <= 0 or image_size % self.patch_size:
            raise ExportError(
                f"{self.name} cannot be exported at {image_size} px",
                f"choose a multiple of its patch size, {self.patch_size}",
            )

    def build(self, image_size: int, *, quick_gelu: bool | None = None) -> CLIP:
        """Build a CLIP without weights, both towers, float32, in eval mode.

        Args:
            quick_gelu: Whether the activation is QuickGELU; None: as `uses_quick_gelu` says.

        Raises:
            ExportError: The size is not a multiple of the patch size.
        """
        self.check_image_size(image_size)
        vision = {**self.config["vision_cfg"], "image_size": image_size}
        if self.has_pyramid:
            # open_clip builds no pyramid: a ViT of one block keeps its place until it is there.
            vision = {"image_size": image_size, "patch_size": self.patch_size, "layers": 1,
                      "width": 64}  # fmt: skip
        clip = CLIP(
            embed_dim=self.embedding_size,
            vision_cfg=CLIPVisionCfg(**vision),
            text_cfg=CLIPTextCfg(**self.config["text_cfg"]),
            quick_gelu=self.uses_quick_gelu(image_size) if quick_gelu is None else quick_gelu,
        )
        if self.has_pyramid:
            clip.visual = PyramidTower(self.token_width, self.embedding_size)
        return clip.eval()


@dataclass(frozen=True)
class SamArchitecture:
    """A SAM.

    Attributes:
        name: Name in the registry.
        build: Makes one without weights, in eval mode.
    """

    name: str
    build: Callable[[], Sam]


def _small_sam(image_encoder: nn.Module, *, grid: int, channels: int, decoder_mlp: int) -> Sam:
    """Build a SAM whose prompt encoder and decoder are of its own classes at other sizes.

    Args:
        grid: Side of the features, cells.
        channels: Of the features.
    """
    side = image_encoder.img_size
    return Sam(
        image_encoder=image_encoder,
        prompt_encoder=PromptEncoder(
            embed_dim=channels,
            image_embedding_size=(grid, grid),
            input_image_size=(side, side),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=channels, mlp_dim=decoder_mlp, num_heads=8
            ),
            transformer_dim=channels,
            iou_head_depth=3,
            iou_head_hidden_dim=channels,
        ),
        pixel_mean=list(SAM_MEAN),
        pixel_std=list(SAM_STD),
    ).eval()


def _tiny_sam() -> Sam:
    encoder = ImageEncoderViT(
        img_size=256,
        patch_size=16,
        embed_dim=32,
        depth=2,
        num_heads=2,
        mlp_ratio=4,
        out_chans=32,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=(1,),
    )
    return _small_sam(encoder, grid=16, channels=32, decoder_mlp=64)


def _mini_sam() -> Sam:
    encoder = PyramidImageEncoder(img_size=512, width=64, out_chans=64)
    return _small_sam(encoder, grid=64, channels=64, decoder_mlp=256)


_TINY_CLIP: Final = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 112, "layers": 4, "width": 64, "head_width": 16, "patch_size": 14},
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 32,
        "heads": 2,
        "layers": 2,
    },
}

_MINI_CLIP: Final = {
    "embed_dim": 96,
    "vision_cfg": {"timm_model_name": TRUNK, "width": 64, "patch_size": 32},
    # The first 1,534 merges of CLIP's byte-pair vocabulary.
    "text_cfg": {"context_length": 77, "vocab_size": 2048, "width": 96, "heads": 3, "layers": 2},
}

CLIP_ARCHITECTURES: Final[dict[str, Callable[[], ClipArchitecture]]] = {
    "vit_l_14_336": lambda: ClipArchitecture(
        "vit_l_14_336", get_model_config("ViT-L-14-336"), 518, 336, (6, 12, 18, 24)
    ),
    # WinCLIP's. LAION's weights were trained with GELU, as open_clip's configuration has it.
    "vit_b_16_plus_240": lambda: ClipArchitecture(
        "vit_b_16_plus_240",
        get_model_config("ViT-B-16-plus-240"),
        240,
        240,
        (3, 6, 9, 12),
        native_quick_gelu=False,
    ),
    # For tests and examples: the same modules, small enough to run in milliseconds.
    "tiny": lambda: ClipArchitecture("tiny", _TINY_CLIP, 224, 112, (1, 2, 3, 4)),
    # The demonstration model that ships with the wheel.
    "mini": lambda: ClipArchitecture("mini", _MINI_CLIP, 448, 448, (1, 2, 3)),
}

SAM_ARCHITECTURES: Final[dict[str, Callable[[], Sam]]] = {
    "vit_h": sam_model_registry["vit_h"],
    "vit_l": sam_model_registry["vit_l"],
    "vit_b": sam_model_registry["vit_b"],
    "tiny": _tiny_sam,
    "mini": _mini_sam,
}


def clip_architecture(name: str) -> ClipArchitecture:
    """Look up the CLIP architecture of a name.

    Raises:
        ExportError: There is none.
    """
    return _look_up("CLIP", name, CLIP_ARCHITECTURES)()


def sam_architecture(name: str) -> SamArchitecture:
    """Look up the SAM architecture of a name.

    Raises:
        ExportError: There is none.
    """
    return SamArchitecture(name, _look_up("SAM", name, SAM_ARCHITECTURES))


def _look_up(kind: str, name: str, registry: dict[str, T]) -> T:
    if name not in registry:
        raise ExportError(
            f"there is no {kind} architecture {name!r}", f"choose one of: {', '.join(registry)}"
        )
    return registry[name]


def float32(values: tuple[float, ...]) -> torch.Tensor:
    """Make a constant of a graph."""
    return torch.tensor(values, dtype=torch.float32)
