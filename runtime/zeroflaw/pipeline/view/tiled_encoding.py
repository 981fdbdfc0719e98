"""The first half of an inspection in tiles: CLIP on each of them, and its maps joined."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from itertools import zip_longest
from typing import Final, TypeVar

import numpy as np

from zeroflaw.loaded_products import LoadedProduct
from zeroflaw.pipeline.encoding.clip import ClipEncoding, clip_encoding, encode_clip
from zeroflaw.pipeline.encoding.frame import Encoding
from zeroflaw.pipeline.encoding.frame_information import FrameInformation, frame_information
from zeroflaw.pipeline.engine_outputs import run_encoder
from zeroflaw.pipeline.geometry import BoolArray, FloatArray, FrameGeometry, squash
from zeroflaw.pipeline.resizing.on_device import DeviceResizer
from zeroflaw.pipeline.resizing.strips import Strips
from zeroflaw.pipeline.stopwatch import Stopwatch
from zeroflaw.pipeline.view.blending import Blending, Edges, blending_of
from zeroflaw.pipeline.view.product_view import FrameView
from zeroflaw.pipeline.view.tiles import TileGrid, TilesSeen
from zeroflaw.pipeline.view.zones import ZoneLayout
from zeroflaw_engines.contract import PATCH_TOKENS
from zeroflaw_engines.image_files.frame import Frame
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.sessions.batches import clip_encoder_inputs
from zeroflaw_engines.sessions.session import Session

# Side of a patch on the map where a bundle does not tell its patch grid, as a share of the map.
_PATCH: Final = 1 / 16

_Images = TypeVar("_Images")


def encode_tiles(
    view: FrameView,
    grid: TileGrid,
    geometry: FrameGeometry,
    product: LoadedProduct,
    *,
    clip_encoder: Session,
    matcher: Session | None,
    parameters: MethodParameters,
    resizer: DeviceResizer | None,
    strips: Strips | None,
    pool: Executor | None,
    watch: Stopwatch,
) -> Encoding:
    """Run CLIP on the tiles of a frame that hold anything to judge.

    With `coarse_to_fine`, CLIP sees the whole frame first, and a tile is left out where no pixel
    of that map, up to a patch beside the tile, is above the limit. It keeps the coarse map, and
    its reference map is 0.

    Args:
        view: How the frame is looked at.
        geometry: Of the whole frame.
        matcher: Of products with a bank.
        resizer: Resizes the whole frame on the device; tiles are resized on the host.
        strips: Threads that share the resizing.
        pool: Resizes the next tiles while CLIP runs; not that of the strips.

    Returns:
        Maps of `combined_size` of the grid, and no features: those are of tiles, and come in the
        second half. The score is the highest of all tiles.

    Raises:
        EngineError: An engine failed.
    """
    blending, zones = blending_of(grid), view.zones
    with watch.stage("blend"):
        judged = None if zones is None else zones.at_map(blending.size)
        chosen = judged_tiles(grid, zones)
    coarse, left_out = None, list[int]()
    limit = grid.tiles.coarse_limit if grid.tiles.coarse_to_fine else None
    if limit is None:
        with watch.stage("frame_information"):
            information = frame_information(view.seen, None if zones is None else zones.judged)
    else:
        coarse = _coarse(
            view,
            geometry,
            product,
            clip_encoder=clip_encoder,
            resizer=resizer,
            strips=strips,
            watch=watch,
        )
        information = coarse.information
        clear = [not _is_above(limit, coarse.anomaly_map, number, grid) for number in chosen]
        left_out = [number for number, good in zip(chosen, clear, strict=True) if good]
        chosen = [number for number, good in zip(chosen, clear, strict=True) if not good]

    maps = _Maps(blending, has_bank=product.banks is not None)
    score = 0.0 if coarse is None else coarse.cls_score

    def images_of(batch: Sequence[int]) -> list[Frame]:
        with watch.stage("squash"):
            return [
                squash(view.seen[grid.windows[number]], geometry.map_size, strips)
                for number in batch
            ]

    for batch, images in prepared(chosen, clip_encoder.contract.max_batch, images_of, pool):
        for number, one in zip(
            batch,
            _clip_encodings(
                images,
                batch,
                information,
                product,
                clip_encoder=clip_encoder,
                matcher=matcher,
                parameters=parameters,
                watch=watch,
            ),
            strict=True,
        ):
            with watch.stage("blend"):
                maps.add(number, one)
            score = max(score, one.cls_score)
    with watch.stage("blend"):
        if coarse is not None:
            for number in left_out:
                maps.add_coarse(number, coarse.zero_shot_map)
        anomaly_map, zero_shot_map, reference_map = maps.finished(judged)
    return Encoding(
        geometry,
        anomaly_map,
        score,
        information,
        None,
        zero_shot_map,
        reference_map,
        TilesSeen(grid.tiles.rows, grid.tiles.columns, len(chosen)),
    )


def judged_tiles(grid: TileGrid, zones: ZoneLayout | None) -> list[int]:
    """Return the numbers of the tiles that hold anything to judge, row by row from 0."""
    blending = blending_of(grid)
    judged = None if zones is None else zones.at_map(blending.size)
    return [
        number
        for number in range(len(blending.tiles))
        if judged is None or blending.part(number, judged).any()
    ]


class _Maps:
    """The maps of a frame, to which tiles are added one by one."""

    def __init__(self, blending: Blending, *, has_bank: bool) -> None:
        self._blending = blending
        self._zero_shot = np.zeros(blending.size, np.float32)
        self._fused = np.zeros(blending.size, np.float32) if has_bank else self._zero_shot
        self._reference = np.zeros(blending.size, np.float32) if has_bank else None

    def add(self, number: int, tile: ClipEncoding) -> None:
        self._blending.add(number, tile.zero_shot_map, self._zero_shot)
        if self._reference is not None:
            self._blending.add(number, tile.anomaly_map, self._fused)
            if tile.reference_map is not None:
                self._blending.add(number, tile.reference_map, self._reference)

    def add_coarse(self, number: int, whole: FloatArray) -> None:
        self._blending.add(number, whole, self._zero_shot, whole=True)
        if self._reference is not None:
            self._blending.add(number, whole, self._fused, whole=True)

    def finished(
        self, judged: BoolArray | None
    ) -> tuple[FloatArray, FloatArray, FloatArray | None]:
        """Return the anomaly map, the zero-shot map and the reference map; no more may follow."""
        of_bank = () if self._reference is None else (self._fused, self._reference)
        for values in (self._zero_shot, *of_bank):
            # Rounding may carry a sum of shares past 1.
            np.minimum(values, 1, out=values)
            if judged is not None:
                np.multiply(values, judged, out=values)
        return self._fused, self._zero_shot, self._reference


def _coarse(
    view: FrameView,
    geometry: FrameGeometry,
    product: LoadedProduct,
    *,
    clip_encoder: Session,
    resizer: DeviceResizer | None,
    strips: Strips | None,
    watch: Stopwatch,
) -> ClipEncoding:
    """Run CLIP on the whole frame: by the texts alone, since banks are of patches of tiles."""
    with watch.stage("frame"):
        on_device = None if resizer is None else resizer.upload(view.seen, geometry)
    return encode_clip(
        view.seen,
        geometry.map_size,
        product.embeddings,
        clip_encoder,
        on_device=on_device,
        strips=strips,
        zones=view.zones,
        watch=watch,
    )


def _clip_encodings(
    images: Sequence[Frame],
    numbers: Sequence[int],
    information: FrameInformation,
    product: LoadedProduct,
    *,
    clip_encoder: Session,
    matcher: Session | None,
    parameters: MethodParameters,
    watch: Stopwatch,
) -> Iterator[ClipEncoding]:
    """Run CLIP once on several tiles, and give what it says of each.

    Args:
        images: uint8 [S, S, 3] of each tile.
        numbers: Of the tiles.
    """
    inputs = [
        clip_encoder_inputs(clip_encoder.contract, image[None], product.embeddings)
        for image in images
    ]
    kept = [spec.name for spec in clip_encoder.contract.outputs if spec.name == PATCH_TOKENS]
    with watch.stage("clip_encoder"):
        outputs = run_encoder(clip_encoder, inputs, keep=kept)
    for number, out in zip(numbers, outputs, strict=True):
        yield clip_encoding(
            out,
            information,
            matcher=matcher,
            bank=product.bank_of_tile(number),
            parameters=parameters,
            zones=None,
            watch=watch,
        )


def _is_above(limit: float, coarse: FloatArray, number: int, grid: TileGrid) -> bool:
    """Return whether the map of the whole frame is above a limit in a tile or a patch beside it."""
    side = len(coarse)
    margin = side * _PATCH if grid.patches is None else side / grid.patches
    top, left, bottom, right = _on_map(grid, number, side)
    rows = slice(max(0, int(top - margin)), int(np.ceil(bottom + margin)))
    columns = slice(max(0, int(left - margin)), int(np.ceil(right + margin)))
    return bool(coarse[rows, columns].max() > limit)


def _on_map(grid: TileGrid, number: int, side: int) -> Edges:
    """Return where a tile lies on a map of the whole frame, px of it."""
    rows, columns = grid.windows[number]
    per_row, per_column = side / grid.frame[0], side / grid.frame[1]
    return (
        rows.start * per_row,
        columns.start * per_column,
        rows.stop * per_row,
        columns.stop * per_column,
    )


def prepared(
    numbers: Sequence[int],
    most: int,
    prepare: Callable[[Sequence[int]], _Images],
    pool: Executor | None,
) -> Iterator[tuple[Sequence[int], _Images]]:
    """Give tiles in order, as many at once as an engine takes, with the images of them.

    Args:
        numbers: Of the tiles.
        most: Tiles at once.
        prepare: Makes the images of some tiles.
        pool: Prepares the next images while an engine runs on those given; None: nothing does.
    """
    batches = [numbers[start : start + most] for start in range(0, len(numbers), most)]
    if pool is None:
        yield from ((batch, prepare(batch)) for batch in batches)
        return
    pending = None
    for batch, following in zip_longest(batches, batches[1:]):
        images = prepare(batch) if pending is None else pending.result()
        pending = None if following is None else pool.submit(prepare, following)
        yield batch, images
