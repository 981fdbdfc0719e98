"""The first half of an inspection: both encoders, on one frame."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from zeroflaw.pipeline.engine_outputs import clip_outputs, run_engine
from zeroflaw.pipeline.frame_information import FrameInformation, frame_information
from zeroflaw.pipeline.geometry import (
    FloatArray,
    FrameGeometry,
    fit,
    frame_geometry,
    squash,
    to_resize_twice,
)
from zeroflaw.pipeline.resizing import Picture, Strips
from zeroflaw.pipeline.stopwatch import Stopwatch
from zeroflaw.records.stamp import Stamp
from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings
from zeroflaw_engines.contract import EngineSizes
from zeroflaw_engines.image_files.frame import Frame
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.sessions.device_tensor import DeviceTensor
from zeroflaw_engines.sessions.session import Session


@dataclass(frozen=True, eq=False)
class Encoding:
    """What the encoders say of one frame.

    Attributes:
        geometry: The frame's grids.
        anomaly_map: float32 [S, S] in [0, 1].
        cls_score: P(abnormal) of CLIP's CLS token.
        information: What there is to see in the frame.
        features: float32 [1, C, G, G] of SAM, where its encoder left them; None if that was left
            out.
    """

    geometry: FrameGeometry
    anomaly_map: FloatArray
    cls_score: float
    information: FrameInformation
    features: FloatArray | DeviceTensor | None


@dataclass(frozen=True, eq=False)
class ClipEncoding:
    """What the CLIP encoder says of one frame.

    Attributes:
        anomaly_map: float32 [S, S] in [0, 1].
        cls_score: P(abnormal) of the CLS token, in [0, 1].
        information: What there is to see in the frame.
    """

    anomaly_map: FloatArray
    cls_score: float
    information: FrameInformation


@dataclass(frozen=True, eq=False)
class EncodedFrame:
    """A frame halfway through its inspection: what `Inspector.decode_frame` goes on with.

    Attributes:
        stamp: Of the frame.
        frame: uint8 [H, W, 3], RGB; memory that nobody else writes to.
        product: Name of the product it is inspected as.
        encoding: What the encoders say of it.
        watch: Its times so far.
        warnings: What is to be known of the file that it was read from.
    """

    stamp: Stamp
    frame: Frame
    product: str
    encoding: Encoding
    watch: Stopwatch
    warnings: tuple[str, ...] = ()


def geometry_of(
    frame: tuple[int, int], sizes: EngineSizes, parameters: MethodParameters
) -> FrameGeometry:
    """Return the grids of a frame for the engines of one bundle.

    Args:
        frame: Height and width, px.
        parameters: `sam_input`.
    """
    return frame_geometry(
        frame,
        map_size=sizes.clip_image_size,
        sam_size=sizes.sam_image_size,
        feature_size=sizes.sam_feature_size,
        squash_sam=parameters.sam_input == "squashed",
    )


def encode_clip(
    frame: Frame,
    size: int,
    embeddings: TextEmbeddings,
    clip_encoder: Session,
    *,
    picture: Picture | None = None,
    strips: Strips | None = None,
    watch: Stopwatch | None = None,
) -> ClipEncoding:
    """Run the CLIP encoder alone.

    Args:
        frame: uint8 [H, W, 3], RGB.
        size: Side of the encoder's input, px.
        embeddings: float32 [2, embedding_size] of the product.
        picture: The frame as `to_resize_twice` gives it, if it is there already.

    Raises:
        EngineError: The engine failed, or returned values that are not probabilities.
    """
    watch = watch or Stopwatch()
    with watch.stage("squash"):
        image = squash(frame if picture is None else picture, size, strips)
    with watch.stage("frame_information"):
        information = frame_information(frame)
    with watch.stage("clip_encoder"):
        out = run_engine(clip_encoder, {"image": image[None], "text_embeddings": embeddings})
    anomaly_map, cls_score = clip_outputs(out)
    return ClipEncoding(anomaly_map, cls_score, information)


def encode(
    frame: Frame,
    geometry: FrameGeometry,
    embeddings: TextEmbeddings,
    *,
    clip_encoder: Session,
    sam_encoder: Session,
    pool: Executor | None = None,
    needs_sam: Callable[[FloatArray], bool] | None = None,
    strips: Strips | None = None,
    watch: Stopwatch | None = None,
) -> Encoding:
    """Run the encoders on a frame.

    Args:
        frame: uint8 [H, W, 3], RGB.
        embeddings: float32 [2, embedding_size] of the product.
        pool: Runs CLIP beside SAM; without it CLIP comes first.
        needs_sam: Whether an anomaly map needs SAM at all; asked only without a pool.
        strips: Threads that share the resizing; not of `pool`.

    Raises:
        EngineError: An engine failed.
    """
    watch = watch or Stopwatch()
    with watch.stage("frame"):
        # Strips are copied one by one, as they are filtered.
        split = strips is not None and strips.count > 1
        picture = frame if split else to_resize_twice(frame, geometry)

    def clip() -> ClipEncoding:
        return encode_clip(
            frame,
            geometry.map_size,
            embeddings,
            clip_encoder,
            picture=picture,
            strips=strips,
            watch=watch,
        )

    def sam() -> FloatArray | DeviceTensor:
        with watch.stage("fit"):
            squashed = geometry.sam_source != geometry.frame
            source = squash(picture, geometry.map_size, strips) if squashed else picture
            image = fit(source, geometry, strips)
        with watch.stage("sam_encoder"):
            size = np.array(geometry.sam_content, np.int32)
            out = run_engine(
                sam_encoder, {"image": image[None], "image_size": size}, keep=("features",)
            )
        features: FloatArray | DeviceTensor = out["features"]
        return features

    if pool is None:
        seen = clip()
        needed = needs_sam is None or needs_sam(seen.anomaly_map)
        features = sam() if needed else None
    else:
        pending = pool.submit(clip)
        try:
            features = sam()
        finally:
            seen = pending.result()
    return Encoding(geometry, seen.anomaly_map, seen.cls_score, seen.information, features)
