"""The second half of an inspection in tiles: SAM and the refiner where the map is extreme."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from zeroflaw.pipeline.encoding.frame import Encoding
from zeroflaw.pipeline.engine_outputs import run_encoder
from zeroflaw.pipeline.geometry import FloatArray, FrameGeometry, fit, geometry_of, squash
from zeroflaw.pipeline.masks.from_logits import Box, MaskPart, Workspace, logits_at_sam
from zeroflaw.pipeline.refining.cascade import Stage
from zeroflaw.pipeline.refining.prompt_points import PointPrompts
from zeroflaw.pipeline.refining.refinement import (
    Findings,
    LogitsReader,
    RefinerEngines,
    TileRefinement,
)
from zeroflaw.pipeline.refining.refiners import REFINERS, RefinerRow, TileRefiner
from zeroflaw.pipeline.resizing.strips import Strips
from zeroflaw.pipeline.trace import Status, Trace
from zeroflaw.pipeline.view.blending import BlendedTile, Blending, blending_of, resampled
from zeroflaw.pipeline.view.product_view import FrameView
from zeroflaw.pipeline.view.tiled_encoding import prepared
from zeroflaw.pipeline.view.tiles import TileGrid
from zeroflaw_engines.contract import LABEL_POSITIVE
from zeroflaw_engines.errors import ParametersError
from zeroflaw_engines.image_files.frame import Frame
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.sessions.device_tensor import DeviceTensor
from zeroflaw_engines.sessions.session import Session

# The worst last.
_STATUSES: Final[tuple[Status, ...]] = (
    "no_region",
    "ok",
    "stage_3_empty",
    "stage_2_empty",
    "stage_1_empty",
)


@dataclass(frozen=True, eq=False)
class TiledDecoding:
    """What a refiner made of the tiles of a frame.

    Attributes:
        found: Of the frame.
        points: Of all tiles, in pixels of the frame; None if no pixel is extreme.
        stages: Of all tiles, one after the other; boxes in pixels of the frame.
        kept_stage: The highest of a tile.
    """

    found: Findings
    points: PointPrompts | None
    stages: tuple[Stage, ...]
    kept_stage: int

    def findings(
        self,
        encoding: Encoding,  # noqa: ARG002 - as that of any `Refinement`
        parameters: MethodParameters,  # noqa: ARG002
        workspace: Workspace | None = None,  # noqa: ARG002
    ) -> Findings:
        """Say what was found on the frame that the encoders saw."""
        return self.found

    def trace(self, encoding: Encoding) -> Trace:
        """Say how the mask came about from an encoding."""
        return Trace(
            points=self.points,
            stages=self.stages,
            kept_stage=self.kept_stage,
            zero_shot_map=encoding.zero_shot_map,
            reference_map=encoding.reference_map,
        )


def decode_tiles(
    encoding: Encoding,
    view: FrameView,
    grid: TileGrid,
    parameters: MethodParameters,
    *,
    sam_encoder: Session,
    engines: RefinerEngines,
    strips: Strips | None = None,
    pool: Executor | None = None,
) -> TiledDecoding:
    """Run SAM and the refiner on the tiles that have an extreme pixel.

    A tile's part of the frame's map takes the place of its own, so that neighbours agree about
    what lies in both; their masks are united.

    Args:
        encoding: From `encode_tiles`.
        view: How the frame was looked at.
        engines: Of the refiner.
        strips: Threads that share the resizing.
        pool: Resizes the next tiles while SAM runs; not that of the strips.

    Raises:
        EngineError: An engine failed, or returned values that are not finite.
        ParametersError: The refiner runs without SAM: it takes the map of the whole frame.
    """
    row, watch = REFINERS[parameters.refiner], engines.watch
    if row.of_tile is None:
        raise ParametersError(
            f"the refiner {parameters.refiner} takes no tiles", "refine the frame as a whole"
        )
    blending = blending_of(grid)
    with watch.stage("prompt_points"):
        chosen = _extreme_tiles(encoding.anomaly_map, blending, parameters, row)
    frame = _Frame(
        encoding,
        blending,
        parameters,
        row.of_tile,
        row.threshold(parameters),
        has_zones=view.zones is not None,
    )
    geometry = geometry_of(grid.tile, engines.sizes, parameters)
    content = np.array(geometry.sam_content, np.int32)

    def images_of(batch: Sequence[int]) -> list[Frame]:
        with watch.stage("fit"):
            return [_fitted(view.seen[grid.windows[number]], geometry, strips) for number in batch]

    for batch, images in prepared(chosen, sam_encoder.contract.max_batch, images_of, pool):
        with watch.stage("sam_encoder"):
            outputs = run_encoder(
                sam_encoder,
                [{"image": image[None], "image_size": content} for image in images],
                keep=("features",),
            )
        for number, out in zip(batch, outputs, strict=True):
            with watch.stage("blend"):
                tile = frame.encoding_of(number, geometry, out["features"])
            refinement = row.of_tile.refine(tile, parameters, engines)
            with watch.stage("blend"):
                frame.add(number, tile, refinement)
    with watch.stage("blend"):
        return frame.finished()


@dataclass(eq=False)
class _Frame:
    """What was found in the tiles of a frame so far; tiles are added one by one."""

    encoding: Encoding
    blending: Blending
    parameters: MethodParameters
    refiner: TileRefiner
    threshold: float
    has_zones: bool
    status: Status = "no_region"
    kept_stage: int = 0
    points: list[PointPrompts] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    boxes: list[Box | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mask = np.zeros(self.encoding.geometry.frame, np.bool_)
        self.of_masks = np.zeros(self.blending.size, np.float32)

    def encoding_of(
        self, number: int, geometry: FrameGeometry, features: FloatArray | DeviceTensor
    ) -> Encoding:
        """Say what is known of a tile, with its part of the frame's map in place of its own."""
        of_frame, side = self.encoding.anomaly_map, geometry.map_size
        tile_map = self.blending.at_tile(number, of_frame, side, keep_zeros=self.has_zones)
        peak = self.blending.part(number, of_frame).max()
        if tile_map.max() <= self.threshold < peak:
            # It lies between the centres of the tile's pixels, and is extreme all the same.
            tile_map.flat[int(tile_map.argmax())] = peak
        return replace(
            self.encoding,
            geometry=geometry,
            anomaly_map=tile_map,
            features=features,
            zero_shot_map=tile_map,
            reference_map=None,
        )

    def add(self, number: int, encoding: Encoding, refinement: TileRefinement) -> None:
        found, trace = refinement.found, refinement.trace(encoding)
        if found is None:
            return
        tile = self.blending.tiles[number]
        top, left, bottom, right = (int(edge) for edge in tile.window)
        part = self.mask[top:bottom, left:right]
        np.logical_or(part, found.mask, out=part)
        self.boxes.append(_moved(found.mask_box, left, top))
        scores = refinement.scores_of_masks(_reader_of(tile, encoding.geometry), self.parameters)
        if scores is not None:
            seen = self.of_masks[tile.rows, tile.columns]
            np.maximum(seen, scores, out=seen)
        if trace.points is not None:
            coords = trace.points.coords + np.array((left, top), np.float32)
            self.points.append(replace(trace.points, coords=coords))
        self.stages += [
            replace(stage, boxes=tuple(_shifted(box, left, top) for box in stage.boxes))
            for stage in trace.stages
        ]
        self.kept_stage = max(self.kept_stage, trace.kept_stage)
        self.status = max(self.status, found.status, key=_STATUSES.index)

    def finished(self) -> TiledDecoding:
        of_masks = self.of_masks if self.stages else None
        score_map = self.refiner.join_scores(self.encoding.anomaly_map, of_masks, self.parameters)
        found = Findings(self.mask, _around(self.boxes), score_map, self.status)
        return TiledDecoding(found, self._joined_points(), tuple(self.stages), self.kept_stage)

    def _joined_points(self) -> PointPrompts | None:
        if not self.points:
            return None
        labels = np.concatenate([points.labels for points in self.points])
        coords = np.concatenate([points.coords for points in self.points])
        positives_first = np.argsort(labels != LABEL_POSITIVE, kind="stable")
        from_region = self.points[0].from_region
        region = self.encoding.anomaly_map > self.threshold
        if not from_region:
            region.flat[int(self.encoding.anomaly_map.argmax())] = True
        return PointPrompts(coords[positives_first], labels[positives_first], region, from_region)


def _extreme_tiles(
    anomaly_map: FloatArray, blending: Blending, parameters: MethodParameters, row: RefinerRow
) -> list[int]:
    """Return the tiles with an extreme pixel: those that SAM is to see.

    Where there is none, and SAM is to be run all the same, it is the one with the largest share in
    the map's peak.
    """
    extreme = anomaly_map > row.threshold(parameters)
    numbers = range(len(blending.tiles))
    if extreme.any():
        return [number for number in numbers if blending.part(number, extreme).any()]
    if not row.needs_sam(anomaly_map, parameters):
        return []
    y, x = divmod(int(anomaly_map.argmax()), anomaly_map.shape[1])
    return [max(numbers, key=lambda number: blending.share(number, y, x))]


def _fitted(tile: Frame, geometry: FrameGeometry, strips: Strips | None) -> Frame:
    """Resize a tile as SAM sees it: uint8 [sam_size, sam_size, 3]."""
    squashed = geometry.sam_source != geometry.frame
    source = squash(tile, geometry.map_size, strips) if squashed else tile
    return fit(source, geometry, strips)


def _reader_of(tile: BlendedTile, geometry: FrameGeometry) -> LogitsReader:
    """Read logits of a tile where it has a share in the frame's map.

    They are read at the centres of the map's pixels, as `score_of_logits` does.
    """

    def logits(low_res: FloatArray) -> FloatArray:
        content = logits_at_sam(low_res, geometry)
        return resampled(content, tile.window, tile.edges, tile.size)

    def mask(low_res: FloatArray) -> MaskPart:
        rows, columns = (slice(0, extent) for extent in tile.size)
        return MaskPart(logits(low_res) > 0, rows, columns, tile.size)

    return LogitsReader(logits, mask)


def _around(boxes: Sequence[Box | None]) -> Box | None:
    """Return the box around all boxes; None if one is not known, or there is none."""
    known = [box for box in boxes if box is not None]
    if not known or len(known) < len(boxes):
        return None
    x0, y0, x1, y1 = zip(*known, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def _moved(box: Box | None, left: int, top: int) -> Box | None:
    return None if box is None else _shifted(box, left, top)


def _shifted(box: Box, left: int, top: int) -> Box:
    return box[0] + left, box[1] + top, box[2] + left, box[3] + top
