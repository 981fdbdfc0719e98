"""Both halves of an inspection on loaded engines: frames encoded, and what they show concluded."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np

from zeroflaw.inspection import Inspection
from zeroflaw.loaded_products import LoadedProduct
from zeroflaw.pipeline.conclusion import conclude
from zeroflaw.pipeline.encoding.batch import encode_batch
from zeroflaw.pipeline.encoding.frame import EncodedFrame, encode
from zeroflaw.pipeline.geometry import FloatArray, geometry_of
from zeroflaw.pipeline.intake import Take
from zeroflaw.pipeline.masks.from_logits import Workspace
from zeroflaw.pipeline.refining.refinement import Refinement, RefinerEngines
from zeroflaw.pipeline.refining.refiners import REFINERS, refine
from zeroflaw.pipeline.resizing.strips import Strips
from zeroflaw.pipeline.stopwatch import Stopwatch
from zeroflaw.pipeline.view.tiled_decoding import decode_tiles
from zeroflaw.pipeline.view.tiled_encoding import encode_tiles
from zeroflaw.pipeline.view.tiles import require_takes_tiles
from zeroflaw.records.stamp import Stamp, new_stamp
from zeroflaw.sessions import Sessions
from zeroflaw_engines.contract import BOX_PROPOSER, ENGINES_OF_REFINER, SAM_ENCODER, EngineSizes
from zeroflaw_engines.errors import ArgumentError
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.process.cores import usable_cores
from zeroflaw_engines.sessions.session import Session


class FramePipeline:
    """Runs frames through loaded engines, with threads of its own for CLIP and for resizing.

    Args:
        sessions: They stay the caller's.
        side_by_side: Whether both run at once, also where CLIP finds nothing.
        threads: That share the resizing; 0 takes every core that the process may use.
    """

    def __init__(
        self,
        sessions: Sessions,
        sizes: EngineSizes,
        parameters: MethodParameters,
        *,
        side_by_side: bool,
        threads: int,
    ) -> None:
        self._sessions = sessions
        self._sizes = sizes
        self._parameters = parameters
        # CLIP encoders beside SAM's, which run in the callers' threads; and what resizes the next
        # tiles beside either.
        self._clip_pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="zeroflaw-clip")
        self._pool = self._clip_pool if side_by_side else None
        resizers = threads or usable_cores()
        self._strips = Strips(ThreadPoolExecutor(resizers, "zeroflaw-resize"), resizers)
        self._workspace = Workspace()

    @property
    def _sam_encoder(self) -> Session | None:
        """None where the refiner runs without SAM, also if it is loaded."""
        runs = SAM_ENCODER in ENGINES_OF_REFINER[self._parameters.refiner]
        return self._sessions.sam_encoder if runs else None

    @property
    def _box_proposer(self) -> Session | None:
        """None where the refiner runs without it, also if it is loaded."""
        runs = BOX_PROPOSER in ENGINES_OF_REFINER[self._parameters.refiner]
        return self._sessions.box_proposer if runs else None

    @property
    def max_batch(self) -> int:
        """Most frames that both encoders take in one call."""
        encoders = (self._sessions.clip_encoder, self._sam_encoder)
        return min(session.contract.max_batch for session in encoders if session is not None)

    def warm_up(self, runs: int, frame: tuple[int, int] | None) -> None:
        """Run every engine on zeros, and resize noise of a size where the device resizes.

        Args:
            frame: Height and width, px; None resizes nothing.

        Raises:
            EngineError: An engine failed.
        """
        self._sessions.warm_up(runs)
        resizer = self._sessions.resizer
        if resizer is None or frame is None:
            return
        noise = np.random.default_rng(0).integers(0, 256, (*frame, 3), np.uint8)
        # The first of a size is resized in there, to be compared.
        resizer.upload(noise, geometry_of(frame, self._sizes, self._parameters))

    def encode(self, take: Take, product: LoadedProduct, stamp: Stamp) -> EncodedFrame:
        """Take a frame in and run both encoders on it.

        Raises:
            FrameError: It is no frame.
            SettingsError: The refiner takes no tiles, and the product has some.
            EngineError: An engine failed.
        """
        grid = None if product.view is None else product.view.grid
        require_takes_tiles(self._parameters.refiner, product.name, grid)
        watch = Stopwatch()
        with watch.stage("total"):
            with watch.stage("frame"):
                taken = take()
            view = None
            if product.view is not None:
                with watch.stage("view"):
                    view = product.view.look(taken.frame)
            seen = taken.frame if view is None else view.seen
            geometry = geometry_of((seen.shape[0], seen.shape[1]), self._sizes, self._parameters)
            if view is not None and view.grid is not None:
                encoding = encode_tiles(
                    view,
                    view.grid,
                    geometry,
                    product,
                    clip_encoder=self._sessions.clip_encoder,
                    matcher=self._sessions.reference_matcher,
                    parameters=self._parameters,
                    resizer=self._sessions.resizer,
                    strips=self._strips,
                    pool=self._clip_pool,
                    watch=watch,
                )
                return EncodedFrame(
                    stamp, taken.frame, product, encoding, watch, taken.warnings, view
                )
            encoding = encode(
                seen,
                geometry,
                product.embeddings,
                clip_encoder=self._sessions.clip_encoder,
                sam_encoder=self._sam_encoder,
                matcher=self._sessions.reference_matcher,
                proposer=self._box_proposer,
                bank=product.bank,
                parameters=self._parameters,
                pool=self._pool,
                needs_sam=self._needs_sam,
                resizer=self._sessions.resizer,
                strips=self._strips,
                zones=None if view is None else view.zones,
                watch=watch,
            )
        return EncodedFrame(stamp, taken.frame, product, encoding, watch, taken.warnings, view)

    def encode_batch(self, takes: Sequence[Take], product: LoadedProduct) -> list[EncodedFrame]:
        """Take frames of one product in and run each encoder once on all of them.

        Raises:
            ArgumentError: They are more than `max_batch`, or none.
            FrameError: One is no frame.
            EngineError: An engine failed.
        """
        if not 1 <= len(takes) <= self.max_batch:
            raise ArgumentError(
                f"images are {len(takes)}, and the encoders take 1 to {self.max_batch} in one call",
                "give fewer at once, or export the bundle with a larger --max-batch"
                if takes
                else "give at least one",
            )
        stamps = [new_stamp(part_id=None, frame_id=None, camera_id=None) for _ in takes]
        if product.view is not None:
            # Their tiles are what the encoders take in one call.
            return [
                self.encode(take, product, stamp) for take, stamp in zip(takes, stamps, strict=True)
            ]
        watches = [Stopwatch() for _ in takes]
        with ExitStack() as totals:
            taken = []
            for take, watch in zip(takes, watches, strict=True):
                totals.enter_context(watch.stage("total"))
                with watch.stage("frame"):
                    taken.append(take())
            encodings = encode_batch(
                [one.frame for one in taken],
                [
                    geometry_of(
                        (one.frame.shape[0], one.frame.shape[1]), self._sizes, self._parameters
                    )
                    for one in taken
                ],
                product.embeddings,
                clip_encoder=self._sessions.clip_encoder,
                sam_encoder=self._sam_encoder,
                matcher=self._sessions.reference_matcher,
                proposer=self._box_proposer,
                bank=product.bank,
                parameters=self._parameters,
                pool=self._pool,
                needs_sam=self._needs_sam,
                strips=self._strips,
                zones=None,
                watches=watches,
            )
        return [
            EncodedFrame(stamp, one.frame, product, encoding, watch, one.warnings)
            for stamp, one, encoding, watch in zip(stamps, taken, encodings, watches, strict=True)
        ]

    def decode(self, encoded: EncodedFrame, *, trace: bool) -> Inspection:
        """Find the mask of an encoded frame, and conclude.

        Args:
            trace: Whether the result says how its mask came about.

        Raises:
            EngineError: The decoder failed.
        """
        view = encoded.view
        refinement: Refinement
        with encoded.watch.stage("total"):
            engines = RefinerEngines(
                self._sessions.sam_decoder, self._sizes, self._workspace, encoded.watch
            )
            sam_encoder = self._sam_encoder
            # Without SAM, what the tiles' maps were joined to is a map like any other.
            if view is not None and view.grid is not None and sam_encoder is not None:
                refinement = decode_tiles(
                    encoded.encoding,
                    view,
                    view.grid,
                    self._parameters,
                    sam_encoder=sam_encoder,
                    engines=engines,
                    strips=self._strips,
                    pool=self._clip_pool,
                )
            else:
                refinement = refine(encoded.encoding, self._parameters, engines)
            return conclude(encoded, refinement, self._parameters, self._workspace, trace=trace)

    def close(self) -> None:
        """End its threads."""
        self._clip_pool.shutdown()
        self._strips.pool.shutdown()

    def _needs_sam(self, anomaly_map: FloatArray) -> bool:
        return REFINERS[self._parameters.refiner].needs_sam(anomaly_map, self._parameters)
