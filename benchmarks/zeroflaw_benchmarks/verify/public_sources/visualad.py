"""VisualAD beside its public source, 7HHHHH/VisualAD at 8479132.

The source's own `test` runs as it stands, on a checkpoint and a data set in its layouts; what it
hands to its metrics is compared, the map and the image score before our fixed mapping.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from zeroflaw_benchmarks.verify.public_sources.comparison import (
    MAP_TOLERANCE,
    SCORE_TOLERANCE,
    Comparison,
)
from zeroflaw_benchmarks.verify.public_sources.source_tree import imported
from zeroflaw_export.models.architectures import ClipArchitecture, clip_architecture
from zeroflaw_export.models.load import WeightsSource
from zeroflaw_export.models.localizers.visualad.checkpoint import published_layout
from zeroflaw_export.models.localizers.visualad.encoder import VisualAdEncoder
from zeroflaw_export.models.localizers.visualad.localizer import VISUALAD
from zeroflaw_export.models.localizers.visualad.parts import random_parts
from zeroflaw_export.models.random_weights import randomise_weights
from zeroflaw_export.parity.checks import IMAGE_KINDS, parity_image

# The source takes the number of heads from the width, 64 to a head, and resizes the positions.
SMALL: Final = ClipArchitecture(
    "small",
    {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 84, "layers": 4, "width": 128, "head_width": 64,
                       "patch_size": 14},
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 64, "heads": 1, "layers": 1},
    },
    98, 84, (1, 2, 3, 4),
)  # fmt: skip
TOLERANCES: Final = {
    f"{kind} {output}": tolerance
    for kind in IMAGE_KINDS
    for output, tolerance in (("map", MAP_TOLERANCE), ("score", SCORE_TOLERANCE))
}
_BACKBONE: Final = "ViT-L/14@336px"
_SEED: Final = 18
_CLASS: Final = "thyroid"
# Of the source's imports, those that draw charts, print tables and count versions.
_STAND_INS: Final[Mapping[str, Mapping[str, Any]]] = {
    "pkg_resources": {
        "packaging": Namespace(version=Namespace(parse=lambda text: tuple(text.split("."))))
    },
    "seaborn": {},
    "tabulate": {"tabulate": None},
}


def compare(source: Path, *, full_size: bool = False) -> Comparison:
    """Run the source and our localizer on the same weights and images.

    Args:
        source: Checked-out tree.
        full_size: ViT-L/14 at 518 px instead of a small tower.

    Raises:
        EvaluationError: The tree is not that of VisualAD.
    """
    architecture = clip_architecture("vit_l_14_336") if full_size else SMALL
    with TemporaryDirectory() as directory:
        folder = Path(directory)
        write_weights(folder, architecture)
        theirs = _source_outputs(source, architecture, folder)
        ours = our_outputs(folder, architecture)
    return Comparison(theirs, ours, TOLERANCES)


def write_weights(folder: Path, architecture: ClipArchitecture = SMALL) -> None:
    """Write seeded weights: `clip.pt`, by OpenAI's names, and `visualad.pth`."""
    clip = architecture.build(architecture.native_image_size, quick_gelu=True)
    randomise_weights(clip, _SEED)
    torch.save(clip.state_dict(), folder / "clip.pt")
    blocks = architecture.tapped_blocks
    parts = random_parts(len(blocks), architecture.token_width, _SEED + 1)
    content = published_layout(parts, blocks, architecture.image_size, _BACKBONE)
    torch.save(content, folder / "visualad.pth")


@torch.inference_mode()
def our_outputs(
    folder: Path, architecture: ClipArchitecture = SMALL
) -> dict[str, NDArray[np.float32]]:
    """Run our localizer on weights of `write_weights`.

    Returns:
        For each image its map float32 [S, S] and score float32 [1], before the fixed mapping.
    """
    size = architecture.image_size
    tower = VISUALAD.load_tower(
        architecture,
        size,
        clip_weights=WeightsSource("clip.pt", folder / "clip.pt"),
        weights=WeightsSource("visualad.pth", folder / "visualad.pth"),
    )
    encoder = VISUALAD.build(tower, VISUALAD.parameters()).encoder
    assert isinstance(encoder, VisualAdEncoder)  # noqa: S101 - what it builds
    outputs = {}
    for kind in IMAGE_KINDS:
        image = torch.from_numpy(parity_image(kind, size, size).copy())[None]
        found, score, _ = encoder.differences(image)
        outputs[f"{kind} map"] = found[0].numpy()
        outputs[f"{kind} score"] = score.numpy()
    return outputs


def _source_outputs(
    source: Path, architecture: ClipArchitecture, folder: Path
) -> dict[str, NDArray[np.float32]]:
    images = folder / "images"
    _write_data_set(images, architecture.image_size)
    handed: dict[str, list[Any]] = {}
    with imported(source, "test.py", _STAND_INS) as script:
        test: Any = script
        classified = test.get_classification_from_segmentation

        def keep(maps: list[Any], names: list[str], results: object) -> tuple[Any, Any]:
            scores, normalised = classified(maps, names, results)
            handed.update(maps=maps, scores=scores)
            return scores, normalised

        test.get_classification_from_segmentation = keep
        test.compute_metrics = lambda *_: None
        # It opens OpenAI's archive, and nothing else.
        build, weights = test.VisualAD_lib.model_load.build_model, folder / "clip.pt"
        test.VisualAD_lib.load = lambda name, **_: (build(name, torch.load(weights)), None)
        test.test(
            Namespace(
                test_data_path=str(images),
                save_path=str(folder / "results"),
                test_dataset=_CLASS,
                checkpoint_path=str(folder / "visualad.pth"),
                sigma=4,
                device="cpu",
                enable_analysis=False,
            )
        )
    outputs = {}
    for kind, found, score in zip(IMAGE_KINDS, handed["maps"], handed["scores"], strict=True):
        outputs[f"{kind} map"] = found[0].numpy()
        outputs[f"{kind} score"] = np.array([score], np.float32)
    return outputs


def _write_data_set(folder: Path, size: int) -> None:
    """Write the images in the source's layout, each with a mask, which nothing here reads."""
    folder.mkdir()
    entries = []
    Image.new("L", (size, size), 255).save(folder / "mask.png")
    for kind in IMAGE_KINDS:
        Image.fromarray(parity_image(kind, size, size)).save(folder / f"{kind}.png")
        entries.append({
            "img_path": f"{kind}.png", "mask_path": "mask.png", "cls_name": _CLASS,
            "specie_name": "defect", "anomaly": 1,
        })  # fmt: skip
    (folder / "meta.json").write_text(json.dumps({"test": {_CLASS: entries}}))
