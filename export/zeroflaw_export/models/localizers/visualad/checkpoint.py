"""Reading the checkpoints that VisualAD publishes, in the layout of its train.py.

`utils/training_utils.py` (save_checkpoint) writes `anomaly_token` and `normal_token` [C],
`ln_post_weight` and `ln_post_bias` [C], `layer_transforms` (SAF of each tapped block, as
`layer_6: {mlp.0.weight, ...}`), `cross_attn` (SCA, as `layer_attentions.layer_6.q_proj.weight`),
`cross_attn_config`, `features_list`, `image_size`, `backbone`, `transform_type` and `epoch`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from zeroflaw_engines.errors import WeightsError
from zeroflaw_export.models.architectures import ClipArchitecture
from zeroflaw_export.models.localizers.visualad.parts import VisualAdParts
from zeroflaw_export.weights.checkpoints import StateDict, read_plain

# Each name of the parts, and the checkpoint's.
_ATTENTION: Final = {
    "anchors": "anchor_queries",
    "positions": "pos_encoding",
    "query.weight": "q_proj.weight",
    "key.weight": "k_proj.weight",
    "value.weight": "v_proj.weight",
    "query_norm.weight": "q_norm.weight",
    "query_norm.bias": "q_norm.bias",
    "key_norm.weight": "k_norm.weight",
    "key_norm.bias": "k_norm.bias",
    "gate.weight": "gate.0.weight",
    "gate.bias": "gate.0.bias",
    "output.weight": "out_proj.weight",
    "output.bias": "out_proj.bias",
    "residual_scale": "res_scale",
}
_ALIGNMENT: Final = {
    "inner.weight": "mlp.0.weight",
    "inner.bias": "mlp.0.bias",
    "outer.weight": "mlp.3.weight",
    "outer.bias": "mlp.3.bias",
}
_TOP: Final = {
    "anomaly_token": "anomaly_token",
    "normal_token": "normal_token",
    "ln_post.weight": "ln_post_weight",
    "ln_post.bias": "ln_post_bias",
}
_ENTRIES: Final = (*_TOP.values(), "layer_transforms", "cross_attn")
_DESCRIPTION: Final = ("features_list", "image_size", "backbone")
_OTHERS: Final = ("epoch", "transform_type", "cross_attn_config")
_BACKBONES: Final = {"vit_l_14_336": "ViT-L/14@336px"}
# What other methods' checkpoints have at the top.
_METHODS: Final = {
    "prompt_learner": "AnomalyCLIP's prompts",
    "trainable_linearlayer": "APRIL-GAN's adapters",
}


def load_parts(path: Path, architecture: ClipArchitecture, image_size: int) -> VisualAdParts:
    """Load a checkpoint of VisualAD, in eval mode.

    Args:
        image_size: Side of the square input, px; SCA's position tables are of that size's grid.

    Raises:
        WeightsError: The file is not such a checkpoint, or one of another tower, other blocks or
            another size.
    """
    content = read_plain(path)
    _check_entries(content, path)
    _check_described(content, path, architecture, image_size)
    found = _named_tensors(content, path, architecture.tapped_blocks)
    anchors, hidden = found["attentions.0.anchors"], found["alignments.0.inner.weight"]
    table = found["attentions.0.positions"]
    if min(anchors.ndim, hidden.ndim) < 1 or table.ndim < 2:
        raise WeightsError(
            f"{path} has anchors of shape {list(anchors.shape)}, a position table of shape"
            f" {list(table.shape)} and a first layer of shape {list(hidden.shape)}",
            "give a whole checkpoint of VisualAD",
        )
    parts = VisualAdParts(
        len(architecture.tapped_blocks),
        architecture.token_width,
        hidden=hidden.shape[0],
        anchors=anchors.shape[0],
        positions=table.shape[1],
    )
    for name, want in parts.state_dict().items():
        if found[name].shape != want.shape:
            raise WeightsError(
                f"{path} has {name} of shape {list(found[name].shape)}, not {list(want.shape)}",
                f"give a checkpoint that was trained on {architecture.name}",
            )
        if not torch.isfinite(found[name]).all():
            raise WeightsError(
                f"{path} has values in {name} that are not finite", "give a whole checkpoint"
            )
    parts.load_state_dict({name: value.float() for name, value in found.items()})
    return parts.eval()


def published_layout(
    parts: VisualAdParts, tapped_blocks: tuple[int, ...], image_size: int, backbone: str
) -> dict[str, Any]:
    """Return what VisualAD's train.py would store of parts, for `torch.save`.

    Args:
        tapped_blocks: 1-based.
        image_size: Side of the square input, px.
        backbone: As the source names it.
    """
    state = parts.state_dict()
    attentions, alignments = {}, {}
    for index, block in enumerate(tapped_blocks):
        for ours, name in _ATTENTION.items():
            attentions[f"layer_attentions.layer_{block}.{name}"] = state[
                f"attentions.{index}.{ours}"
            ]
        alignments[f"layer_{block}"] = {
            name: state[f"alignments.{index}.{ours}"] for ours, name in _ALIGNMENT.items()
        }
    anchors = state["attentions.0.anchors"].shape[0]
    return {
        **{key: state[name] for name, key in _TOP.items()},
        "features_list": list(tapped_blocks),
        "image_size": image_size,
        "epoch": 1,
        "backbone": backbone,
        "layer_transforms": alignments,
        "transform_type": "mlp",
        "cross_attn": attentions,
        "cross_attn_config": {"num_anchors": anchors, "dropout": 0.1, "res_scale_init": 0.01},
    }


def _check_entries(content: object, path: Path) -> None:
    if not isinstance(content, dict):
        raise WeightsError(
            f"{path} is not a checkpoint of VisualAD: it holds a {type(content).__name__}",
            "give one that VisualAD's train.py wrote, or an official name as visualad_visa",
        )
    missing = [name for name in (*_ENTRIES, *_DESCRIPTION) if content.get(name) is None]
    unknown = sorted(map(str, content.keys() - {*_ENTRIES, *_DESCRIPTION, *_OTHERS}))
    if missing or unknown:
        others = [what for name, what in _METHODS.items() if name in content]
        is_ = f": it holds {others[0]}, and" if others else ": it"
        has = f", and has {', '.join(unknown[:5])}" if unknown else ""
        raise WeightsError(
            f"{path} is not a checkpoint of VisualAD{is_}"
            f" lacks {', '.join(missing) or 'nothing'}{has}",
            "give one that VisualAD's train.py wrote, or an official name as visualad_visa",
        )


def _check_described(
    content: Mapping[str, Any], path: Path, architecture: ClipArchitecture, image_size: int
) -> None:
    """Refuse a checkpoint by what it says of itself; a DINOv2 has the shapes of CLIP's tower."""
    wanted = {
        "backbone": _BACKBONES.get(architecture.name, content["backbone"]),
        "features_list": list(architecture.tapped_blocks),
        "image_size": image_size,
    }
    if content.get("transform_type", "mlp") != "mlp":
        raise WeightsError(
            f"{path} has feature transforms of the kind {content['transform_type']!r}",
            "give a checkpoint of the published kind, mlp",
        )
    for name, want in wanted.items():
        got = content[name]
        got = list(got) if isinstance(got, tuple) else got
        if got != want:
            raise WeightsError(
                f"{path} was trained with {name} {got}, and the export has {want}",
                "give a checkpoint that was trained so, or export with --clip-image-size"
                if name == "image_size"
                else f"give a checkpoint that was trained on {architecture.name}",
            )


def _named_tensors(content: Mapping[str, Any], path: Path, blocks: tuple[int, ...]) -> StateDict:
    """Return the tensors of a checkpoint by the names of `VisualAdParts`."""
    found: dict[str, Any] = {}
    missing: list[str] = []
    for name, key in _TOP.items():
        found[name] = content[key]
    expected: dict[str, set[str]] = {"cross_attn": set(), "layer_transforms": set()}
    alignments = {
        f"{block}.{name}": value
        for block, tensors in _mapping(content, "layer_transforms", path).items()
        for name, value in _mapping({str(block): tensors}, str(block), path).items()
    }
    attentions = _mapping(content, "cross_attn", path)
    for index, block in enumerate(blocks):
        for ours, name in _ATTENTION.items():
            key = f"layer_attentions.layer_{block}.{name}"
            expected["cross_attn"].add(key)
            found[f"attentions.{index}.{ours}"] = attentions.get(key)
            missing += [f"cross_attn {key}"] * (key not in attentions)
        for ours, name in _ALIGNMENT.items():
            key = f"layer_{block}.{name}"
            expected["layer_transforms"].add(key)
            found[f"alignments.{index}.{ours}"] = alignments.get(key)
            missing += [f"layer_transforms {key}"] * (key not in alignments)
    unknown = [f"cross_attn {key}" for key in sorted(attentions.keys() - expected["cross_attn"])]
    unknown += [
        f"layer_transforms {key}"
        for key in sorted(alignments.keys() - expected["layer_transforms"])
    ]
    if missing or unknown:
        raise WeightsError(
            f"{path} lacks {len(missing)} tensors of VisualAD ({', '.join(missing[:3])}) and has"
            f" {len(unknown)} others ({', '.join(unknown[:3])})",
            f"give a checkpoint of the blocks {', '.join(map(str, blocks))}",
        )
    for name, value in found.items():
        if not isinstance(value, torch.Tensor):
            raise WeightsError(
                f"{path} has a {type(value).__name__} where {name} should be", "give whole tensors"
            )
    return found


def _mapping(content: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    value = content[name]
    if not isinstance(value, Mapping):
        raise WeightsError(
            f"{path} has a {type(value).__name__} as {name}, not tensors by name",
            "give a whole checkpoint of VisualAD",
        )
    return value
