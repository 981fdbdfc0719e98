"""The forms of SAM's attention, against segment_anything's own."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from segment_anything.modeling.image_encoder import Attention
from torch import nn
from torch.nn import functional

from zeroflaw_engines.errors import ExportError
from zeroflaw_export.models.architectures import sam_architecture
from zeroflaw_export.models.random_weights import randomise_weights
from zeroflaw_export.models.sam_attention import (
    ATTENTION_OF_TARGET,
    AttentionForm,
    RelativePositionAttention,
)
from zeroflaw_export.models.sam_encoder import SamEncoder

FORMS = get_args(AttentionForm)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("in_groups", [False, True])
@pytest.mark.parametrize(
    ("width", "heads", "side"), [(768, 12, 14), (768, 12, 32), (1280, 16, 14), (96, 3, 8)]
)
def test_attention(
    width: int, heads: int, side: int, form: AttentionForm, *, in_groups: bool
) -> None:
    """At the widths of ViT-B, ViT-H and the mini; every relative position counts."""
    theirs = Attention(dim=width, num_heads=heads, use_rel_pos=True, input_size=(side, side))
    randomise_weights(theirs, side)
    theirs.proj = nn.Identity()
    assert min(theirs.rel_pos_h.std(), theirs.rel_pos_w.std()) > 0.1
    x = torch.randn(2, side, side, width, generator=torch.Generator().manual_seed(0))
    q, k, v = theirs.qkv(x).reshape(2, side * side, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    ours = RelativePositionAttention(theirs, side, form, in_groups=in_groups)
    got = ours(q, k, v, ours.key_places(2))
    want = theirs(x).reshape(2, side * side, heads, -1).transpose(1, 2)
    assert got.shape == want.shape
    assert float((got - want).abs().max() / want.abs().max()) < 2e-5


def test_the_real_encoder_has_the_widths_that_are_tested() -> None:
    with torch.device("meta"):
        blocks = sam_architecture("vit_h").build().image_encoder.blocks
    assert {(block.attn.num_heads, block.attn.qkv.in_features) for block in blocks} == {(16, 1280)}
    assert {block.window_size for block in blocks} == {0, 14}


def test_padded_attention_has_one_width_that_is_a_multiple_of_eight(tiny_sam, monkeypatch) -> None:
    seen = []
    attend = functional.scaled_dot_product_attention

    def note(q, k, v, **options):
        seen.append((q.shape[-1], k.shape[-1], v.shape[-1]))
        return attend(q, k, v, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", note)
    frame = torch.zeros((1, 256, 256, 3), dtype=torch.uint8)
    size = torch.tensor([256, 256], dtype=torch.int32)
    SamEncoder(tiny_sam, "extended_padded")(frame, size)
    assert seen == [(48, 48, 48), (48, 48, 48)]  # 16 + 14 + 14 and 16 + 16 + 16
    seen.clear()
    SamEncoder(tiny_sam, "extended")(frame, size)
    assert set(seen) == {(44, 44, 16), (48, 48, 16)}


def test_each_target_has_a_form() -> None:
    assert set(ATTENTION_OF_TARGET) == {"onnxruntime", "openvino", "tensorrt"}
    assert set(ATTENTION_OF_TARGET.values()) <= set(FORMS)
    assert ATTENTION_OF_TARGET["tensorrt"] == "extended_padded"


def test_an_unknown_form_is_refused(tiny_sam) -> None:
    with pytest.raises(ExportError, match="fancy") as caught:
        SamEncoder(tiny_sam, "fancy")  # type: ignore[arg-type]
    assert "additive" in str(caught.value)
