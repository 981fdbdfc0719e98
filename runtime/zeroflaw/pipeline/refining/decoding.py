"""The second half of an inspection: point prompts and the cascade, on encoded frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroflaw.pipeline.encoding.frame import Encoding
from zeroflaw.pipeline.geometry import FloatArray
from zeroflaw.pipeline.masks.from_logits import Workspace
from zeroflaw.pipeline.refining.cascade import Cascade, run_cascade
from zeroflaw.pipeline.refining.decoder_call import decoder_of, features_on_host
from zeroflaw.pipeline.refining.prompt_points import PointPrompts, point_prompts
from zeroflaw.pipeline.refining.refinement import (
    Findings,
    FoundMask,
    LogitsReader,
    RefinerEngines,
)
from zeroflaw.pipeline.scoring import probability_of, score_map, score_without_mask
from zeroflaw.pipeline.stopwatch import Stopwatch
from zeroflaw.pipeline.trace import Trace
from zeroflaw_engines.contract import EngineSizes
from zeroflaw_engines.parameters import MethodParameters
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

    @property
    def found(self) -> FoundMask | None:
        """The mask; None if no pixel is extreme."""
        cascade = self.cascade
        if cascade is None:
            return None
        return FoundMask(cascade.mask, cascade.mask_box, cascade.status)

    def scores_of_masks(
        self, reader: LogitsReader, parameters: MethodParameters
    ) -> FloatArray | None:
        """Return what the mask adds to the score map, read as `score_of_logits` reads it.

        Returns:
            float32 of the reader's grid; None if there is no mask, or it adds nothing.
        """
        cascade = self.cascade
        if parameters.scoring == "map" or cascade is None or cascade.low_res_logits is None:
            return None
        if parameters.scoring == "sam_probability":
            return probability_of(reader.logits(cascade.low_res_logits))
        mask = reader.mask(cascade.low_res_logits).whole().astype(np.float32)
        if parameters.scoring == "mask":
            return mask
        confidence = min(max(cascade.predicted_iou, 0.0), 1.0)
        return mask * (np.float32(parameters.fusion_weight) * np.float32(confidence))

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
        values = features_on_host(features)
        points = point_prompts(encoding.anomaly_map, values, encoding.geometry, parameters)
    if points is None:
        return Decoding(None, None)
    with watch.stage("cascade"):
        cascade = run_cascade(
            decoder_of(sam_decoder, features, watch),
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


def join_cascade_scores(
    anomaly_map: FloatArray, of_masks: FloatArray | None, parameters: MethodParameters
) -> FloatArray:
    """Return the score map of a frame in tiles.

    Args:
        anomaly_map: float32 [h, w] in [0, 1].
        of_masks: float32 [h, w], the largest `scores_of_masks` of a tile; None if none has any.

    Returns:
        float32 [h, w] in [0, 1].
    """
    scores = score_without_mask(anomaly_map, parameters)
    if of_masks is not None and parameters.scoring != "map":
        scores += of_masks
    return scores
