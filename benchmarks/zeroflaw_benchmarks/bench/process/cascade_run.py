"""The cascade's three decoder calls with one decoder, in a process of its own.

    python -m zeroflaw_benchmarks.bench.process.cascade_run '{"bundle": "mini", "graph": "", ...}'

Every decoder gets the same features, points and frame, and must give the same: the mask of the
third call at the frame's size, and the box that the second call's mask at that size gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from zeroflaw.pipeline.geometry import (
    BoolArray,
    FloatArray,
    FrameGeometry,
    frame_to_sam,
    geometry_of,
)
from zeroflaw.pipeline.masks.from_logits import Workspace, inclusive_box, mask_at_frame
from zeroflaw.pipeline.refining.cascade import decoder_prompts
from zeroflaw.pipeline.refining.prompt_points import PointPrompts
from zeroflaw_benchmarks.bench.process.child_process import RunTimes, answer, time_runs
from zeroflaw_benchmarks.bench.process.run_on import RunOn, plain_onnxruntime
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.contract import SAM_DECODER
from zeroflaw_engines.parameters import MethodParameters

_SEED: Final = 0
_POINTS: Final = 6  # three of each sign, the paper's own number
_WHOLE: Final = "masks"


@dataclass(frozen=True)
class CascadeTask:
    """What is to be run.

    Attributes:
        bundle: As `open_bundle` takes it.
        run_on: What runs our decoder.
        graph: ONNX file of another decoder, run by ONNX Runtime; empty for ours.
        frame: Height and width of the frame, px.
        runs: Cascades that are timed, after two that are not.
        logits: Where the low-res logits of the last stage are written, `.npy`.
    """

    bundle: str
    run_on: RunOn
    graph: str
    frame: tuple[int, int]
    runs: int
    logits: str


# Points, labels, box and logits of the last call in; low-res logits [4, L, L], predicted IoUs
# [4] and a function to the mask of a token at the frame's size out.
_Call = tuple[FloatArray, FloatArray, Callable[[int], BoolArray]]
_Decode = Callable[["_Prompts"], _Call]


@dataclass(frozen=True)
class _Prompts:
    points: PointPrompts
    box: tuple[int, int, int, int] | None
    logits: FloatArray | None
    device: Any


def run_cascades(task: CascadeTask) -> RunTimes:
    """Run the three calls again and again."""
    bundle = open_bundle(task.bundle, verify_digests=False)
    geometry = geometry_of(task.frame, bundle.manifest.sizes, MethodParameters())
    rng = np.random.default_rng(_SEED)
    sizes = bundle.manifest.sizes
    grid = sizes.sam_feature_size
    features = rng.standard_normal((1, sizes.sam_feature_channels, grid, grid), np.float32)
    points = PointPrompts(
        coords=(rng.random((_POINTS, 2)) * task.frame[::-1]).astype(np.float32),
        labels=np.repeat(np.array([1, 0], np.int32), _POINTS // 2),
        extreme_region=np.zeros((1, 1), np.bool_),
        from_region=True,
    )
    make = _theirs if task.graph else _ours
    decode = make(task, bundle, geometry, features)
    times = time_runs(lambda: three_calls(decode, points, task.frame), task.runs, untimed=2)
    np.save(task.logits, three_calls(decode, points, task.frame))
    return times


def three_calls(decode: _Decode, points: PointPrompts, frame: tuple[int, int]) -> FloatArray:
    """Run the decoder with points, with points and logits, and with points, box and logits.

    Returns:
        float32 [L, L], the chosen low-res logits of the third call.
    """
    box, logits, device = None, None, None
    for stage in (1, 2, 3):
        low_res, iou, mask_of = decode(_Prompts(points, box, logits, device))
        token = 1 + int(iou[1:].argmax())
        logits = low_res[token]
        if stage == 2:
            box = inclusive_box(mask_of(token)) or (0, 0, frame[1] - 1, frame[0] - 1)
        elif stage == 3:
            mask_of(token)
    chosen: FloatArray = np.asarray(logits)
    return chosen


def _ours(
    task: CascadeTask, bundle: Bundle, geometry: FrameGeometry, features: FloatArray
) -> _Decode:
    session = task.run_on.session(bundle, SAM_DECODER)
    sizes, mask_of = bundle.manifest.sizes, _MaskOf(geometry)

    def decode(prompts: _Prompts) -> _Call:
        laid_out = decoder_prompts(
            prompts.points,
            () if prompts.box is None else (prompts.box,),
            prompts.logits,
            geometry,
            max_prompts=sizes.max_prompts,
            low_res_size=sizes.low_res_size,
        )
        out = session.execute({"features": features, **vars(laid_out)})
        low_res: FloatArray = out["low_res_logits"][0]
        return low_res, out["predicted_iou"][0], lambda token: mask_of(low_res[token])

    return decode


def _theirs(
    task: CascadeTask, bundle: Bundle, geometry: FrameGeometry, features: FloatArray
) -> _Decode:
    """As segment_anything's notebook runs its export: the points there are, and one more."""
    session = plain_onnxruntime(task.graph, task.run_on.threads)
    takes = {value.name for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]
    low, mask_of = bundle.manifest.sizes.low_res_size, _MaskOf(geometry)

    def decode(prompts: _Prompts) -> _Call:
        coords = [prompts.points.coords]
        labels = [prompts.points.labels.astype(np.float32)]
        if prompts.box is None:
            coords.append(np.zeros((1, 2), np.float32))
            labels.append(np.array([-1], np.float32))
        else:
            coords.append(np.array(prompts.box, np.float32).reshape(2, 2))
            labels.append(np.array([2, 3], np.float32))
        mapped = frame_to_sam(np.concatenate(coords), geometry)
        if prompts.box is None:
            mapped[-1] = 0
        logits = prompts.logits
        inputs: dict[str, NDArray[Any]] = {
            "image_embeddings": features,
            "point_coords": mapped[None],
            "point_labels": np.concatenate(labels)[None],
            "mask_input": np.zeros((1, 1, low, low), np.float32)
            if logits is None
            else logits[None, None],
            "has_mask_input": np.array([logits is not None], np.float32),
            "orig_im_size": np.array(geometry.frame, np.float32),
        }
        given = {name: value for name, value in inputs.items() if name in takes}
        out = dict(zip(names, session.run(names, given), strict=True))
        low_res: FloatArray = out["low_res_masks"][0]
        if _WHOLE in out:
            masks = out[_WHOLE][0]
            return low_res, out["iou_predictions"][0], lambda token: masks[token] > 0
        return low_res, out["iou_predictions"][0], lambda token: mask_of(low_res[token])

    return decode


class _MaskOf:
    """Low-res logits to the mask at the frame's size, as our runtime does it."""

    def __init__(self, geometry: FrameGeometry) -> None:
        self._geometry = geometry
        self._workspace = Workspace()

    def __call__(self, low_res: FloatArray) -> BoolArray:
        return mask_at_frame(low_res, self._geometry, self._workspace).whole()


if __name__ == "__main__":
    answer(CascadeTask, run_cascades)
