"""SAA+ beside github.com/caoyunkang/Segment-Any-Anomaly (23acbd9): its own model, unchanged.

All of `Model.forward` runs: box filters, SAM's box prompts, saliency, rescoring and averaging. What
it takes from networks is given: boxes and logits in place of Grounding DINO's, patch tokens in
place of those of its ImageNet network, and a small SAM of seeded weights. The frame has the size
of the map, since SAA averages at the frame's size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

from zeroflaw.pipeline.encoding.frame import Encoding
from zeroflaw.pipeline.encoding.frame_information import FrameInformation
from zeroflaw.pipeline.encoding.proposals import Proposals
from zeroflaw.pipeline.geometry import geometry_of
from zeroflaw.pipeline.refining.box_proposals import masks_of_proposals
from zeroflaw.pipeline.refining.cascade import DecoderPrompts
from zeroflaw_benchmarks.verify.public_sources.comparison import Comparison
from zeroflaw_benchmarks.verify.public_sources.source_tree import imported
from zeroflaw_engines.contract import EngineSizes
from zeroflaw_engines.contract.proposals import BoxProposals
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_export.models.architectures import sam_architecture
from zeroflaw_export.models.load import WeightsSource, load_sam
from zeroflaw_export.models.sam_decoder import SamDecoder

# Divided by exp(3) the scores are some hundredths: as strict as 1e-4 is for maps up to 1.
TOLERANCE: Final = 1e-6

_SIDE: Final = 64  # of frame and map, px
_PATCHES: Final = 8  # a side
_BOXES: Final = 24
_SEED: Final = 5
_MAX_PROMPTS: Final = 9
# SAA divides its areas by that of the object, whose box is this share of the frame.
_OBJECT_AREA: Final = 0.81
_AREA_OF_OBJECT: Final = 0.4
# Of the property prompts: the object's name, and the number of objects.
_OBJECT: Final = "part"
_PROPERTIES: Final = (
    f"the image of {_OBJECT} have 1 dissimilar {_OBJECT}, with a maximum of {{masks}} anomaly."
    f" The anomaly would not exceed {_AREA_OF_OBJECT} object area. "
)
_MASKS: Final = (1, 3, 5)
# exp(3), the largest factor of SAA's rescoring: ours is SAA's divided by it.
_LARGEST: Final = np.float32(np.exp(3))


@dataclass(frozen=True, eq=False)
class _Scene:
    """What both sides are given: an image, boxes, tokens and a SAM that has seen the image."""

    image: NDArray[np.uint8]
    centred: NDArray[np.float32]  # [N, 4], (cx, cy, w, h) as Grounding DINO has them
    logits: NDArray[np.float32]  # [N]
    tokens: NDArray[np.float32]  # [blocks, tokens, width]
    sam: Sam
    predictor: SamPredictor


def compare(source: Path, *, full_size: bool = False) -> Comparison:
    """Run SAA's model beside ours.

    Args:
        source: Checked-out tree; its `SAA` and `eval_SAA.py` are read.
        full_size: Changes nothing: what is compared has no size of its own.
    """
    del full_size
    scene = _scene()
    return Comparison(
        source={name: _of_source(source, scene, masks) for name, masks in _names().items()},
        ours=our_outputs(scene),
        tolerances=dict.fromkeys(_names(), TOLERANCE),
    )


def our_outputs(scene: _Scene | None = None) -> dict[str, NDArray[Any]]:
    """Return our score maps of the seeded scene, float32 [64, 64], by the masks that are kept."""
    scene = scene or _scene()
    return {name: _of_ours(scene, masks) for name, masks in _names().items()}


def _names() -> dict[str, int]:
    return {f"score_map_of_{masks}": masks for masks in _MASKS}


def _scene() -> _Scene:
    rng = np.random.default_rng(_SEED)
    y, x, c = np.ogrid[:_SIDE, :_SIDE, :3]
    waves = 128 + 60 * np.sin(x / 9 + c) * np.cos(y / 7 - c) + rng.normal(0, 9, (_SIDE, _SIDE, 3))
    corners = np.sort(rng.uniform(0, 1, (_BOXES, 2, 2)), axis=1)
    sides = corners[:, 1] - corners[:, 0]
    centred = np.concatenate([corners.mean(axis=1), sides], axis=1).astype(np.float32)
    tokens = rng.normal(size=(3, _PATCHES**2, 16)) + 0.7
    tokens /= np.linalg.norm(tokens, axis=-1, keepdims=True)
    sam = load_sam(sam_architecture("tiny"), WeightsSource("random", None, _SEED))
    predictor = SamPredictor(sam)
    image = waves.clip(0, 255).astype(np.uint8)
    predictor.set_image(image)
    return _Scene(
        image=image,
        centred=centred,
        logits=rng.uniform(-3, 2, _BOXES).astype(np.float32),
        tokens=tokens.astype(np.float32),
        sam=sam,
        predictor=predictor,
    )


def _of_ours(scene: _Scene, masks: int) -> NDArray[np.float32]:
    parameters = MethodParameters(
        refiner="box_proposals",
        proposal_masks=masks,
        proposal_area=_OBJECT_AREA * _AREA_OF_OBJECT,
    )
    sizes = EngineSizes(
        clip_image_size=_SIDE,
        embedding_size=1,
        sam_image_size=scene.sam.image_encoder.img_size,
        sam_feature_size=scene.sam.prompt_encoder.image_embedding_size[0],
        sam_feature_channels=scene.sam.prompt_encoder.embed_dim,
        max_prompts=_MAX_PROMPTS,
    )
    frame = (_SIDE, _SIDE)
    half = scene.centred[:, 2:] / 2
    boxes = np.concatenate([scene.centred[:, :2] - half, scene.centred[:, :2] + half], axis=1)
    found = BoxProposals(boxes.clip(0, 1), _sigmoid(scene.logits))
    proposals = Proposals(found, frame, scene.tokens)
    nothing = np.zeros(frame, np.float32)
    encoding = Encoding(
        geometry_of(frame, sizes, parameters), nothing, 0.5, FrameInformation(1, 0, 1), None,
        nothing, proposals=proposals,
    )  # fmt: skip
    decoder = SamDecoder(scene.sam).eval()

    @torch.inference_mode()
    def decode(prompts: DecoderPrompts) -> list[NDArray[np.float32]]:
        logits, _ = decoder(
            scene.predictor.get_image_embedding(),
            *(torch.from_numpy(np.asarray(one)) for one in (
                prompts.point_coords, prompts.point_labels, prompts.mask_input,
                prompts.has_mask_input,
            )),
        )  # fmt: skip
        return list(logits[:, 0].numpy())

    return masks_of_proposals(decode, encoding, proposals, parameters, sizes=sizes).score_map


def _of_source(source: Path, scene: _Scene, masks: int) -> NDArray[np.float32]:
    """Run SAA's `Model.forward`; its score map is divided by exp(3)."""
    detector = "GroundingDINO.groundingdino"
    phrases = {"clean_state_dict": None, "get_phrases_from_posmap": lambda *_: "flaw"}
    stand_ins: dict[str, dict[str, Any]] = {
        "GroundingDINO": {},
        detector: {},
        f"{detector}.datasets": {},
        f"{detector}.datasets.transforms": {},
        f"{detector}.models": {"build_model": None},
        f"{detector}.util": {},
        f"{detector}.util.slconfig": {"SLConfig": None},
        f"{detector}.util.utils": phrases,
        "SAM": {},
        "SAM.segment_anything": {"build_sam": None, "SamPredictor": None},
        "timm": {},
        "datasets": {"DataLoader": None},
        "utils": {},
        **{f"utils.{name}_utils": {} for name in ("csv", "eval", "training")},
        "utils.metrics": {},
    }
    with imported(source, "eval_SAA.py", stand_ins) as script, torch.inference_mode():
        kind = script.SegmentAnyAnomaly.Model
        model = kind.__new__(kind)
        torch.nn.Module.__init__(model)
        vars(model).update(
            anomaly_region_generator=_Detector(scene),
            anomaly_region_refiner=scene.predictor,
            visual_saliency_extractor=_SaliencyFeatures(scene),
            transform=lambda image, _: (torch.zeros(3, *np.shape(image)[:2]), None),
            box_threshold=MethodParameters().proposal_score,
            text_threshold=MethodParameters().proposal_score,
            out_size=_SIDE,
            device="cpu",
            is_sam_set=True,
        )
        model.set_ensemble_text_prompts([["flaw on part", "placeholder"]])
        model.set_property_text_prompts(_PROPERTIES.format(masks=masks))
        anomaly_map, _ = model(scene.image)
    of_source: NDArray[np.float32] = (anomaly_map / _LARGEST).astype(np.float32)
    return of_source


class _Detector:
    """Gives the boxes of the scene for the words of a defect, and one box for the object."""

    def __init__(self, scene: _Scene) -> None:
        self._scene = scene

    @staticmethod
    def tokenizer(caption: str) -> dict[str, Any]:
        """Tokenise nothing: the phrases of boxes are given."""
        return {"input_ids": caption}

    def __call__(self, image: torch.Tensor, captions: list[str]) -> dict[str, torch.Tensor]:
        del image
        boxes, logits = self._scene.centred, self._scene.logits
        if captions[0].startswith(_OBJECT):
            side = _OBJECT_AREA**0.5
            boxes = np.array([[0.5, 0.5, side, side]], np.float32)
            logits = np.array([2.0], np.float32)
        by_word = torch.full((1, len(logits), 256), -9.0)
        by_word[0, :, 3] = torch.from_numpy(logits)
        return {"pred_logits": by_word, "pred_boxes": torch.from_numpy(boxes)[None].clone()}


class _SaliencyFeatures:
    """Gives the tokens of all blocks as one feature, where SAA+ joins levels of its network."""

    def __init__(self, scene: _Scene) -> None:
        blocks = len(scene.tokens)
        joined = np.concatenate(scene.tokens, axis=1).T / np.sqrt(blocks)
        self._features = torch.from_numpy(joined.reshape(1, -1, _PATCHES, _PATCHES))

    def set_img_size(self, size: int) -> None:
        """Do nothing: the features are given."""

    def __call__(self, image: NDArray[np.uint8]) -> tuple[torch.Tensor, int, int]:
        del image
        return self._features.float(), 1, 1


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return torch.from_numpy(logits).sigmoid().numpy()
