"""The Inspector: a loaded bundle that turns frames into inspections."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from zeroflaw.cascade import Cascade
from zeroflaw.decision import verdict_of
from zeroflaw.decoding import decode
from zeroflaw.encoding import EncodedFrame, Encoding, encode, geometry_of
from zeroflaw.frame import MAX_FRAME_PIXELS, ChannelOrder, Frame, rgb_frame
from zeroflaw.geometry import FloatArray
from zeroflaw.inspection import Inspection, Status, Trace
from zeroflaw.prompt_points import PointPrompts
from zeroflaw.record import calibration_digest
from zeroflaw.regions import regions_of
from zeroflaw.resizing import Bands
from zeroflaw.scoring import image_score, score_map
from zeroflaw.stamp import new_stamp
from zeroflaw.stopwatch import Stopwatch
from zeroflaw.threshold import decision_threshold
from zeroflaw.workspace import Workspace
from zeroflaw_engines.backends import (
    DEFAULT_BACKEND,
    BackendChoice,
    choose_backend,
    load_session,
)
from zeroflaw_engines.bundle import Bundle, open_bundle
from zeroflaw_engines.contract import CLIP_ENCODER, SAM_DECODER, SAM_ENCODER, EngineName
from zeroflaw_engines.embedded import EMBEDDED_NAME
from zeroflaw_engines.errors import EngineError, ProductError
from zeroflaw_engines.machine import usable_cores
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.prompt_bank import TextEmbeddings, read_prompt_bank
from zeroflaw_engines.session import Session, zeros_for
from zeroflaw_engines.version import __version__

EncoderSchedule = Literal["side_by_side", "clip_first"]


@dataclass(frozen=True)
class Sessions:
    """The three engines that an inspection runs."""

    clip_encoder: Session
    sam_encoder: Session
    sam_decoder: Session

    def __iter__(self) -> Iterator[Session]:
        return iter((self.clip_encoder, self.sam_encoder, self.sam_decoder))


class Inspector:
    """Inspects frames with the engines of one bundle.

    One Inspector may be shared by any number of threads: an inspection keeps all its state to
    itself, and sessions take concurrent calls. Calls from several threads share the same cores,
    so they add throughput only where one call leaves cores idle.

    Use it as a context manager, or `close` it.

    Attributes:
        bundle: The bundle it was loaded from.
        parameters: The method's parameters it applies.
        backend: What runs the engines: name, version, device and precision.
        choice: The backend that was chosen and why; None if it was made of loaded sessions.
    """

    def __init__(
        self,
        bundle: Bundle,
        sessions: Sessions,
        *,
        parameters: MethodParameters | None = None,
        encoder_schedule: EncoderSchedule = "side_by_side",
        max_frame_pixels: int = MAX_FRAME_PIXELS,
        choice: BackendChoice | None = None,
        threads: int = 0,
    ) -> None:
        """Makes an Inspector of sessions that are loaded already; most callers want `load`."""
        self.bundle = bundle
        self.parameters = parameters or bundle.manifest.method_parameters
        self.backend = ", ".join(dict.fromkeys(session.backend for session in sessions))
        self.choice = choice
        self._sessions = sessions
        self._schedule = encoder_schedule
        self._max_frame_pixels = max_frame_pixels
        self._sizes = bundle.manifest.sizes
        self._prompts = read_prompt_bank(
            bundle.path / bundle.manifest.prompts, self._sizes.embedding_size
        )
        self._identity = bundle.identity
        self._parameters_digest = self.parameters.digest
        self._calibration_digests = {
            name: calibration_digest(product) for name, product in bundle.manifest.products.items()
        }
        self._embedding_digests = {
            name: hashlib.sha256(embeddings.tobytes()).hexdigest()
            for name, embeddings in self._prompts.items()
        }
        self._warnings = _warnings(bundle)
        # Only CLIP encoders run in this pool; SAM encoders run in the callers' threads.
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="zeroflaw-clip")
        resizers = threads or usable_cores()
        self._bands = Bands(ThreadPoolExecutor(resizers, "zeroflaw-resize"), resizers)
        self._workspace = Workspace()
        self._closed = False

    @classmethod
    def load(
        cls,
        bundle: str | Path = EMBEDDED_NAME,
        backend: str = DEFAULT_BACKEND,
        *,
        precision: str | None = None,
        parameters: MethodParameters | None = None,
        threads: int = 0,
        model_cache: Path | None = None,
        encoder_schedule: EncoderSchedule = "side_by_side",
        max_frame_pixels: int = MAX_FRAME_PIXELS,
    ) -> Inspector:
        """Verifies a bundle and loads its engines.

        Args:
            bundle: The bundle's directory, or the text `mini` for the demonstration model that
                ships with zeroflaw.
            backend: What runs the engines: a name that `zeroflaw doctor` lists, or `auto` for the
                fastest of those that are available.
            precision: What the engines compute in (`fp32`, `bf16`, `fp16`); default: that of the
                backend.
            parameters: Method parameters; default: those that the bundle records.
            threads: CPU threads of each engine, and of resizing; 0 takes every core.
            model_cache: Where backends that compile at load keep what they compiled; default:
                nowhere.
            encoder_schedule: `side_by_side` runs both encoders at once: the shortest time to a
                mask. `clip_first` leaves the SAM encoder out where CLIP finds no extreme
                region: the least work on good parts.
            max_frame_pixels: Larger frames are refused.

        Raises:
            BundleError: The bundle is missing, damaged, or of a newer schema.
            BackendUnavailableError: The backend is unknown or not installed, or lacks its driver
                or the precision.
            EngineError: An engine cannot be loaded.
        """
        opened = open_bundle(bundle)
        choice = choose_backend(backend, precision, bundle=opened)

        def load(engine: EngineName) -> Session:
            return load_session(
                opened,
                engine,
                backend=choice.backend,
                precision=precision,
                threads=threads,
                model_cache=model_cache,
            )

        sessions = Sessions(
            clip_encoder=load(CLIP_ENCODER),
            sam_encoder=load(SAM_ENCODER),
            sam_decoder=load(SAM_DECODER),
        )
        return cls(
            opened,
            sessions,
            parameters=parameters,
            encoder_schedule=encoder_schedule,
            max_frame_pixels=max_frame_pixels,
            choice=choice,
            threads=threads,
        )

    @property
    def sessions(self) -> Sessions:
        """The engines; they are closed with the Inspector."""
        return self._sessions

    @property
    def products(self) -> tuple[str, ...]:
        """Names of the products that can be inspected."""
        return tuple(sorted(self.bundle.manifest.products))

    def product_name(self, product: str | None) -> str:
        """The product that is meant: the one named, or the only one there is.

        Raises:
            ProductError: It is unknown, or there are several to choose from.
        """
        known = self.products
        if product is None and len(known) == 1:
            return known[0]
        if product is None or product not in known:
            asked = "no product was named" if product is None else f"unknown product {product!r}"
            raise ProductError(
                f"{asked}; this bundle has: {', '.join(known) or 'none'}",
                "name one of these, or add it with "
                f"`zeroflaw products add {self.bundle.path} NAME`",
            )
        return product

    def warm_up(self, runs: int = 1) -> None:
        """Prepares every engine, so that the first inspection is as fast as the rest.

        Args:
            runs: How often every engine is run on zeros, at least once.
        """
        self._require_open()
        for session in self._sessions:
            session.prepare()
            session.capture()
            for _ in range(runs - 1):
                session.execute(zeros_for(session.contract))

    def inspect(
        self,
        image: NDArray[Any],
        *,
        product: str | None = None,
        channel_order: ChannelOrder = "rgb",
        white_level: float | None = None,
        trace: bool = False,
        frame_id: str | None = None,
        part_id: str | None = None,
        camera_id: str | None = None,
    ) -> Inspection:
        """Inspects one frame.

        Args:
            image: The frame; see `rgb_frame` for what is accepted.
            product: Name of the product; may be left out if the bundle has only one.
            channel_order: Order of the frame's colour channels.
            white_level: Value of the frame that counts as white; default: the dtype's largest.
            trace: Whether the result says how its mask came about.
            frame_id: The caller's name of the frame; comes back with the result.
            part_id: The same of the part.
            camera_id: The same of the camera.

        Raises:
            FrameError: The array is not a frame.
            ProductError: The bundle does not know the product.
            EngineError: An engine failed, or returned values that are not finite or out of
                their range; there is no result, and so no "good" one.
        """
        encoded = self.encode_frame(
            image,
            product=product,
            channel_order=channel_order,
            white_level=white_level,
            frame_id=frame_id,
            part_id=part_id,
            camera_id=camera_id,
        )
        return self.decode_frame(encoded, trace=trace)

    def encode_frame(
        self,
        image: NDArray[Any],
        *,
        product: str | None = None,
        channel_order: ChannelOrder = "rgb",
        white_level: float | None = None,
        frame_id: str | None = None,
        part_id: str | None = None,
        camera_id: str | None = None,
    ) -> EncodedFrame:
        """The first half of `inspect`: check and resize the frame, run both encoders.

        `InspectionStream` runs it for one frame while `decode_frame` runs for the one before.
        Arguments and errors are those of `inspect`.
        """
        self._require_open()
        stamp = new_stamp(part_id=part_id, frame_id=frame_id, camera_id=camera_id)
        watch = Stopwatch()
        with watch.stage("total"):
            name = self.product_name(product)
            with watch.stage("frame"):
                frame = rgb_frame(
                    image,
                    channel_order=channel_order,
                    white_level=white_level,
                    max_pixels=self._max_frame_pixels,
                )
                if np.may_share_memory(frame, image):
                    # The caller may write into it again before the record's digest is asked for.
                    frame = frame.copy()
            encoding = self._encode(frame, self._prompts[name], watch)
        return EncodedFrame(stamp, frame, name, encoding, watch)

    def decode_frame(self, encoded: EncodedFrame, *, trace: bool = False) -> Inspection:
        """The second half of `inspect`: point prompts, cascade, scores, regions, decision.

        Args:
            encoded: From `encode_frame` of this Inspector.
            trace: Whether the result says how its mask came about.

        Raises:
            EngineError: The decoder failed.
        """
        self._require_open()
        name, encoding, watch = encoded.product, encoded.encoding, encoded.watch
        with watch.stage("total"):
            decoding = decode(
                encoding,
                self.parameters,
                sam_decoder=self._sessions.sam_decoder,
                sizes=self._sizes,
                workspace=self._workspace,
                watch=watch,
            )
            cascade, anomaly_map = decoding.cascade, encoding.anomaly_map
            with watch.stage("score"):
                score = score_map(anomaly_map, cascade, self.parameters)
            size = encoding.geometry.frame
            mask = np.zeros(size, np.bool_) if cascade is None else cascade.mask
            with watch.stage("regions"):
                regions = regions_of(mask, score)
            whole = image_score(encoding.cls_score, anomaly_map, self.parameters)
            threshold, reservations = decision_threshold(
                name, self.bundle.manifest.products[name], self.parameters
            )
            with watch.stage("verdict"):
                verdict = verdict_of(
                    whole,
                    threshold,
                    information=encoding.information,
                    mask=mask,
                    anomaly_map=anomaly_map,
                    parameters=self.parameters,
                )
        status: Status = "no_region" if cascade is None else cascade.status
        return Inspection(
            **dataclasses.asdict(encoded.stamp),
            status=status,
            product=name,
            decision=verdict.decision,
            reason=verdict.reason,
            image_score=whole,
            threshold=threshold,
            frame_size=size,
            frame=encoded.frame,
            mask=mask,
            anomaly_map=anomaly_map,
            score_map=score,
            regions=regions,
            timings_ms=watch.milliseconds,
            software=__version__,
            bundle=self._identity,
            text_embeddings=self._embedding_digests[name],
            calibration=self._calibration_digests[name],
            parameters=self._parameters_digest,
            backend=self.backend,
            warnings=self._warnings + reservations + verdict.warnings,
            trace=_trace(decoding.points, cascade) if trace else None,
        )

    def inspect_many(
        self,
        images: Iterable[NDArray[Any]],
        *,
        product: str | None = None,
        channel_order: ChannelOrder = "rgb",
        white_level: float | None = None,
        trace: bool = False,
    ) -> Iterator[Inspection]:
        """Inspects frames one after the other, in order; see `inspect`.

        Frames are taken from `images` as they are needed, so a generator never runs ahead.
        """
        for image in images:
            yield self.inspect(
                image,
                product=product,
                channel_order=channel_order,
                white_level=white_level,
                trace=trace,
            )

    def close(self) -> None:
        """Releases the engines. Inspections that are under way must have ended."""
        if not self._closed:
            self._closed = True
            self._pool.shutdown()
            self._bands.pool.shutdown()
            for session in self._sessions:
                session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _require_open(self) -> None:
        if self._closed:
            raise EngineError("this Inspector is closed", "load another one")

    def _encode(self, frame: Frame, embeddings: TextEmbeddings, watch: Stopwatch) -> Encoding:
        """Runs the encoders; features are None if the schedule left the SAM encoder out."""
        return encode(
            frame,
            geometry_of((frame.shape[0], frame.shape[1]), self._sizes, self.parameters),
            embeddings,
            clip_encoder=self._sessions.clip_encoder,
            sam_encoder=self._sessions.sam_encoder,
            pool=self._pool if self._schedule == "side_by_side" else None,
            needs_sam=self._needs_sam,
            bands=self._bands,
            watch=watch,
        )

    def _needs_sam(self, anomaly_map: FloatArray) -> bool:
        extreme = bool(anomaly_map.max() > self.parameters.extreme_threshold)
        return extreme or self.parameters.no_region == "always_run"


def _trace(points: PointPrompts | None, cascade: Cascade | None) -> Trace:
    if cascade is None:
        return Trace(points=points, stages=(), kept_stage=0)
    return Trace(points=points, stages=cascade.stages, kept_stage=cascade.kept_stage)


def _warnings(bundle: Bundle) -> tuple[str, ...]:
    seed = bundle.manifest.random_weights
    if seed is None:
        return ()
    return (f"the bundle has random weights (seed {seed}): scores and masks mean nothing",)
