"""What engines return, checked where it enters the runtime.

An engine that overflows, a driver that fails or a damaged weight gives NaN, infinities or values
outside their range, and no comparison with NaN is true: unchecked, such a frame would be accepted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np

from zeroflaw.geometry import FloatArray
from zeroflaw_engines.contract import CLIP_ENCODER, EngineName
from zeroflaw_engines.device_tensor import Tensor
from zeroflaw_engines.errors import EngineError

# Rounding of FP16 and of fused sums may carry a probability past 0 or 1 by this much.
_ROUNDING: Final = 1e-3


def require_finite(engine: EngineName, name: str, values: Tensor) -> None:
    """Refuse an output that has NaN or infinite values.

    Args:
        engine: The engine, for the error.
        name: The output, for the error.
        values: float32 of any shape, C-contiguous or not.

    Raises:
        EngineError: A value is not finite.
    """
    if values.flags.c_contiguous:
        flat = values.reshape(-1)
        # One pass without a temporary array. A sum of squares that overflows though every value
        # is finite is looked at again.
        with np.errstate(all="ignore"):
            if math.isfinite(np.dot(flat, flat)):
                return
    finite = np.isfinite(values)
    if not finite.all():
        bad = int(values.size - np.count_nonzero(finite))
        raise EngineError(
            f"{engine} returned {bad} of {values.size} values of {name} that are not finite",
            "inspect the frame again; if it happens again, try another --backend or --precision,"
            " and check the bundle with `zeroflaw bundle verify`",
        )


def clip_outputs(outputs: Mapping[str, Tensor]) -> tuple[FloatArray, float]:
    """Take the anomaly map and the image score of the CLIP encoder.

    Args:
        outputs: As the session returned them.

    Returns:
        The anomaly map, float32 [S, S] in [0, 1], and P(abnormal) of the CLS token, in [0, 1].
        What rounding carried past 0 or 1 is set to it.

    Raises:
        EngineError: A value is not finite, or not a probability.
    """
    anomaly_map: FloatArray = _probabilities("anomaly_map", outputs["anomaly_map"][0])
    score = _probabilities("image_score", outputs["image_score"])
    return anomaly_map, float(score[0])


def _probabilities(name: str, values: Tensor) -> Tensor:
    low, high = float(values.min()), float(values.max())  # NaN is carried through
    if low >= 0 and high <= 1:
        return values
    require_finite(CLIP_ENCODER, name, values)
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        raise EngineError(
            f"{CLIP_ENCODER} returned {name} from {low:g} to {high:g}, outside [0, 1]",
            "try another --backend or --precision, and check the bundle with"
            " `zeroflaw bundle verify`",
        )
    return values.clip(0, 1)
