"""What engines return, checked where it enters the runtime.

An engine that overflows, a driver that fails or a damaged weight gives NaN, infinities or values
outside their range, and no comparison with NaN is true: unchecked, such a frame would be accepted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import numpy as np

from zeroflaw.pipeline.geometry import FloatArray
from zeroflaw_engines.contract import CLIP_ENCODER, EngineName
from zeroflaw_engines.errors import EngineError
from zeroflaw_engines.sessions.batches import stacked, taken_apart
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, Tensor
from zeroflaw_engines.sessions.session import Outputs, Session, output_shapes

# Rounding of FP16 and of fused sums may carry a probability past 0 or 1 by this much.
_ROUNDING: Final = 1e-3
_ANOTHER_BACKEND: Final = (
    "inspect the frame again; if it happens again, try another --backend or --precision, and check"
    " the bundle with `zeroflaw bundle verify`"
)


def run_engine(
    session: Session,
    inputs: Mapping[str, Tensor | DeviceTensor],
    *,
    keep: Collection[str] = (),
) -> Outputs:
    """Run an engine and check that it returned the tensors of its contract.

    Args:
        inputs: By name, as its contract says.
        keep: Outputs that stay where the engine left them.

    Raises:
        EngineError: The engine failed, or an output is missing, or of another dtype or shape.
    """
    outputs = session.execute(inputs, keep=keep)
    shapes = output_shapes(session.contract, inputs)
    for spec in session.contract.outputs:
        tensor = outputs.get(spec.name)
        if tensor is None:
            found = "nothing"
        else:
            dtype = tensor.dtype.str if isinstance(tensor, np.ndarray) else tensor.dtype
            if np.dtype(dtype) == spec.dtype and tuple(tensor.shape) == shapes[spec.name]:
                continue
            found = f"{np.dtype(dtype)}{list(tensor.shape)}"
        raise EngineError(
            f"{session.contract.name} returned {found} for"
            f" {spec.name}: {spec.dtype}{list(shapes[spec.name])}",
            "check the bundle with `zeroflaw bundle verify`, and the backend with"
            " `zeroflaw doctor`",
        )
    return outputs


def run_encoder(
    session: Session,
    images: Sequence[Mapping[str, Tensor | DeviceTensor]],
    *,
    keep: Collection[str] = (),
) -> list[Outputs]:
    """Run an encoder on images, all in one call, and check what it returned as `run_engine` does.

    Args:
        images: The inputs of each, in the form of one image (`zeroflaw_engines.sessions.batches`).
        keep: Outputs that stay where the engine left them.

    Returns:
        The outputs of each, in the same form.

    Raises:
        EngineError: As `run_engine`.
        EngineContractError: They are more than one call takes.
    """
    outputs = run_engine(session, stacked(session.contract, images), keep=keep)
    return taken_apart(session.contract, outputs, len(images))


def require_alive(engine: EngineName, name: str, values: Tensor) -> None:
    """Refuse an output that is one value everywhere: memory that no kernel wrote.

    Args:
        values: float32 of any shape, of more than one element.

    Raises:
        EngineError: All values are equal.
    """
    first = values.flat[0]
    if (
        values.flat[-1] == first
        and values.flat[values.size // 2] == first
        and (values == first).all()
    ):
        raise EngineError(
            f"{engine} returned {name} that is {first:g} everywhere", _ANOTHER_BACKEND
        )


def require_written(engine: EngineName, name: str, values: Tensor) -> None:
    """Refuse an output that is not finite, or 0 everywhere: memory that no kernel wrote.

    Of SAM's decoder, zeros would pass for masks without a pixel, or for such that count nothing.

    Args:
        values: float32 of any shape.

    Raises:
        EngineError: A value is not finite, or all of them are 0.
    """
    require_finite(engine, name, values)
    if not values.flat[0] and not values.any():
        raise EngineError(f"{engine} returned {name} that is 0 everywhere", _ANOTHER_BACKEND)


def require_finite(engine: EngineName, name: str, values: Tensor) -> None:
    """Refuse an output that has NaN or infinite values.

    Args:
        values: float32 of any shape.

    Raises:
        EngineError: A value is not finite.
    """
    # Without an array of truth values; NaN is the least and the greatest wherever it stands.
    if values.size and np.isfinite(values.max()) and np.isfinite(values.min()):
        return
    finite = np.isfinite(values)
    if not finite.all():
        bad = int(values.size - np.count_nonzero(finite))
        raise EngineError(
            f"{engine} returned {bad} of {values.size} values of {name} that are not finite",
            _ANOTHER_BACKEND,
        )


def clip_outputs(outputs: Mapping[str, Tensor]) -> tuple[FloatArray, float]:
    """Take the anomaly map and the image score of the CLIP encoder.

    Returns:
        The anomaly map, float32 [S, S] in [0, 1], and P(abnormal) of the CLS token, in [0, 1].
        What rounding carried past 0 or 1 is set to it.

    Raises:
        EngineError: A value is not finite or not a probability, the map is one value everywhere,
            or the score is exactly 0.
    """
    anomaly_map: FloatArray = _probabilities("anomaly_map", outputs["anomaly_map"][0])
    require_alive(CLIP_ENCODER, "anomaly_map", anomaly_map)
    score = float(_probabilities("image_score", outputs["image_score"])[0])
    if score == 0:
        raise EngineError(
            f"{CLIP_ENCODER} returned an image_score of exactly 0, which no softmax gives",
            _ANOTHER_BACKEND,
        )
    return anomaly_map, score


def _probabilities(name: str, values: Tensor) -> Tensor:
    low, high = float(values.min()), float(values.max())  # NaN is carried through
    if low >= 0 and high <= 1:
        return values
    require_finite(CLIP_ENCODER, name, values)
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        raise EngineError(
            f"{CLIP_ENCODER} returned {name} from {low:g} to {high:g}, outside [0, 1]",
            _ANOTHER_BACKEND,
        )
    return values.clip(0, 1)
