"""The first half of an inspection: both encoders, on one frame or on several in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from zeroflaw.loaded_products import LoadedProduct
from zeroflaw.pipeline.engine_outputs import clip_outputs, run_encoder
from zeroflaw.pipeline.frame_information import FrameInformation, frame_information
from zeroflaw.pipeline.geometry import (
    FloatArray,
    FrameGeometry,
    fit,
    frame_geometry,
    squash,
    to_resize_twice,
)
from zeroflaw.pipeline.reference import LoadedBank, fused_map, match, reference_distances
from zeroflaw.pipeline.resizing.on_device import DeviceFrame, DeviceResizer
from zeroflaw.pipeline.resizing.strips import Picture, Strips
from zeroflaw.pipeline.stopwatch import Stopwatch
from zeroflaw.records.stamp import Stamp
from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings
from zeroflaw_engines.contract import PATCH_TOKENS, EngineSizes
from zeroflaw_engines.errors import EngineError
from zeroflaw_engines.image_files.frame import Frame
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, Tensor
from zeroflaw_engines.sessions.session import Outputs, Session


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
    """

    geometry: FrameGeometry
    anomaly_map: FloatArray
    cls_score: float
    information: FrameInformation
    features: FloatArray | DeviceTensor | None
    zero_shot_map: FloatArray
    reference_map: FloatArray | None = None


@dataclass(frozen=True, eq=False)
class ClipEncoding:
    """What the CLIP encoder says of one frame.

    Attributes:
        anomaly_map: float32 [S, S] in [0, 1], fused as that of `Encoding` is.
        cls_score: P(abnormal) of the CLS token, in [0, 1].
        information: What there is to see in the frame.
        zero_shot_map: float32 [S, S] in [0, 1], of the product's texts alone.
        reference_map: float32 [S, S] in [0, 1], from `reference_distances`; None without a bank.
        patch_tokens: float32 [blocks, tokens, width], where the encoder left them; None if it
            gives none.
    """

    anomaly_map: FloatArray
    cls_score: float
    information: FrameInformation
    zero_shot_map: FloatArray
    reference_map: FloatArray | None = None
    patch_tokens: Tensor | DeviceTensor | None = None


@dataclass(frozen=True, eq=False)
class EncodedFrame:
    """A frame halfway through its inspection: what `Inspector.decode_frame` goes on with.

    Attributes:
        stamp: Of the frame.
        frame: uint8 [H, W, 3], RGB; memory that nobody else writes to.
        product: That it is inspected as, with what judges it: a frame ends with what it began
            with.
        encoding: What the encoders say of it.
        watch: Its times so far, ms by stage; `decode_frame` adds to them.
        warnings: What is to be known of the file that it was read from.
    """

    stamp: Stamp
    frame: Frame
    product: LoadedProduct
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
    matcher: Session | None = None,
    bank: LoadedBank | None = None,
    parameters: MethodParameters | None = None,
    picture: Picture | None = None,
    on_device: DeviceFrame | None = None,
    strips: Strips | None = None,
    watch: Stopwatch | None = None,
) -> ClipEncoding:
    """Run the CLIP encoder, and match its patches where the product has a bank.

    Args:
        frame: uint8 [H, W, 3], RGB.
        size: Side of the encoder's input, px.
        embeddings: float32 [2, embedding_size] of the product.
        matcher: The session of `reference_matcher`; without a bank it is not run.
        bank: Of the product, if it has one.
        parameters: `reference_distance` and `reference_fusion`; default: the published ones.
        picture: The frame as `to_resize_twice` gives it, if it is there already.
        on_device: The frame on the device of the encoder, which resizes it then.

    Raises:
        EngineError: An engine failed, or returned values that are not probabilities, or not
            distances.
    """
    watch = watch or Stopwatch()
    with watch.stage("squash"):
        image = (
            squash(frame if picture is None else picture, size, strips)[None]
            if on_device is None
            else on_device.squash()
        )
    with watch.stage("frame_information"):
        information = frame_information(frame)
    # On a GPU nothing crosses to the host but the maps.
    kept = [spec.name for spec in clip_encoder.contract.outputs if spec.name == PATCH_TOKENS]
    with watch.stage("clip_encoder"):
        (out,) = run_encoder(
            clip_encoder, [{"image": image, "text_embeddings": embeddings}], keep=kept
        )
    return clip_encoding(
        out, information, matcher=matcher, bank=bank, parameters=parameters, watch=watch
    )


def clip_encoding(
    out: Outputs,
    information: FrameInformation,
    *,
    matcher: Session | None,
    bank: LoadedBank | None,
    parameters: MethodParameters | None,
    watch: Stopwatch,
) -> ClipEncoding:
    """Check what the CLIP encoder says of one frame, and match its patches where there is a bank.

    Args:
        out: In the form of one image; the rest as `encode_clip` takes it.

    Raises:
        EngineError: As `encode_clip`.
    """
    zero_shot_map, cls_score = clip_outputs(out)
    tokens = out.get(PATCH_TOKENS)
    if bank is None:
        return ClipEncoding(
            zero_shot_map, cls_score, information, zero_shot_map, patch_tokens=tokens
        )
    if matcher is None or tokens is None:
        raise EngineError(
            "there is a reference bank, and no "
            + ("reference_matcher" if matcher is None else "patch_tokens of the clip_encoder")
            + " to match it with",
            "load an Inspector of the bundle that the bank is of",
        )
    parameters = parameters or MethodParameters()
    with watch.stage("reference_matcher"):
        reference_map = reference_distances(match(tokens, bank, matcher), parameters)
    return ClipEncoding(
        fused_map(zero_shot_map, reference_map, parameters),
        cls_score,
        information,
        zero_shot_map,
        reference_map,
        tokens,
    )


def encode(
    frame: Frame,
    geometry: FrameGeometry,
    embeddings: TextEmbeddings,
    *,
    clip_encoder: Session,
    sam_encoder: Session,
    matcher: Session | None = None,
    bank: LoadedBank | None = None,
    parameters: MethodParameters | None = None,
    pool: Executor | None = None,
    needs_sam: Callable[[FloatArray], bool] | None = None,
    resizer: DeviceResizer | None = None,
    strips: Strips | None = None,
    watch: Stopwatch | None = None,
) -> Encoding:
    """Run the encoders on a frame.

    Args:
        frame: uint8 [H, W, 3], RGB.
        embeddings: float32 [2, embedding_size] of the product.
        matcher: As `encode_clip` takes it, with `bank` and `parameters`.
        pool: Runs CLIP beside SAM; without it CLIP comes first.
        needs_sam: Whether an anomaly map needs SAM at all; asked only without a pool.
        resizer: Resizes on the device of the encoders; None resizes on the host.
        strips: Threads that share the resizing; not of `pool`.

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

    def clip() -> ClipEncoding:
        return encode_clip(
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
            watch=watch,
        )

    def sam() -> FloatArray | DeviceTensor:
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
    return Encoding(
        geometry,
        seen.anomaly_map,
        seen.cls_score,
        seen.information,
        features,
        seen.zero_shot_map,
        seen.reference_map,
    )


def encode_batch(
    frames: Sequence[Frame],
    geometries: Sequence[FrameGeometry],
    embeddings: TextEmbeddings,
    *,
    clip_encoder: Session,
    sam_encoder: Session,
    matcher: Session | None,
    bank: LoadedBank | None,
    parameters: MethodParameters,
    pool: Executor | None,
    needs_sam: Callable[[FloatArray], bool],
    strips: Strips | None,
    watches: Sequence[Stopwatch],
) -> list[Encoding]:
    """Run each encoder once on frames of one product: for re-inspecting what was recorded.

    What is computed of a frame is what `encode` computes, but for the order of sums inside an
    engine. Frames are resized on the host.

    Args:
        frames: Each uint8 [H, W, 3], RGB, of sizes of their own; as many as one call takes.
        geometries: Of the frames, as `watches`.
        needs_sam: As `encode` takes it: without a pool, SAM encodes those frames that need it.
        watches: Each gets the times of its frame, and whole those of a call that it shares.

    Raises:
        EngineError: An engine failed; there is no result of any frame.
        EngineContractError: There are more frames than one call takes.
    """

    def clip() -> list[ClipEncoding]:
        images: list[dict[str, Tensor]] = []
        information = []
        for frame, geometry, watch in zip(frames, geometries, watches, strict=True):
            with watch.stage("squash"):
                image = squash(frame, geometry.map_size, strips)
                images.append({"image": image[None], "text_embeddings": embeddings})
            with watch.stage("frame_information"):
                information.append(frame_information(frame))
        kept = [spec.name for spec in clip_encoder.contract.outputs if spec.name == PATCH_TOKENS]
        with _stage_of_all(watches, "clip_encoder"):
            outputs = run_encoder(clip_encoder, images, keep=kept)
        return [
            clip_encoding(out, seen, matcher=matcher, bank=bank, parameters=parameters, watch=watch)
            for out, seen, watch in zip(outputs, information, watches, strict=True)
        ]

    def sam(chosen: Sequence[int]) -> dict[int, FloatArray | DeviceTensor]:
        images: list[dict[str, Tensor]] = []
        for number in chosen:
            geometry = geometries[number]
            with watches[number].stage("fit"):
                squashed = geometry.sam_source != geometry.frame
                source = frames[number]
                source = squash(source, geometry.map_size, strips) if squashed else source
                size = np.array(geometry.sam_content, np.int32)
                images.append({"image": fit(source, geometry, strips)[None], "image_size": size})
        if not images:
            return {}
        with _stage_of_all([watches[number] for number in chosen], "sam_encoder"):
            outputs = run_encoder(sam_encoder, images, keep=("features",))
        return {number: out["features"] for number, out in zip(chosen, outputs, strict=True)}

    everyone = range(len(frames))
    if pool is None:
        seen = clip()
        features = sam([number for number in everyone if needs_sam(seen[number].anomaly_map)])
    else:
        pending = pool.submit(clip)
        try:
            features = sam(everyone)
        finally:
            seen = pending.result()
    return [
        Encoding(
            geometries[number],
            one.anomaly_map,
            one.cls_score,
            one.information,
            features.get(number),
            one.zero_shot_map,
            one.reference_map,
        )
        for number, one in enumerate(seen)
    ]


@contextmanager
def _stage_of_all(watches: Sequence[Stopwatch], name: str) -> Iterator[None]:
    with ExitStack() as stages:
        for watch in watches:
            stages.enter_context(watch.stage(name))
        yield
