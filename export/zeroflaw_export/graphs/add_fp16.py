"""FP16 graphs for a bundle that exists already: from its ONNX files, without PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.manifest import ParityFigure
from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings
from zeroflaw_engines.bundle.variants import added_variants
from zeroflaw_engines.contract import (
    CLIP_ENCODER,
    PATCH_TOKENS,
    REFERENCE_MATCHER,
    SAM_DECODER,
    SAM_ENCODER,
    EngineName,
)
from zeroflaw_engines.sessions.batches import clip_encoder_inputs, stacked, taken_apart
from zeroflaw_engines.sessions.device_tensor import Tensor
from zeroflaw_engines.sessions.onnxruntime_session import OnnxRuntimeSession
from zeroflaw_engines.sessions.session import Session
from zeroflaw_export.graphs.variants import FP16_ENGINES, write_fp16_variant
from zeroflaw_export.parity import checks as parity


def add_fp16_graphs(bundle: Bundle, report: Callable[[str], None] = lambda _: None) -> Bundle:
    """Add the FP16 graphs for TensorRT, each checked against the bundle's FP32 graph.

    Args:
        bundle: The bundle to change; its reference graphs and its identity stay as they are.
        report: Called with each step as it begins.

    Returns:
        The bundle as it is now.

    Raises:
        ExportError: A graph cannot be written in FP16; the bundle is as it was.
        ParityError: A graph differs too much from its reference; the bundle is as it was.
        BundleError: The bundle has such graphs already, or cannot be written.
    """
    with added_variants(bundle) as added:
        for engine in FP16_ENGINES:
            if engine not in bundle.manifest.engines:
                continue  # an older bundle's, that takes no reference banks
            report(f"writing {engine} in FP16")
            entry = bundle.manifest.engines[engine]
            variant = write_fp16_variant(bundle.path, engine, entry, added.directory)
            report(f"checking {engine} against its FP32 graph")
            contract = bundle.contract(engine)
            half = OnnxRuntimeSession(
                added.directory / variant.onnx, contract, precision=variant.precision
            )
            full = OnnxRuntimeSession(bundle.onnx_path(engine), contract)
            added.parity += _check(bundle, engine, half, full)
            half.close()
            full.close()
            added.variants[engine] = variant
    return open_bundle(bundle.path, verify_digests=False)


def _check(bundle: Bundle, engine: EngineName, half: Session, full: Session) -> list[ParityFigure]:
    if engine == CLIP_ENCODER:
        embeddings = bundle.text_embeddings(min(bundle.manifest.products))
        return parity.check_clip_encoder(
            half, clip_reference(full), embeddings, parity.FP16_TOLERANCES
        )
    if engine == REFERENCE_MATCHER:
        return parity.check_reference_matcher(
            half,
            lambda inputs, _: full.execute(inputs)["reference_map"][0],
            parity.FP16_TOLERANCES,
        )
    side = bundle.manifest.sizes.sam_image_size
    if engine == SAM_ENCODER:
        wanted = parity.sam_features(sam_encoder_reference(full), side)
        return parity.check_sam_encoder(half, wanted, parity.FP16_TOLERANCES)
    encoder = OnnxRuntimeSession(bundle.onnx_path(SAM_ENCODER), bundle.contract(SAM_ENCODER))
    features = parity.sam_features(sam_encoder_reference(encoder), side)
    encoder.close()
    assert engine == SAM_DECODER  # noqa: S101 - of FP16_ENGINES
    return parity.check_sam_decoder(
        half, sam_decoder_reference(full), features, parity.FP16_TOLERANCES
    )


def clip_reference(session: Session) -> parity.ClipReference:
    """Make the graph of a CLIP encoder the reference for another."""

    def encode(
        image: NDArray[np.uint8], embeddings: TextEmbeddings
    ) -> tuple[NDArray[np.float32], float, NDArray[np.float32] | None]:
        contract = session.contract
        one = clip_encoder_inputs(contract, image[None], embeddings)
        (got,) = taken_apart(contract, session.execute(stacked(contract, [one])), 1)
        return got["anomaly_map"][0], float(got["image_score"][0]), got.get(PATCH_TOKENS)

    return encode


def sam_encoder_reference(session: Session) -> parity.SamEncoderReference:
    """Make the graph of a SAM encoder the reference for another."""

    def encode(content: NDArray[np.uint8]) -> NDArray[np.float32]:
        one = parity.sam_encoder_inputs(content, session.contract)
        features: NDArray[np.float32] = session.execute(stacked(session.contract, [one]))[
            "features"
        ]
        return features

    return encode


def sam_decoder_reference(session: Session) -> parity.SamDecoderReference:
    """Make the graph of a SAM decoder the reference for another."""

    def decode(
        features: NDArray[np.float32], prompt: dict[str, Tensor]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        got = session.execute({"features": features, **prompt})
        return got["low_res_logits"], got["predicted_iou"]

    return decode
