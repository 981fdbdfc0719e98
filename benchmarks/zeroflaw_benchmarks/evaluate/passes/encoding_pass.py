"""Pass 1 of an evaluation: truths, and both encoders once for every image, kept on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from zeroflaw.pipeline.encoding.clip import encode_clip
from zeroflaw.pipeline.encoding.frame import Encoding, encode
from zeroflaw.pipeline.encoding.frame_information import FrameInformation
from zeroflaw.pipeline.geometry import BoolArray, FloatArray, geometry_of
from zeroflaw.pipeline.reference import fused_map, reference_distances
from zeroflaw_benchmarks.evaluate.cache import digest_of, read_arrays, write_arrays
from zeroflaw_benchmarks.evaluate.passes.reference_pass import (
    BankSource,
    Matcher,
    TokenTap,
    load_matcher,
)
from zeroflaw_engines.backends import load_session
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings
from zeroflaw_engines.contract import CLIP_ENCODER, SAM_ENCODER, EngineSizes
from zeroflaw_engines.errors import DatasetError, FrameError
from zeroflaw_engines.image_files.frame import Frame
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.sessions.device_tensor import on_host
from zeroflaw_engines.sessions.session import Session
from zeroflaw_export.datasets import (
    Sample,
    Skipped,
    mask_at_size,
    read_sample_image,
    read_sample_mask,
    sample_image_digest,
)


@dataclass(frozen=True)
class Truth:
    """The truth of one sample, and the digest of its image.

    Attributes:
        image_digest: `sample_image_digest`.
        bits: Packed bits of bool [size, size], row by row.
        size: Side, px.
    """

    image_digest: str
    bits: bytes
    size: int

    def mask(self) -> BoolArray:
        """Unpack the mask, bool [size, size], True where defective."""
        bits = np.frombuffer(self.bits, np.uint8)
        pixels = np.unpackbits(bits, count=self.size**2).view(np.bool_)
        return pixels.reshape(self.size, self.size)


@dataclass(frozen=True)
class EncodingJob:
    """One image to encode.

    Attributes:
        sample: Whose image.
        product: As which it is inspected.
        encoding: File of the encoding; one that is there is left as it is.
        references: Banks to match the image with, and the files for the reference maps.
    """

    sample: Sample
    product: str
    encoding: Path
    references: tuple[tuple[BankSource, Path], ...] = ()


@dataclass(frozen=True)
class Encoders:
    """What a process needs to encode; without banks there is nothing that matches.

    Attributes:
        sam_encoder: None where nothing takes SAM's features.
    """

    clip_encoder: Session
    sam_encoder: Session | None
    matcher: Matcher | None
    sizes: EngineSizes
    parameters: MethodParameters
    embeddings: dict[str, TextEmbeddings]


@dataclass(frozen=True)
class CachedMaps:
    """The maps of one image as the cache holds them.

    Attributes:
        frame: Height and width, px.
        zero_shot: float32 [S, S] in [0, 1].
        reference: float32 [S, S] in [0, 1], after `reference_distances`; None without a bank.
        anomaly: float32 [S, S] in [0, 1]: the two fused.
    """

    frame: tuple[int, int]
    zero_shot: FloatArray
    reference: FloatArray | None
    anomaly: FloatArray


def read_truth(size: int, sample: Sample) -> Truth | Skipped:
    """Read a sample's mask and image, so that what is damaged is known before any encoding."""
    try:
        digest = sample_image_digest(sample)
        height, width = read_sample_image(sample).shape[:2]
        mask = read_sample_mask(sample, (height, width))
    except (DatasetError, FrameError) as error:
        return Skipped(sample.image, error.cause)
    except OSError as error:
        return Skipped(sample.image, f"{sample.image} cannot be read: {error}")
    return Truth(digest, np.packbits(mask_at_size(mask, size)).tobytes(), size)


def load_encoders(
    bundle: Bundle,
    products: Sequence[str],
    parameters: MethodParameters,
    *,
    backend: str,
    threads: int,
    device: int = 0,
    with_features: bool = True,
    with_banks: bool = False,
) -> Encoders:
    """Load the engines of this pass; SAM's encoder only if its features are wanted."""
    load = partial(load_session, bundle, backend=backend, threads=threads, device=device)
    matcher = partial(load_matcher, bundle, backend=backend, threads=threads, device=device)
    return Encoders(
        clip_encoder=load(CLIP_ENCODER),
        sam_encoder=load(SAM_ENCODER) if with_features else None,
        matcher=matcher() if with_banks else None,
        sizes=bundle.manifest.sizes,
        parameters=parameters,
        embeddings={name: bundle.text_embeddings(name) for name in products},
    )


def encode_sample(encoders: Encoders, job: EncodingJob) -> Skipped | None:
    """Encode one image into its files, or say why the image cannot be read.

    CLIP runs once, whatever the number of banks; SAM only where there is no encoding yet.

    Raises:
        EngineError: An engine failed.
        EvaluationError: The file cannot be written.
    """
    try:
        frame = read_sample_image(job.sample)
    except (DatasetError, FrameError) as error:
        return Skipped(job.sample.image, error.cause)
    embeddings = encoders.embeddings[job.product]
    tap = TokenTap(encoders.clip_encoder)
    clip_encoder = tap if job.references else encoders.clip_encoder
    if job.encoding.exists():
        encode_clip(frame, encoders.sizes.clip_image_size, embeddings, clip_encoder)
    else:
        _encode_whole(frame, embeddings, clip_encoder, encoders, job.encoding)
    if encoders.matcher is not None and tap.tokens is not None:
        encoders.matcher.write_maps(tap.tokens, job.references)
    return None


def read_encoding(
    path: Path, reference: Path | None, sizes: EngineSizes, parameters: MethodParameters
) -> Encoding:
    """Read an encoding as it was made; nothing is rounded.

    Args:
        reference: File of the image's reference map; None without a bank.
        parameters: `sam_input`, and how the maps are fused.

    Raises:
        EvaluationError: A file is missing or damaged.
    """
    maps = read_maps(path, reference, parameters)
    score, information, features = read_arrays(path, "cls_score", "information", "features")
    return Encoding(
        geometry=geometry_of(maps.frame, sizes, parameters),
        anomaly_map=maps.anomaly,
        cls_score=float(score),
        information=FrameInformation(*map(float, information)),
        features=features if features.size else None,
        zero_shot_map=maps.zero_shot,
        reference_map=maps.reference,
    )


def read_maps(path: Path, reference: Path | None, parameters: MethodParameters) -> CachedMaps:
    """Read the maps of an encoding, and fuse them.

    Args:
        reference: File of the image's reference map; None without a bank.
        parameters: How the maps are fused.

    Raises:
        EvaluationError: A file is missing or damaged.
    """
    size, zero_shot = read_arrays(path, "frame", "zero_shot_map")
    frame = int(size[0]), int(size[1])
    if reference is None:
        return CachedMaps(frame, zero_shot, None, zero_shot)
    distances = reference_distances(read_arrays(reference, "reference_map")[0], parameters)
    return CachedMaps(frame, zero_shot, distances, fused_map(zero_shot, distances, parameters))


def encoding_variant(
    backend: str,
    parameters: MethodParameters,
    embeddings: TextEmbeddings,
    *,
    with_features: bool = True,
) -> str:
    """Digest all that an encoding depends on beside the image and the bundle's engines.

    Args:
        backend: `Session.backend`, with the version.
        parameters: `sam_input` changes what SAM is given.
        embeddings: Of the product; a product's sentences may change under its name.
        with_features: Whether SAM's features are in it.
    """
    without = () if with_features else ("without features of SAM",)
    return digest_of(backend, parameters.sam_input, embeddings.tobytes(), *without)


def encoding_bytes(sizes: EngineSizes, *, with_features: bool = True) -> int:
    """Return the bytes of one encoding on disk."""
    features = sizes.sam_feature_channels * sizes.sam_feature_size**2 if with_features else 0
    return 4 * (sizes.clip_image_size**2 + features) + 4096


def _encode_whole(
    frame: Frame,
    embeddings: TextEmbeddings,
    clip_encoder: Session,
    encoders: Encoders,
    target: Path,
) -> None:
    geometry = geometry_of((frame.shape[0], frame.shape[1]), encoders.sizes, encoders.parameters)
    encoding = encode(
        frame,
        geometry,
        embeddings,
        clip_encoder=clip_encoder,
        sam_encoder=encoders.sam_encoder,
    )
    none = np.empty(0, np.float32)
    write_arrays(
        target,
        frame=np.array(geometry.frame),
        cls_score=np.array(encoding.cls_score),
        information=np.array(dataclasses.astuple(encoding.information)),
        map_max=encoding.anomaly_map.max(),
        zero_shot_map=encoding.anomaly_map,
        features=none if encoding.features is None else on_host(encoding.features),
    )
