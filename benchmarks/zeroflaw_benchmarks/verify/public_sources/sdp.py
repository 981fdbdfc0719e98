"""SDP and SDP+ beside github.com/ByChelsea/CLIP-AD (f004973): test.py and test_ft.py, unchanged.

What the scripts read of a disk and what they write is replaced while they run. Both scripts take
the mean of the sentences here: a cluster's mean they round to FP16, which no CPU multiplies.
"""

from __future__ import annotations

import logging
import tempfile
from argparse import Namespace
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from importlib.resources import files
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec
import numpy as np
import packaging.version
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP
from PIL import Image
from torch import nn

from zeroflaw_benchmarks.verify.public_sources.comparison import (
    MAP_TOLERANCE,
    SCORE_TOLERANCE,
    Comparison,
    Outputs,
)
from zeroflaw_benchmarks.verify.public_sources.source_tree import imported
from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings
from zeroflaw_engines.bundle.prompt_ensembles import (
    load_tokenizer,
    product_embeddings,
    read_prompt_ensembles,
)
from zeroflaw_export.models.adapters import LinearAdapters
from zeroflaw_export.models.architectures import ClipArchitecture, clip_architecture
from zeroflaw_export.models.load import WeightsSource
from zeroflaw_export.models.localizers.localizer import Localizer
from zeroflaw_export.models.localizers.sdp import SDP, SDP_PLUS, SdpParameters, SdpPlusParameters
from zeroflaw_export.models.random_weights import randomise_weights
from zeroflaw_export.models.text_encoder import TextEncoder
from zeroflaw_export.models.tokenizer import write_tokenizer
from zeroflaw_export.parity.checks import parity_image

_SEED: Final = 12
_PRODUCT: Final = "metal nut"
_METHODS: Final[dict[str, Localizer]] = {"sdp": SDP, "sdp_plus": SDP_PLUS}
_SCRIPTS: Final = {"sdp": "test.py", "sdp_plus": "test_ft.py"}
TOLERANCES: Final = {
    **{f"{name}_anomaly_map": MAP_TOLERANCE for name in _METHODS},
    "image_score": SCORE_TOLERANCE,
    "text_embeddings": SCORE_TOLERANCE,
}
# Two blocks in each of the four stages.
_NARROW: Final = ClipArchitecture(
    "narrow",
    {
        "embed_dim": 48,
        "vision_cfg": {"image_size": 84, "layers": 8, "width": 128, "patch_size": 14},
        "text_cfg": {
            "context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2,
        },
    },
    98,
    84,
    (2, 4, 6, 8),
    native_quick_gelu=False,
)  # fmt: skip


def compare(source: Path, *, full_size: bool = False) -> Comparison:
    """Run the public code and ours on the same seeded weights, sentences and image.

    Args:
        source: Checked-out tree of the public code.
        full_size: ViT-B/16+ at 240 px, as published, instead of a narrow tower at 98 px.

    Raises:
        EvaluationError: The tree is not that of the source.
    """
    architecture = clip_architecture("vit_b_16_plus_240") if full_size else _NARROW
    with tempfile.TemporaryDirectory() as name:
        write_weights(Path(name), architecture)
        theirs = _source_outputs(source, Path(name), architecture)
        return Comparison(theirs, our_outputs(Path(name), architecture), TOLERANCES)


def write_weights(folder: Path, architecture: ClipArchitecture = _NARROW) -> None:
    """Write seeded weights in the published layouts: `clip.pt` and `linear.pth`."""
    clip = architecture.build(architecture.image_size)
    randomise_weights(clip, _SEED)
    torch.save(clip.state_dict(), folder / "clip.pt")
    layers = LinearAdapters(
        len(architecture.tapped_blocks), architecture.token_width, architecture.embedding_size
    )
    randomise_weights(layers, _SEED)
    torch.save({"linear_layers": layers.state_dict()}, folder / "linear.pth")


@torch.inference_mode()
def our_outputs(folder: Path, architecture: ClipArchitecture = _NARROW) -> Outputs:
    """Run our encoders on the weights of `write_weights`.

    Returns:
        float32 [1, S, S] of both methods, the image score that both have, float32 [1], and the
        text embeddings, float32 [2, E], by the names of `TOLERANCES`.
    """
    size = architecture.image_size
    tower = SDP_PLUS.load_tower(
        architecture,
        size,
        clip_weights=WeightsSource("clip.pt", folder / "clip.pt"),
        weights=WeightsSource("linear.pth", folder / "linear.pth"),
    )
    text = _our_text(tower.clip, folder)
    image = torch.from_numpy(_image(size).copy())[None]
    outputs = {"text_embeddings": text}
    for name, method in _METHODS.items():
        encoder = method.build(tower, method.parameters_from({})).encoder
        anomaly_map, score, _ = encoder(image, torch.from_numpy(text))
        outputs |= {f"{name}_anomaly_map": anomaly_map.numpy(), "image_score": score.numpy()}
    return outputs


def _our_text(clip: CLIP, folder: Path) -> TextEmbeddings:
    write_tokenizer(folder / "tokenizer.json", clip.vocab_size)
    ensembles = read_prompt_ensembles(Path(str(files("zeroflaw_export") / SDP.ensembles)))
    encoder = TextEncoder(clip).eval()
    return product_embeddings(
        _PRODUCT,
        replace(ensembles, representative="mean"),
        load_tokenizer(folder / "tokenizer.json", 77),
        lambda tokens: encoder(torch.from_numpy(tokens)).numpy(),
    )


def _image(size: int) -> NDArray[np.uint8]:
    return parity_image("real", size, size)


def _source_outputs(source: Path, folder: Path, architecture: ClipArchitecture) -> Outputs:
    size, stages = architecture.image_size, list(architecture.tapped_blocks)
    config = folder / "config.json"
    config.write_bytes(msgspec.json.encode(architecture.config))
    kept: dict[str, Any] = {}
    outputs: dict[str, NDArray[np.float32]] = {}
    for name, path in _SCRIPTS.items():
        with imported(source, path, _stand_ins()) as script, redirect_stdout(StringIO()):
            encode_text = script.encode_text_with_prompt_ensemble

            def keep_text(*arguments: object, encode: Any = encode_text) -> Any:  # noqa: ANN401
                """Encode the sentences for the first script; the second has the same."""
                if "text" not in kept:
                    kept["text"] = encode(*arguments)
                return kept["text"]

            script.open_clip.create_model_and_transforms = _creator(script, folder, architecture)
            vars(script).update(
                get_dataset=_one_image,
                init_logger=lambda _: logging.getLogger("sdp"),
                encode_text_with_prompt_ensemble=keep_text,
                calculate_metrics=lambda results, *_: kept.update(results),
            )
            script.open_clip.get_tokenizer = lambda _, script=script: script.open_clip.tokenize
            script.test(
                Namespace(
                    image_size=size, features_list=stages, data_path="", save_path=str(folder),
                    dataset="mvtec", rep_vec="mean", model="", pretrained="", batch_size=1,
                    obj_name=None, smoothing=8, visualization=False, config_path=str(config),
                    checkpoint=str(folder / "linear.pth"),
                )
            )  # fmt: skip
        # Sums over the stages without bounds; ours are in [0, 1] by the fixed mappings.
        mean = np.stack(kept["pr_px"]).astype(np.float64) / len(stages)
        weight = SdpPlusParameters().similarity_weight
        fixed = (mean + weight) / (1 + 2 * weight)
        if name == "sdp":
            fixed = 1 / (1 + np.exp(-2 * SdpParameters().map_scale * mean))
        outputs[f"{name}_anomaly_map"] = fixed.astype(np.float32)
    return outputs | {
        "image_score": np.array([float(score) for score in kept["pr_sp0"]], np.float32),
        "text_embeddings": kept["text"][_PRODUCT].T.float().numpy(),
    }


def _stand_ins() -> dict[str, dict[str, Any]]:
    return {
        "tabulate": {"tabulate": lambda *_, **__: ""},
        "pkg_resources": {"packaging": packaging},
        "tqdm": {"tqdm": lambda items, **_: items},
    }


def _creator(
    script: ModuleType, folder: Path, architecture: ClipArchitecture
) -> Callable[..., tuple[nn.Module, None, Callable[[Image.Image], torch.Tensor]]]:
    """Return the source's own model of the seeded weights, and its own preprocessing."""

    def create(
        *_: object, **__: object
    ) -> tuple[nn.Module, None, Callable[[Image.Image], torch.Tensor]]:
        config: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(architecture.config))
        config["vision_cfg"]["image_size"] = architecture.image_size
        model = script.open_clip.model.CLIP(**config)
        model.load_state_dict(torch.load(folder / "clip.pt", weights_only=True))
        transform = script.open_clip.transform.image_transform(
            architecture.image_size, is_train=False
        )
        return model.eval(), None, transform

    return create


def _one_image(
    _name: str,
    _path: str,
    preprocess: Callable[[Image.Image], torch.Tensor],
    size: int,
    _batch: int,
    **_: object,
) -> tuple[list[dict[str, Any]], list[str]]:
    image = preprocess(Image.fromarray(_image(size)))[None]
    item = {
        "img": image, "img_mask": torch.zeros(1, 1, size, size), "cls_name": [_PRODUCT],
        "anomaly": torch.zeros(1), "img_path": [""],
    }  # fmt: skip
    return [item], [_PRODUCT]
