"""AnomalyCLIP beside github.com/zqhang/AnomalyCLIP (45ed4dd): its test.py, unchanged.

What the script reads of a disk and what it writes is replaced while it runs: the data set by one
image, the weights by seeded ones, the metrics by what keeps their arguments.
"""

from __future__ import annotations

import logging
import tempfile
from argparse import Namespace
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import packaging.version
import torch
from numpy.typing import NDArray
from open_clip import tokenize
from PIL import Image
from torch import nn

from zeroflaw_benchmarks.verify.public_sources.comparison import (
    MAP_TOLERANCE,
    SCORE_TOLERANCE,
    Comparison,
    Outputs,
)
from zeroflaw_benchmarks.verify.public_sources.source_tree import imported
from zeroflaw_export.models.architectures import ClipArchitecture, clip_architecture
from zeroflaw_export.models.load import WeightsSource
from zeroflaw_export.models.localizers.anomalyclip import (
    ANOMALYCLIP,
    AnomalyClipParameters,
)
from zeroflaw_export.models.localizers.anomalyclip_prompts import STATES, PromptShape
from zeroflaw_export.models.random_weights import randomise_weights
from zeroflaw_export.parity.checks import parity_image

_SEED: Final = 24
# As the released scripts have it, and by the default of the script: features_list of each map.
_FEATURES: Final = {"anomaly_map": (24,), "anomaly_map_of_four_blocks": (6, 12, 18, 24)}
TOLERANCES: Final = {**dict.fromkeys(_FEATURES, MAP_TOLERANCE), "image_score": SCORE_TOLERANCE}
# The source counts its heads as width / 64, and takes values in the last 19 blocks: as narrow as it
# can be, with as many blocks as the published tower.
_NARROW: Final = ClipArchitecture(
    "narrow",
    {
        "embed_dim": 48,
        "vision_cfg": {"image_size": 84, "layers": 24, "width": 128, "patch_size": 14},
        "text_cfg": {
            "context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 12,
        },
    },
    98,
    84,
    (6, 12, 18, 24),
)  # fmt: skip


def compare(source: Path, *, full_size: bool = False) -> Comparison:
    """Run the public code and ours on the same seeded weights and image.

    Args:
        source: Checked-out tree of the public code.
        full_size: ViT-L/14@336 at 518 px instead of a narrow tower at 98 px.

    Raises:
        EvaluationError: The tree is not that of the source.
    """
    architecture = clip_architecture("vit_l_14_336") if full_size else _NARROW
    with tempfile.TemporaryDirectory() as name:
        write_weights(Path(name), architecture)
        theirs = _source_outputs(source, Path(name), architecture.image_size)
        return Comparison(theirs, our_outputs(Path(name), architecture), TOLERANCES)


def write_weights(folder: Path, architecture: ClipArchitecture = _NARROW) -> None:
    """Write seeded weights in the published layouts: `clip.pt` and `prompts.pth`."""
    clip = architecture.build(architecture.native_image_size, quick_gelu=True)
    randomise_weights(clip, _SEED)
    torch.save(clip.state_dict(), folder / "clip.pt")
    prompts = AnomalyClipParameters()
    width = architecture.config["text_cfg"]["width"]
    shape = PromptShape(
        context=prompts.n_ctx, depth=prompts.depth, deep_tokens=prompts.t_n_ctx, width=width
    )
    generator = torch.Generator().manual_seed(_SEED)
    state = {n: 0.2 * torch.randn(s, generator=generator) for n, s in shape.tensors.items()}
    # What else the class has: layers that it never runs, and what follows from the words.
    for block in range(prompts.depth - 1):
        state[f"compound_prompt_projections.{block}.weight"] = torch.zeros(896, width)
        state[f"compound_prompt_projections.{block}.bias"] = torch.zeros(896)
    for side, words in zip(("pos", "neg"), STATES, strict=True):
        ids = tokenize(" ".join(["X"] * prompts.n_ctx + [words]))
        embedded = clip.token_embedding(ids).detach()[None]
        state[f"tokenized_prompts_{side}"] = ids.int()[None]
        state[f"token_prefix_{side}"] = embedded[:, :, :1]
        state[f"token_suffix_{side}"] = embedded[:, :, 1 + prompts.n_ctx :]
    torch.save({"prompt_learner": state}, folder / "prompts.pth")


@torch.inference_mode()
def our_outputs(folder: Path, architecture: ClipArchitecture = _NARROW) -> Outputs:
    """Run our encoder on the weights of `write_weights`.

    Returns:
        float32 [1, S, S] of the last block's map and of that of all tapped blocks, and the image
        score, float32 [1], by the names of `TOLERANCES`.
    """
    size = architecture.image_size
    tower = ANOMALYCLIP.load_tower(
        architecture,
        size,
        clip_weights=WeightsSource("clip.pt", folder / "clip.pt"),
        weights=WeightsSource("prompts.pth", folder / "prompts.pth"),
    )
    image = torch.from_numpy(_image(size).copy())[None]
    outputs = {}
    for name, features_list in _FEATURES.items():
        parameters = AnomalyClipParameters(features_list=features_list)
        anomaly_map, score, _ = ANOMALYCLIP.build(tower, parameters).encoder(image)
        outputs[name] = anomaly_map.numpy()
    return outputs | {"image_score": score.numpy()}


def _image(size: int) -> NDArray[np.uint8]:
    return parity_image("real", size, size)


def _source_outputs(source: Path, folder: Path, size: int) -> Outputs:
    stand_ins: dict[str, dict[str, Any]] = {
        "thop": {"profile": None},
        "tabulate": {"tabulate": lambda *_, **__: ""},
        "pkg_resources": {"packaging": packaging},
        "tqdm": {"tqdm": iter},
    }
    kept: dict[str, Any] = {}

    def keep(results: dict[str, Any], product: str, _metric: str) -> float:
        kept.update(results[product])
        return 0.0

    outputs = {}
    with imported(source, "test.py", stand_ins) as script:
        script.AnomalyCLIP_lib.load = _loader(script, folder / "clip.pt")
        vars(script).update(
            Dataset=_one_image(size),
            get_logger=lambda _: logging.getLogger("anomalyclip"),
            image_level_metrics=keep,
            pixel_level_metrics=keep,
        )
        for name, features_list in _FEATURES.items():
            with redirect_stdout(StringIO()):
                script.test(
                    Namespace(
                        image_size=size, features_list=features_list, feature_map_layer=[0],
                        data_path="", save_path=str(folder), dataset="mvtec", n_ctx=12, depth=9,
                        t_n_ctx=4, checkpoint_path=str(folder / "prompts.pth"), sigma=4,
                        metrics="image-pixel-level",
                    )
                )  # fmt: skip
            # A sum over the blocks, where ours is their mean.
            outputs[name] = np.asarray(kept["anomaly_maps"], np.float32) / len(features_list)
    score = np.array([float(score) for score in kept["pr_sp"]], np.float32)
    return outputs | {"image_score": score}


def _loader(script: ModuleType, weights: Path) -> Callable[..., tuple[nn.Module, None]]:
    """Return the source's own building of a model, of the seeded weights."""

    def load(_name: str, device: str, design_details: dict[str, int]) -> tuple[nn.Module, None]:
        state = torch.load(weights, weights_only=True)
        model = script.AnomalyCLIP_lib.model_load.build_model("", state, design_details)
        return model.to(device), None

    return load


def _one_image(size: int) -> type:
    class OneImage(torch.utils.data.Dataset[dict[str, Any]]):
        obj_list: Final = ("object",)

        def __init__(self, transform: Callable[[Image.Image], torch.Tensor], **_: object) -> None:
            self._transform = transform

        def __len__(self) -> int:
            return 1

        def __getitem__(self, _: int) -> dict[str, Any]:
            return {
                "img": self._transform(Image.fromarray(_image(size))),
                "img_mask": torch.zeros(1, size, size),
                "cls_name": "object",
                "cls_id": 0,
                "anomaly": 0,
            }

    return OneImage
