"""An encoding by hand, and a decoder session that answers what the test says."""

from __future__ import annotations

import numpy as np

from support.scripted_decoder import LOW, MAP_SIZE, SAM_SIZE, geometry_of
from zeroflaw.pipeline.encoding.frame import Encoding
from zeroflaw.pipeline.encoding.frame_information import FrameInformation
from zeroflaw.pipeline.refining.refinement import RefinerEngines
from zeroflaw_engines.contract import SAM_DECODER, EngineSizes, engine_contract
from zeroflaw_engines.sessions.device_tensor import HostTensor
from zeroflaw_engines.sessions.session import CheckedSession

SIZES = EngineSizes(
    clip_image_size=MAP_SIZE,
    embedding_size=4,
    sam_image_size=SAM_SIZE,
    sam_feature_size=LOW // 4,
    sam_feature_channels=2,
    max_prompts=9,
)


class DecoderSession(CheckedSession):
    """Answers with the first prompts of its masks [B, 4, L, L] and IoUs [B, 4]; keeps its calls."""

    backend = "scripted"

    def __init__(self, masks, ious, sizes=SIZES):
        super().__init__(engine_contract(SAM_DECODER, sizes), HostTensor)
        self.masks, self.ious = np.float32(masks), np.float32(ious)
        self.calls = []

    def _run(self, inputs, keep, shapes):
        self.calls.append(inputs)
        count = len(inputs["point_labels"])
        return {
            "low_res_logits": self.masks[:count].copy(),
            "predicted_iou": self.ious[:count].copy(),
        }

    def _release(self):
        pass


def encoding_of(anomaly_map, frame=(120, 160), *, features=True, squash_sam=False):
    anomaly_map = np.float32(anomaly_map)
    grid = (1, SIZES.sam_feature_channels, SIZES.sam_feature_size, SIZES.sam_feature_size)
    values = np.random.default_rng(0).normal(size=grid).astype(np.float32)
    return Encoding(
        geometry_of(frame, squash_sam=squash_sam),
        anomaly_map,
        0.3,
        FrameInformation(0.5, 0.0, 0.9),
        values if features else None,
        anomaly_map,
    )


def engines_of(decoder, sizes=SIZES):
    return RefinerEngines(decoder, sizes)
