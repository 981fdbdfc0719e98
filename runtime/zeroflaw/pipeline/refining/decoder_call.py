"""SAM's decoder on the features of one frame."""

from __future__ import annotations

from itertools import count

import numpy as np

from zeroflaw.pipeline.engine_outputs import (
    require_alive,
    require_finite,
    require_written,
    run_engine,
)
from zeroflaw.pipeline.geometry import FloatArray
from zeroflaw.pipeline.refining.cascade import Decode, DecoderPrompts
from zeroflaw.pipeline.stopwatch import Stopwatch
from zeroflaw_engines.contract import SAM_DECODER, SAM_ENCODER
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, on_host
from zeroflaw_engines.sessions.session import Session


def features_on_host(features: FloatArray | DeviceTensor) -> FloatArray:
    """Return SAM's features, float32 [C, G, G], once they are seen to be some.

    Args:
        features: float32 [1, C, G, G].

    Raises:
        EngineError: They are not finite, or all the same: the encoder is dead.
    """
    values = on_host(features)
    require_finite(SAM_ENCODER, "features", values)
    require_alive(SAM_ENCODER, "features", values)
    one: FloatArray = values[0]
    return one


def decoder_of(
    sam_decoder: Session,
    features: FloatArray | DeviceTensor,
    watch: Stopwatch,
    *,
    numbered: bool = True,
) -> Decode:
    """Return what decodes prompts on the features of one frame.

    Args:
        features: float32 [1, C, G, G], where the encoder left them.
        watch: Times call n as `sam_decoder_n`.
        numbered: Without, all calls together are `sam_decoder`.
    """
    numbers = count(1)

    def decode(prompts: DecoderPrompts) -> tuple[FloatArray | DeviceTensor, FloatArray]:
        with watch.stage(f"sam_decoder_{next(numbers)}" if numbered else "sam_decoder"):
            out = run_engine(
                sam_decoder,
                {
                    "features": features,
                    "point_coords": prompts.point_coords,
                    "point_labels": prompts.point_labels,
                    "mask_input": prompts.mask_input,
                    "has_mask_input": prompts.has_mask_input,
                },
                keep=("low_res_logits",),
            )
        require_written(SAM_DECODER, "predicted_iou", out["predicted_iou"])
        logits = out["low_res_logits"]
        # Of logits on a device only the chosen masks come to the host, and are checked there.
        if isinstance(logits, np.ndarray) or logits.is_on_host:
            require_finite(SAM_DECODER, "low_res_logits", on_host(logits))
        return logits, out["predicted_iou"]

    return decode
