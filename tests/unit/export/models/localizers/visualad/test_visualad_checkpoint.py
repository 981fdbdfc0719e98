"""Checkpoints of VisualAD: the published layout is read, anything else is refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from zeroflaw_engines.errors import WeightsError
from zeroflaw_export.models.architectures import clip_architecture
from zeroflaw_export.models.localizers.visualad.checkpoint import load_parts, published_layout
from zeroflaw_export.models.localizers.visualad.parts import VisualAdParts, random_parts

TINY = clip_architecture("tiny")
BLOCKS, SIZE, WIDTH = TINY.tapped_blocks, 112, TINY.token_width


def layout() -> dict[str, Any]:
    return published_layout(random_parts(4, WIDTH, 5), BLOCKS, SIZE, "ViT-L/14@336px")


def written(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def test_the_published_layout_is_read(tmp_path: Path) -> None:
    """The names are those of the public source (training_utils.py and its modules)."""
    content = layout()
    attention = content["cross_attn"]["layer_attentions.layer_3.pos_encoding"]
    assert attention.shape == (1, 1536, WIDTH)
    parts = load_parts(written(content, tmp_path / "va.pth"), TINY, SIZE)
    assert not parts.training
    assert torch.equal(parts.anomaly_token, content["anomaly_token"])
    assert torch.equal(parts.ln_post.bias, content["ln_post_bias"])
    assert torch.equal(parts.attentions[2].positions, attention)
    gate = content["cross_attn"]["layer_attentions.layer_4.gate.0.weight"]
    assert torch.equal(parts.attentions[3].gate.weight, gate)
    outer = content["layer_transforms"]["layer_1"]["mlp.3.weight"]
    assert torch.equal(parts.alignments[0].outer.weight, outer)


def test_sizes_of_its_own_are_taken_from_the_tensors(tmp_path: Path) -> None:
    parts = VisualAdParts(4, WIDTH, hidden=48, anchors=8, positions=100)
    path = written(published_layout(parts, BLOCKS, SIZE, "x"), tmp_path / "va.pth")
    read = load_parts(path, TINY, SIZE)
    assert read.alignments[1].inner.out_features == 48
    assert read.attentions[1].anchors.shape == (8, WIDTH)
    assert read.attentions[1].positions.shape == (1, 100, WIDTH)


def without(*names: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for name in names[:-1]:
            content = content[name]
        del content[names[-1]]

    return change


def with_(value: object, *names: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for name in names[:-1]:
            content = content[name]
        content[names[-1]] = value

    return change


QUERY = "layer_attentions.layer_2.q_proj.weight"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (without("anomaly_token"), "lacks anomaly_token"),
        (without("cross_attn"), "lacks cross_attn"),
        (without("layer_transforms"), "lacks layer_transforms"),
        (with_(None, "ln_post_weight"), "lacks ln_post_weight"),
        (without("cross_attn", QUERY), f"cross_attn {QUERY}"),
        (without("layer_transforms", "layer_3"), "layer_transforms layer_3.mlp.0.weight"),
        (with_(torch.zeros(1), "cross_attn", "more"), "cross_attn more"),
        (with_({"mlp.0.bias": 1}, "layer_transforms", "layer_9"), "layer_9.mlp.0.bias"),
        (with_(torch.zeros(1, WIDTH), "anomaly_pos"), "has anomaly_pos"),
        (with_([1, 2, 3, 5], "features_list"), "features_list [1, 2, 3, 5]"),
        (with_(518, "image_size"), "image_size 518"),
        (with_("mlp_residual", "transform_type"), "mlp_residual"),
        (with_(torch.zeros(3, 3), "cross_attn", QUERY), "[3, 3]"),
        (with_(torch.full((WIDTH,), float("nan")), "normal_token"), "not finite"),
        (with_(3, "normal_token"), "int where normal_token"),
        (with_(torch.zeros(2), "cross_attn"), "Tensor as cross_attn"),
        (with_(torch.tensor(1.0), "cross_attn", "layer_attentions.layer_1.anchor_queries"),
         "anchors of shape []"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_is_not_whole(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], text: str
) -> None:
    content = layout()
    change(content)
    path = written(content, tmp_path / "va.pth")
    with pytest.raises(WeightsError, match=re.escape(text)) as caught:
        load_parts(path, TINY, SIZE)
    assert str(path) in caught.value.cause
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"prompt_learner": {"ctx_pos": torch.zeros(1)}}, "AnomalyCLIP's prompts"),
        ({"trainable_linearlayer": {"fc.0.weight": torch.zeros(1)}}, "APRIL-GAN's adapters"),
        ({"state_dict": {}}, "lacks anomaly_token"),
        ([torch.zeros(1)], "holds a list"),
    ],
)
def test_checkpoints_of_other_methods(tmp_path: Path, content: object, text: str) -> None:
    with pytest.raises(WeightsError, match=text):
        load_parts(written(content, tmp_path / "other.pth"), TINY, SIZE)


def test_the_checkpoint_of_another_backbone(tmp_path: Path) -> None:
    """DINOv2's ViT-L/14 has the width and the blocks of CLIP's."""
    clip = clip_architecture("vit_l_14_336")
    content = published_layout(
        VisualAdParts(4, 8, hidden=8), clip.tapped_blocks, 518, "dinov2_vitl14"
    )
    with pytest.raises(WeightsError, match="dinov2_vitl14"):
        load_parts(written(content, tmp_path / "va.pth"), clip, 518)


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    content = {**layout(), "epoch": Path("/")}
    with pytest.raises(WeightsError, match="plain tensors"):
        load_parts(written(content, tmp_path / "va.pth"), TINY, SIZE)
