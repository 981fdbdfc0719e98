"""Reference photos of an evaluation: their tokens on disk, and matching with banks of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zeroflaw.pipeline.encoding.clip import encode_clip
from zeroflaw.pipeline.reference import LoadedBank, load_bank, match
from zeroflaw.station.thinning import bank_of_photos, thinned
from zeroflaw_benchmarks.evaluate.cache import read_arrays, write_arrays
from zeroflaw_benchmarks.passive_session import PassiveSession
from zeroflaw_engines.backends import load_session
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings
from zeroflaw_engines.bundle.reference_bank import ReferenceBank
from zeroflaw_engines.contract import (
    CLIP_ENCODER,
    PATCH_TOKENS,
    REFERENCE_MATCHER,
    EngineSizes,
    ReferenceSizes,
)
from zeroflaw_engines.errors import DatasetError, EvaluationError, FrameError, ProductError
from zeroflaw_engines.image_files.frame import Frame
from zeroflaw_engines.sessions.batches import taken_apart
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, Tensor, on_host
from zeroflaw_engines.sessions.session import Outputs, Session
from zeroflaw_export.datasets import Sample, read_sample_image


@dataclass(frozen=True)
class BankSource:
    """Where a reference bank comes from.

    Attributes:
        key: Digest of what is in it.
        product: Whose own bank of the bundle it is; None for one of photos.
        photos: Files of the photos' thinned tokens.
        rows: Rows of each photo in the bank.
    """

    key: str
    product: str | None
    photos: tuple[Path, ...] = ()
    rows: int = 0


@dataclass(frozen=True)
class Matcher:
    """What a process needs to match images with banks.

    Attributes:
        session: Of the engine `reference_matcher`.
        loaded: The banks of the last image, by key: those of one class at a time.
    """

    session: Session
    bundle: Bundle
    loaded: dict[str, LoadedBank] = field(default_factory=dict)

    def banks(self, sources: Sequence[BankSource]) -> list[LoadedBank]:
        """Load the banks that are not loaded yet, and let go of those that are not asked for."""
        for key in set(self.loaded) - {source.key for source in sources}:
            del self.loaded[key]
        for source in sources:
            if source.key not in self.loaded:
                bank = read_bank(source, self.bundle)
                self.loaded[source.key] = load_bank(bank, source.key, self.session)
        return [self.loaded[source.key] for source in sources]

    def write_maps(
        self, tokens: Tensor | DeviceTensor, targets: Sequence[tuple[BankSource, Path]]
    ) -> None:
        """Match the tokens of one image with banks, and write a reference map for each.

        Raises:
            EngineError: The engine failed.
            EvaluationError: A file cannot be read or written.
        """
        banks = self.banks([source for source, _ in targets])
        for bank, (_, target) in zip(banks, targets, strict=True):
            write_arrays(target, reference_map=match(tokens, bank, self.session))


class TokenTap(PassiveSession):
    """A CLIP encoder that remembers the patch tokens of its last call, where they are."""

    def __init__(self, session: Session) -> None:
        super().__init__(session.contract, session.backend)
        self._session = session
        self.tokens: Tensor | DeviceTensor | None = None

    def execute(
        self, inputs: Mapping[str, Tensor | DeviceTensor], *, keep: Collection[str] = ()
    ) -> Outputs:
        """Run the engine, and keep its tokens."""
        outputs = self._session.execute(inputs, keep={*keep, PATCH_TOKENS})
        (of_image,) = taken_apart(self.contract, outputs, 1)
        self.tokens = of_image[PATCH_TOKENS]
        return outputs


@dataclass(frozen=True)
class PhotoJob:
    """A reference photo whose tokens are wanted."""

    photo: Sample
    target: Path


@dataclass(frozen=True)
class PhotoEncoder:
    """What a process needs to take the tokens of photos.

    Attributes:
        embeddings: Of any product: tokens do not depend on them.
    """

    clip_encoder: Session
    sizes: EngineSizes
    embeddings: TextEmbeddings


def load_matcher(bundle: Bundle, *, backend: str, threads: int, device: int = 0) -> Matcher:
    """Load the engine that matches."""
    session = load_session(
        bundle, REFERENCE_MATCHER, backend=backend, threads=threads, device=device
    )
    return Matcher(session, bundle)


def load_photo_encoder(
    bundle: Bundle, product: str, *, backend: str, threads: int, device: int = 0
) -> PhotoEncoder:
    """Load the engine that gives tokens."""
    session = load_session(bundle, CLIP_ENCODER, backend=backend, threads=threads, device=device)
    return PhotoEncoder(session, bundle.manifest.sizes, bundle.text_embeddings(product))


def encode_photo(encoder: PhotoEncoder, job: PhotoJob) -> None:
    """Write the tokens of one photo in the order of their choice.

    A bank takes the first of them, as many as are its share: the choice of fewer is a beginning
    of the choice of all.

    Raises:
        EngineError: The engine failed.
        EvaluationError: The photo cannot be read, or the file not be written.
    """
    try:
        frame = read_sample_image(job.photo)
    except (DatasetError, FrameError) as error:
        raise EvaluationError(
            f"the reference photo {job.photo.image} cannot be used: {error.cause}",
            "mend it or take it out of the train split: other photos are drawn then",
        ) from error
    sizes = encoder.sizes.reference
    assert sizes is not None  # noqa: S101 - whoever draws photos has asked for them
    write_arrays(job.target, tokens=thinned_tokens(frame, encoder, most_rows(sizes)))


def thinned_tokens(frame: Frame, encoder: PhotoEncoder, rows: int) -> NDArray[np.float16]:
    """Return the tokens of a photo, thinned.

    Args:
        frame: uint8 [H, W, 3], RGB.

    Returns:
        float16 [blocks, rows, width].

    Raises:
        EngineError: The engine failed.
    """
    return thinned(tokens_of(frame, encoder), rows)


def tokens_of(frame: Frame, encoder: PhotoEncoder) -> NDArray[np.float32]:
    """Return all patch tokens of a photo, float32 [blocks, tokens, width].

    Raises:
        EngineError: The engine failed.
    """
    seen = encode_clip(
        frame, encoder.sizes.clip_image_size, encoder.embeddings, encoder.clip_encoder
    )
    assert seen.patch_tokens is not None  # noqa: S101 - whoever draws photos has asked for them
    tokens: NDArray[np.float32] = on_host(seen.patch_tokens)
    return tokens


def most_rows(sizes: ReferenceSizes) -> int:
    """Return how many rows of a photo any bank can take."""
    return min(sizes.tokens, sizes.rows)


def photo_bytes(sizes: ReferenceSizes) -> int:
    """Return the bytes of one photo's tokens on disk."""
    return 2 * sizes.blocks * most_rows(sizes) * sizes.width + 4096


def map_bytes(sizes: EngineSizes) -> int:
    """Return the bytes of one reference map on disk."""
    return 4 * sizes.clip_image_size**2 + 4096


def read_bank(source: BankSource, bundle: Bundle) -> ReferenceBank:
    """Read a bank of the bundle, or make it of the photos' tokens.

    Raises:
        EvaluationError: The tokens of a photo are missing or damaged.
        ProductError: The product has lost its bank meanwhile.
    """
    if source.product is None:
        photos = [read_arrays(file, "tokens")[0][:, : source.rows] for file in source.photos]
        return bank_of_photos(photos, bundle.tower)
    bank = bundle.reference_bank(source.product)
    if bank is None:
        raise ProductError(
            f"the product {source.product!r} of {bundle.path} has forgotten its reference photos"
            " since the evaluation began",
            "run the same command again",
        )
    return bank
