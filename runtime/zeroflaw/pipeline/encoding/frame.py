"""Both encoders on one frame, side by side or one after the other."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np

from zeroflaw.loaded_products import LoadedProduct
from zeroflaw.pipeline.encoding.clip import ClipEncoding, encode_clip
from zeroflaw.pipeline.encoding.frame_information import FrameInformation
from zeroflaw.pipeline.encoding.proposals import Proposals, propose, some_stand
from zeroflaw.pipeline.engine_outputs import run_encoder
from zeroflaw.pipeline.geometry import (
    FloatArray,
    FrameGeometry,
    fit,
    squash,
    to_resize_twice,
)
from zeroflaw.pipeline.reference import LoadedBank
from zeroflaw.pipeline.resizing.on_device import DeviceResizer
from zeroflaw.pipeline.resizing.strips import Strips
from zeroflaw.pipeline.stopwatch import Stopwatch
from zeroflaw.pipeline.view.product_view import FrameView
from zeroflaw.pipeline.view.tiles import TilesSeen
from zeroflaw.pipeline.view.zones import ZoneLayout
from zeroflaw.records.stamp import Stamp
from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings
from zeroflaw_engines.image_files.frame import Frame
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, Tensor
from zeroflaw_engines.sessions.session import Session


@dataclass(frozen=True, eq=False)
class Encoding:
    """What the encoders say of one frame.

    Attributes:
        geometry: The frame's grids.
        anomaly_map: float32 [S, S] in [0, 1]: the zero-shot map, fused with the reference map
            where the product has a bank.
        cls_score: P(abnormal) of CLIP's CLS token.
        information: What there is to see in the frame.
        features: float32 [1, C, G, G] of SAM, where its encoder left them; None if that was left
            out.
        zero_shot_map: float32 [S, S] in [0, 1], of the product's texts alone.
        reference_map: float32 [S, S] in [0, 1], from `reference_distances`; None without a bank.
        tiles: In which the encoders saw the frame, whose maps are [h, w] then; None: as a whole.
        proposals: The boxes of the frame, where the refiner runs on such.
    """

    geometry: FrameGeometry
    anomaly_map: FloatArray
    cls_score: float
    information: FrameInformation
    features: FloatArray | DeviceTensor | None
    zero_shot_map: FloatArray
    reference_map: FloatArray | None = None
    tiles: TilesSeen | None = None
    proposals: Proposals | None = None


@dataclass(frozen=True, eq=False)
class EncodedFrame:
    """A frame halfway through its inspection: what `Inspector.decode_frame` goes on with.

    Attributes:
        stamp: Of the frame.
        frame: uint8 [H, W, 3], RGB, as it was handed over; memory that nobody else writes to.
        product: That it is inspected as, with what judges it: a frame ends with what it began
            with.
        encoding: What the encoders say of it.
        watch: Its times so far, ms by stage; `decode_frame` adds to them.
        warnings: What is to be known of the file that it was read from.
        view: How it was looked at; None: as a whole, and all of it.
    """

    stamp: Stamp
    frame: Frame
    product: LoadedProduct
    encoding: Encoding
    watch: Stopwatch
    warnings: tuple[str, ...] = ()
    view: FrameView | None = None


def encode(
    frame: Frame,
    geometry: FrameGeometry,
    embeddings: TextEmbeddings,
    *,
    clip_encoder: Session,
    sam_encoder: Session | None,
    matcher: Session | None = None,
    proposer: Session | None = None,
    bank: LoadedBank | None = None,
    parameters: MethodParameters | None = None,
    pool: Executor | None = None,
    needs_sam: Callable[[FloatArray], bool] | None = None,
    resizer: DeviceResizer | None = None,
    strips: Strips | None = None,
    zones: ZoneLayout | None = None,
    watch: Stopwatch | None = None,
) -> Encoding:
    """Run the encoders on a frame.

    Args:
        frame: uint8 [H, W, 3], RGB.
        embeddings: float32 [2, embedding_size] of the product.
        matcher: As `encode_clip` takes it, with `bank` and `parameters`.
        proposer: The box proposer, if the refiner runs on boxes; it comes after CLIP, and without
            a pool no SAM comes after it if no box stands.
        pool: Runs CLIP beside SAM; without it CLIP comes first.
        sam_encoder: None runs the CLIP encoder alone.
        needs_sam: Whether an anomaly map needs SAM at all; asked only without a pool.
        resizer: Resizes on the device of the encoders; None resizes on the host.
        strips: Threads that share the resizing; not of `pool`.
        zones: What is judged of the frame: the maps are 0 elsewhere.

    Raises:
        EngineError: An engine failed.
    """
    watch = watch or Stopwatch()
    with watch.stage("frame"):
        on_device = None if resizer is None else resizer.upload(frame, geometry)
        # Strips are copied one by one, as they are filtered.
        split = strips is not None and strips.count > 1
        as_it_is = split or on_device is not None
        picture = frame if as_it_is else to_resize_twice(frame, geometry)

    def clip() -> tuple[ClipEncoding, Proposals | None]:
        seen = encode_clip(
            frame,
            geometry.map_size,
            embeddings,
            clip_encoder,
            matcher=matcher,
            bank=bank,
            parameters=parameters,
            picture=picture,
            on_device=on_device,
            strips=strips,
            zones=zones,
            watch=watch,
        )
        if proposer is None:
            return seen, None
        with watch.stage("box_proposer"):
            boxes = propose(picture, geometry.frame, proposer, strips)
        return seen, replace(boxes, patch_tokens=seen.patch_tokens, zones=zones)

    def sam(sam_encoder: Session) -> FloatArray | DeviceTensor:
        with watch.stage("fit"):
            if on_device is None:
                squashed = geometry.sam_source != geometry.frame
                source = squash(picture, geometry.map_size, strips) if squashed else picture
                image: Tensor | DeviceTensor = fit(source, geometry, strips)[None]
            else:
                image = on_device.fit()
        with watch.stage("sam_encoder"):
            size = np.array(geometry.sam_content, np.int32)
            (out,) = run_encoder(
                sam_encoder, [{"image": image, "image_size": size}], keep=("features",)
            )
        features: FloatArray | DeviceTensor = out["features"]
        return features

    features = None
    if pool is None or sam_encoder is None:
        seen, proposals = clip()
        needed = needs_sam is None or needs_sam(seen.anomaly_map)
        if sam_encoder is not None and needed and some_stand(proposals, parameters):
            features = sam(sam_encoder)
    else:
        pending = pool.submit(clip)
        try:
            features = sam(sam_encoder)
        finally:
            seen, proposals = pending.result()
    return Encoding(
        geometry,
        seen.anomaly_map,
        seen.cls_score,
        seen.information,
        features,
        seen.zero_shot_map,
        seen.reference_map,
        proposals=proposals,
    )
