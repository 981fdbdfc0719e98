"""Both encoders on several frames of one product, each in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np

from zeroflaw.pipeline.encoding.clip import ClipEncoding, clip_encoding
from zeroflaw.pipeline.encoding.frame import Encoding
from zeroflaw.pipeline.encoding.frame_information import frame_information
from zeroflaw.pipeline.encoding.proposals import Proposals, propose, some_stand
from zeroflaw.pipeline.engine_outputs import run_encoder
from zeroflaw.pipeline.geometry import FloatArray, FrameGeometry, fit, squash
from zeroflaw.pipeline.reference import LoadedBank
from zeroflaw.pipeline.resizing.strips import Strips
from zeroflaw.pipeline.stopwatch import Stopwatch
from zeroflaw.pipeline.view.zones import ZoneLayout
from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings
from zeroflaw_engines.contract import PATCH_TOKENS
from zeroflaw_engines.image_files.frame import Frame
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.sessions.batches import clip_encoder_inputs
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, Tensor
from zeroflaw_engines.sessions.session import Session


def encode_batch(
    frames: Sequence[Frame],
    geometries: Sequence[FrameGeometry],
    embeddings: TextEmbeddings,
    *,
    clip_encoder: Session,
    sam_encoder: Session | None,
    matcher: Session | None,
    proposer: Session | None = None,
    bank: LoadedBank | None,
    parameters: MethodParameters,
    pool: Executor | None,
    needs_sam: Callable[[FloatArray], bool],
    strips: Strips | None,
    zones: ZoneLayout | None,
    watches: Sequence[Stopwatch],
) -> list[Encoding]:
    """Run each encoder once on frames of one product: for re-inspecting what was recorded.

    What is computed of a frame is what `encode` computes, but for the order of sums inside an
    engine. Frames are resized on the host.

    Args:
        frames: Each uint8 [H, W, 3], RGB, of sizes of their own; as many as one call takes.
        geometries: Of the frames, as `watches`.
        sam_encoder: As `encode` takes it.
        proposer: As `encode` takes it; it sees the frames one by one.
        needs_sam: As `encode` takes it: without a pool, SAM encodes those frames that need it.
        watches: Each gets the times of its frame, and whole those of a call that it shares.

    Raises:
        EngineError: An engine failed; there is no result of any frame.
        EngineContractError: There are more frames than one call takes.
    """
    judged = None if zones is None else zones.judged

    def clip() -> list[tuple[ClipEncoding, Proposals | None]]:
        images: list[dict[str, Tensor]] = []
        information = []
        for frame, geometry, watch in zip(frames, geometries, watches, strict=True):
            with watch.stage("squash"):
                image = squash(frame, geometry.map_size, strips)
                images.append(clip_encoder_inputs(clip_encoder.contract, image[None], embeddings))
            with watch.stage("frame_information"):
                information.append(frame_information(frame, judged))
        kept = [spec.name for spec in clip_encoder.contract.outputs if spec.name == PATCH_TOKENS]
        with _stage_of_all(watches, "clip_encoder"):
            outputs = run_encoder(clip_encoder, images, keep=kept)
        encodings = [
            clip_encoding(
                out,
                seen,
                matcher=matcher,
                bank=bank,
                parameters=parameters,
                zones=zones,
                watch=watch,
            )
            for out, seen, watch in zip(outputs, information, watches, strict=True)
        ]
        return [(one, boxes_of(number, one)) for number, one in enumerate(encodings)]

    def boxes_of(number: int, seen: ClipEncoding) -> Proposals | None:
        if proposer is None:
            return None
        with watches[number].stage("box_proposer"):
            boxes = propose(frames[number], geometries[number].frame, proposer, strips)
        return replace(boxes, patch_tokens=seen.patch_tokens, zones=zones)

    def sam(sam_encoder: Session, chosen: Sequence[int]) -> dict[int, FloatArray | DeviceTensor]:
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
    features: dict[int, FloatArray | DeviceTensor] = {}
    if pool is None or sam_encoder is None:
        seen = clip()
        if sam_encoder is not None:
            chosen = [
                number
                for number, (one, proposals) in enumerate(seen)
                if needs_sam(one.anomaly_map) and some_stand(proposals, parameters)
            ]
            features = sam(sam_encoder, chosen)
    else:
        pending = pool.submit(clip)
        try:
            features = sam(sam_encoder, everyone)
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
            proposals=proposals,
        )
        for number, (one, proposals) in enumerate(seen)
    ]


@contextmanager
def _stage_of_all(watches: Sequence[Stopwatch], name: str) -> Iterator[None]:
    with ExitStack() as stages:
        for watch in watches:
            stages.enter_context(watch.stage(name))
        yield
