"""The second half of an inspection: point prompts and the cascade, on encoded frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroflaw.pipeline.encoding.frame import Encoding
from zeroflaw.pipeline.engine_outputs import require_alive, require_finite, run_engine
from zeroflaw.pipeline.geometry import FloatArray
from zeroflaw.pipeline.masks.from_logits import Workspace
from zeroflaw.pipeline.refining.cascade import Cascade, DecoderPrompts, run_cascade
from zeroflaw.pipeline.refining.prompt_points import PointPrompts, point_prompts
from zeroflaw.pipeline.refining.refinement import Findings, RefinerEngines
from zeroflaw.pipeline.scoring import score_map
from zeroflaw.pipeline.stopwatch import Stopwatch
from zeroflaw.pipeline.trace import Trace
from zeroflaw_engines.contract import SAM_DECODER, SAM_ENCODER, EngineSizes
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, on_host
from zeroflaw_engines.sessions.session import Session


@dataclass(frozen=True, eq=False)
class Decoding:
    """What PPG and the cascade made of an encoding.

    Attributes:
        points: From PPG; None if no pixel is extreme.
        cascade: None if there were no points.
    """

    points: PointPrompts | None
    cascade: Cascade | None

    def findings(
        self, encoding: Encoding, parameters: MethodParameters, workspace: Workspace | None = None
    ) -> Findings:
        """Say what was found on the frame that the encoders saw."""
        cascade = self.cascade
        size = encoding.geometry.frame
        return Findings(
            mask=np.zeros(size, np.bool_) if cascade is None else cascade.mask,
            mask_box=None if cascade is None else cascade.mask_box,
            score_map=score_map(encoding.anomaly_map, cascade, parameters, workspace),
            status="no_region" if cascade is None else cascade.status,
        )

    def trace(self, encoding: Encoding) -> Trace:
        """Say how the mask came about from an encoding."""
        cascade = self.cascade
        return Trace(
            points=self.points,
            stages=() if cascade is None else cascade.stages,
            kept_stage=0 if cascade is None else cascade.kept_stage,
            zero_shot_map=encoding.zero_shot_map,
            reference_map=encoding.reference_map,
        )


def decode(
    encoding: Encoding,
    parameters: MethodParameters,
    *,
    sam_decoder: Session,
    sizes: EngineSizes,
    workspace: Workspace | None = None,
    watch: Stopwatch | None = None,
) -> Decoding:
    """Run point prompts and cascade (sections 3.1 and 3.2).

    Args:
        workspace: Memory to use again.

    Raises:
        EngineError: The decoder failed, or an engine returned values that are not finite.
    """
    watch = watch or Stopwatch()
    features = encoding.features
    if features is None:
        return Decoding(None, None)
    with watch.stage("prompt_points"):
        values = on_host(features)
        require_finite(SAM_ENCODER, "features", values)
        require_alive(SAM_ENCODER, "features", values)
        points = point_prompts(encoding.anomaly_map, values[0], encoding.geometry, parameters)
    if points is None:
        return Decoding(None, None)
    calls = 0

    def call_decoder(prompts: DecoderPrompts) -> tuple[DeviceTensor, FloatArray]:
        nonlocal calls
        calls += 1
        with watch.stage(f"sam_decoder_{calls}"):
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
        require_finite(SAM_DECODER, "predicted_iou", out["predicted_iou"])
        logits = out["low_res_logits"]
        # Of logits on a device only the chosen mask comes to the host, and is checked there.
        if isinstance(logits, np.ndarray) or logits.is_on_host:
            require_finite(SAM_DECODER, "low_res_logits", on_host(logits))
        return logits, out["predicted_iou"]

    with watch.stage("cascade"):
        cascade = run_cascade(
            call_decoder,
            points,
            encoding.geometry,
            parameters,
            max_prompts=sizes.max_prompts,
            low_res_size=sizes.low_res_size,
            workspace=workspace,
        )
    return Decoding(points, cascade)


def refine_by_cascade(
    encoding: Encoding, parameters: MethodParameters, engines: RefinerEngines
) -> Decoding:
    """Refine by the cascade of Hou et al.; see `decode`.

    Raises:
        EngineError: As `decode`.
    """
    assert engines.sam_decoder is not None  # noqa: S101 - loaded for this refiner
    return decode(
        encoding,
        parameters,
        sam_decoder=engines.sam_decoder,
        sizes=engines.sizes,
        workspace=engines.workspace,
        watch=engines.watch,
    )
