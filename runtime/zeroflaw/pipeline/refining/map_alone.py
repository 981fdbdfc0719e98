"""No refinement: the anomaly map alone, and SAM is not run."""

from __future__ import annotations

from dataclasses import dataclass

from zeroflaw.pipeline.encoding.frame import Encoding
from zeroflaw.pipeline.masks.from_logits import Workspace, inclusive_box
from zeroflaw.pipeline.masks.of_map import map_above
from zeroflaw.pipeline.refining.refinement import Findings, RefinerEngines
from zeroflaw.pipeline.trace import Trace
from zeroflaw_engines.parameters import MethodParameters


@dataclass(frozen=True, eq=False)
class MapAlone:
    """What a map says by itself.

    Attributes:
        found: Its score map is the anomaly map, whatever `scoring` is.
    """

    found: Findings

    def findings(
        self,
        encoding: Encoding,  # noqa: ARG002 - as those of other refiners
        parameters: MethodParameters,  # noqa: ARG002
        workspace: Workspace | None = None,  # noqa: ARG002
    ) -> Findings:
        """Say what was found on the frame that the encoder saw."""
        return self.found

    def trace(self, encoding: Encoding) -> Trace:
        """Say how the mask came about: without points or stages."""
        return Trace(
            points=None,
            stages=(),
            kept_stage=0,
            zero_shot_map=encoding.zero_shot_map,
            reference_map=encoding.reference_map,
        )


def take_map_alone(
    encoding: Encoding, parameters: MethodParameters, engines: RefinerEngines
) -> MapAlone:
    """Take the mask from the map: where it is above `extreme_threshold`; see `map_above`.

    The map may be that of a frame in tiles as well.
    """
    anomaly_map = encoding.anomaly_map
    with engines.watch.stage("mask"):
        mask = map_above(anomaly_map, parameters.extreme_threshold, encoding.geometry.frame)
        box = inclusive_box(mask)
    return MapAlone(Findings(mask, box, anomaly_map, "no_region" if box is None else "ok"))
