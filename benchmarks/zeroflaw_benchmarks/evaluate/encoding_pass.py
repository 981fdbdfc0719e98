"""Pass 1 of an evaluation: truths, and both encoders once for every image, kept on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from zeroflaw.pipeline.encoding import Encoding, encode, geometry_of
from zeroflaw.pipeline.frame_information import FrameInformation
from zeroflaw.pipeline.geometry import BoolArray
from zeroflaw_benchmarks.evaluate.cache import digest_of, read_arrays, write_arrays
from zeroflaw_engines.backends import load_session
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings
from zeroflaw_engines.contract import CLIP_ENCODER, SAM_ENCODER, EngineSizes
from zeroflaw_engines.errors import DatasetError, FrameError
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
        target: File for the encoding.
    """

    sample: Sample
    product: str
    target: Path


@dataclass(frozen=True)
class Encoders:
    """What a process needs to encode."""

    clip_encoder: Session
    sam_encoder: Session
    sizes: EngineSizes
    parameters: MethodParameters
    embeddings: dict[str, TextEmbeddings]


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
) -> Encoders:
    """Load the engines of this pass."""
    load = partial(load_session, bundle, backend=backend, threads=threads)
    return Encoders(
        clip_encoder=load(CLIP_ENCODER),
        sam_encoder=load(SAM_ENCODER),
        sizes=bundle.manifest.sizes,
        parameters=parameters,
        embeddings={name: bundle.text_embeddings(name) for name in products},
    )


def encode_sample(encoders: Encoders, job: EncodingJob) -> Skipped | None:
    """Encode one image into its file, or say why the image cannot be read.

    Raises:
        EngineError: An engine failed.
        EvaluationError: The file cannot be written.
    """
    try:
        frame = read_sample_image(job.sample)
    except (DatasetError, FrameError) as error:
        return Skipped(job.sample.image, error.cause)
    geometry = geometry_of((frame.shape[0], frame.shape[1]), encoders.sizes, encoders.parameters)
    encoding = encode(
        frame,
        geometry,
        encoders.embeddings[job.product],
        clip_encoder=encoders.clip_encoder,
        sam_encoder=encoders.sam_encoder,
    )
    assert encoding.features is not None  # noqa: S101 - `encode` was not told to leave SAM out
    write_arrays(
        job.target,
        frame=np.array(geometry.frame),
        cls_score=np.array(encoding.cls_score),
        information=np.array(dataclasses.astuple(encoding.information)),
        map_max=encoding.anomaly_map.max(),
        anomaly_map=encoding.anomaly_map,
        features=on_host(encoding.features),
    )
    return None


def read_encoding(path: Path, sizes: EngineSizes, parameters: MethodParameters) -> Encoding:
    """Read an encoding as it was made; nothing is rounded.

    Raises:
        EvaluationError: The file is missing or damaged.
    """
    frame, score, information, anomaly_map, features = read_arrays(
        path, "frame", "cls_score", "information", "anomaly_map", "features"
    )
    geometry = geometry_of((int(frame[0]), int(frame[1])), sizes, parameters)
    seen = FrameInformation(*map(float, information))
    return Encoding(geometry, anomaly_map, float(score), seen, features, anomaly_map)


def encoding_variant(backend: str, parameters: MethodParameters, embeddings: TextEmbeddings) -> str:
    """Digest all that an encoding depends on beside the image and the bundle's engines.

    Args:
        backend: `Session.backend`, with the version.
        parameters: `sam_input` changes what SAM is given.
        embeddings: Of the product; a product's sentences may change under its name.
    """
    return digest_of(backend, parameters.sam_input, embeddings.tobytes())


def encoding_bytes(sizes: EngineSizes) -> int:
    """Return the bytes of one encoding on disk."""
    features = sizes.sam_feature_channels * sizes.sam_feature_size**2
    return 4 * (sizes.clip_image_size**2 + features) + 4096
