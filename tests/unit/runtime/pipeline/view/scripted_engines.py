"""Engines that see brightness, and a pipeline on them: what tiles must give is plain to see.

CLIP calls bright what is bright, a little blurred; SAM cuts out the bright parts that its positive
points lie in. Both see the pixels that they are given, so that a wrong place is a wrong result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from zeroflaw.frame_pipeline import FramePipeline
from zeroflaw.inspection import Inspection
from zeroflaw.loaded_products import LoadedProduct
from zeroflaw.pipeline.encoding.frame import EncodedFrame
from zeroflaw.pipeline.intake import TakenFrame
from zeroflaw.pipeline.reference import LoadedBank
from zeroflaw.pipeline.view.product_view import ProductView
from zeroflaw.pipeline.view.tiles import TileGrid, tile_grid
from zeroflaw.pipeline.view.zones import ZoneLayout
from zeroflaw.records.provenance import Provenance
from zeroflaw.records.stamp import new_stamp
from zeroflaw.sessions import Sessions
from zeroflaw_engines.bundle.products.settings import ProductSettings, Tiles
from zeroflaw_engines.contract import (
    CLIP_ENCODER,
    LABEL_POSITIVE,
    PATCH_TOKENS,
    REFERENCE_MATCHER,
    SAM_DECODER,
    SAM_ENCODER,
    EngineSizes,
    ReferenceSizes,
    engine_contract,
)
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.sessions.device_tensor import HostTensor
from zeroflaw_engines.sessions.session import CheckedSession

MAP, SAM, PATCHES = 64, 256, 16
BLOCK = 4  # SAM's features hold its picture in blocks of 4 x 4 pixels
PARAMETERS = MethodParameters(extreme_threshold=0.35)


def sizes_of(max_batch: int = 1) -> EngineSizes:
    return EngineSizes(
        clip_image_size=MAP,
        embedding_size=4,
        sam_image_size=SAM,
        sam_feature_size=SAM // BLOCK,
        sam_feature_channels=BLOCK**2,
        max_prompts=16,
        reference=ReferenceSizes(blocks=1, tokens=PATCHES**2, width=2, rows=4),
        max_batch=max_batch,
    )


class Scripted(CheckedSession):
    """Counts its calls, and the images in each."""

    backend = "scripted"

    def __init__(self, name, sizes):
        super().__init__(engine_contract(name, sizes), HostTensor)
        self.images: list[int] = []

    def _release(self):
        pass

    @property
    def seen(self) -> int:
        return sum(self.images)


class BrightClip(Scripted):
    def _run(self, inputs, keep, shapes):
        grey = inputs["image"].astype(np.float32).mean(axis=-1) / 255
        self.images.append(len(grey))
        maps = np.stack([cv2.GaussianBlur(one, (0, 0), 0.7) for one in grey]).clip(0, 1)
        tokens = np.full(shapes[PATCH_TOKENS], 1, np.float32)
        tokens[..., 0] = 0
        return {
            "anomaly_map": maps,
            "image_score": maps.max(axis=(1, 2)).clip(1e-3),
            PATCH_TOKENS: tokens,
        }


class BrightSamEncoder(Scripted):
    def _run(self, inputs, keep, shapes):
        grey = inputs["image"].astype(np.float32).mean(axis=-1) / 255
        self.images.append(len(grey))
        blocks = grey.reshape(-1, SAM // BLOCK, BLOCK, SAM // BLOCK, BLOCK)
        features = blocks.transpose(0, 2, 4, 1, 3).reshape(shapes["features"])
        return {"features": np.ascontiguousarray(features)}


class BrightSamDecoder(Scripted):
    def _run(self, inputs, keep, shapes):
        self.images.append(1)
        side = SAM // BLOCK
        blocks = inputs["features"].reshape(BLOCK, BLOCK, side, side)
        grey = blocks.transpose(2, 0, 3, 1).reshape(SAM, SAM)
        count, labels = cv2.connectedComponents((grey > 0.5).astype(np.uint8))
        wanted = np.zeros(count, np.uint8)
        coords = inputs["point_coords"][0]
        for x, y in coords[inputs["point_labels"][0] == LABEL_POSITIVE].round().astype(int):
            wanted[labels[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4]] = 1
        wanted[0] = 0
        chosen = cv2.dilate(wanted[labels], np.ones((5, 5)))
        logits = np.where(chosen > 0, 10 * (grey - 0.5), -5).astype(np.float32)
        return {
            "low_res_logits": np.broadcast_to(logits, shapes["low_res_logits"]).copy(),
            "predicted_iou": np.full(shapes["predicted_iou"], 0.9, np.float32),
        }


class FlatMatcher(Scripted):
    """Gives every patch the distance that the first value of the bank says, within a hair."""

    def _run(self, inputs, keep, shapes):
        self.images.append(1)
        found = np.full(shapes["reference_map"], float(inputs["bank"][0, 0, 0]), np.float32)
        found[0, 0, 0] += np.float32(1e-6)
        return {"reference_map": found}


@dataclass(frozen=True, eq=False)
class Judged(ZoneLayout):
    """Zones given by their mask."""

    def blanked(self, frame):
        return np.where(self.judged[..., None], frame, 40).astype(np.uint8)

    def at_map(self, shape):
        rows, columns = (
            np.arange(extent) * n // extent
            for extent, n in zip(self.judged.shape, shape, strict=True)
        )
        found = np.zeros(shape, np.bool_)
        ys, xs = np.nonzero(self.judged)
        found[rows[ys], columns[xs]] = True
        return found


@dataclass(frozen=True, eq=False)
class TestedProduct(LoadedProduct):
    """With a distance of its own for each tile, where there are banks."""

    __test__ = False
    distances: Sequence[float] = field(default=())

    def bank_of_tile(self, number):
        if not self.distances:
            return None
        tokens = np.zeros((1, 4, 2), np.float16)
        tokens[0, 0, 0] = self.distances[number]
        return LoadedBank(tokens, np.array([4], np.int32), f"{number}")


class TiledPart:
    """A pipeline with a product of which frames are seen in tiles."""

    def __init__(
        self, frame, tiles: Tiles | None, *, parameters=PARAMETERS, max_batch=1, judged=None,
        distances=(),
    ):  # fmt: skip
        sizes = sizes_of(max_batch)
        self.clip = BrightClip(CLIP_ENCODER, sizes)
        self.sam = BrightSamEncoder(SAM_ENCODER, sizes)
        self.decoder = BrightSamDecoder(SAM_DECODER, sizes)
        matcher = FlatMatcher(REFERENCE_MATCHER, sizes)
        self.sizes, self.parameters = sizes, parameters
        self.pipeline = FramePipeline(
            Sessions(self.clip, self.sam, self.decoder, matcher),
            sizes,
            parameters,
            side_by_side=False,
            threads=1,
        )
        settings = ProductSettings(frame_width=frame[1], frame_height=frame[0], tiles=tiles)
        zones = None if judged is None else Judged((), judged)
        self.grid: TileGrid | None = tile_grid(tiles, frame, sizes)
        self.product = TestedProduct(
            "part",
            np.zeros((2, 4), np.float32),
            None,
            ProductView(settings, zones, self.grid, None),
            settings,
            0.5,
            (),
            (),
            Provenance(*["x"] * 3, None, None, *["x"] * 2),
            distances=distances,
        )

    def encode(self, frame) -> EncodedFrame:
        return self.pipeline.encode(lambda: TakenFrame(frame), self.product, new_stamp())

    def inspect(self, frame) -> Inspection:
        return self.pipeline.decode(self.encode(frame), trace=True)

    def close(self) -> None:
        self.pipeline.close()


def dim_frame(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(25, 55, (height, width, 3), np.uint8)
