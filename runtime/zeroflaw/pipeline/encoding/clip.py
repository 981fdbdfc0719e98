"""The CLIP encoder on one frame: its anomaly map, and how far its patches are from good photos."""

from __future__ import annotations

from dataclasses import dataclass

from zeroflaw.pipeline.encoding.frame_information import FrameInformation, frame_information
from zeroflaw.pipeline.engine_outputs import clip_outputs, run_encoder
from zeroflaw.pipeline.geometry import FloatArray, squash
from zeroflaw.pipeline.reference import LoadedBank, fused_map, match, reference_distances
from zeroflaw.pipeline.resizing.on_device import DeviceFrame
from zeroflaw.pipeline.resizing.strips import Picture, Strips
from zeroflaw.pipeline.stopwatch import Stopwatch
from zeroflaw.pipeline.view.zones import ZoneLayout
from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings
from zeroflaw_engines.contract import PATCH_TOKENS
from zeroflaw_engines.errors import EngineError
from zeroflaw_engines.image_files.frame import Frame
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.sessions.batches import clip_encoder_inputs
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, Tensor
from zeroflaw_engines.sessions.session import Outputs, Session


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
    zones: ZoneLayout | None = None,
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
        zones: What is judged of the frame, whose rest is blank: the maps are 0 there.

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
        information = frame_information(frame, None if zones is None else zones.judged)
    # On a GPU nothing crosses to the host but the maps.
    kept = [spec.name for spec in clip_encoder.contract.outputs if spec.name == PATCH_TOKENS]
    with watch.stage("clip_encoder"):
        (out,) = run_encoder(
            clip_encoder,
            [clip_encoder_inputs(clip_encoder.contract, image, embeddings)],
            keep=kept,
        )
    return clip_encoding(
        out,
        information,
        matcher=matcher,
        bank=bank,
        parameters=parameters,
        zones=zones,
        watch=watch,
    )


def clip_encoding(
    out: Outputs,
    information: FrameInformation,
    *,
    matcher: Session | None,
    bank: LoadedBank | None,
    parameters: MethodParameters | None,
    zones: ZoneLayout | None,
    watch: Stopwatch,
) -> ClipEncoding:
    """Check what the CLIP encoder says of one frame, and match its patches where there is a bank.

    Args:
        out: In the form of one image; the rest as `encode_clip` takes it.

    Raises:
        EngineError: As `encode_clip`.
    """
    zero_shot_map, cls_score = clip_outputs(out)
    if zones is not None:
        zero_shot_map = zero_shot_map * zones.at_map(zero_shot_map.shape)
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
        if zones is not None:
            reference_map = reference_map * zones.at_map(reference_map.shape)
    return ClipEncoding(
        fused_map(zero_shot_map, reference_map, parameters),
        cls_score,
        information,
        zero_shot_map,
        reference_map,
        tokens,
    )
