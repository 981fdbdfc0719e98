"""Image scores of photos with the engines that they take: those that an Inspector gives, no SAM."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from zeroflaw.pipeline.encoding.clip import encode_clip
from zeroflaw.pipeline.encoding.frame_information import frame_information
from zeroflaw.pipeline.geometry import FloatArray
from zeroflaw.pipeline.reference import (
    LoadedBank,
    fused_score,
    load_bank,
    match,
    reference_distances,
)
from zeroflaw.pipeline.scoring import image_score
from zeroflaw.records.decision import blind_reason
from zeroflaw_engines.backends import choose_backend, load_session
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings
from zeroflaw_engines.bundle.reference_bank import ReferenceBank
from zeroflaw_engines.contract import CLIP_ENCODER, REFERENCE_MATCHER, EngineName
from zeroflaw_engines.errors import FrameError
from zeroflaw_engines.image_files.frame import Frame
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.sessions.device_tensor import on_host
from zeroflaw_engines.sessions.session import Session


@dataclass(frozen=True, eq=False)
class PhotoEncoding:
    """What the CLIP encoder says of one photo.

    Attributes:
        zero_shot: The image score without a bank, in [0, 1].
        tokens: float32 [blocks, tokens, width], L2-normalised; None if the encoder gives none.
    """

    zero_shot: float
    tokens: FloatArray | None


class PhotoScore(NamedTuple):
    """The image score of a photo, and what its reference map is; all in [0, 1].

    Attributes:
        score: The image score.
        highest: The highest value of the reference map, 0 without a bank.
        mean: The mean of the reference map, 0 without a bank.
    """

    score: float
    highest: float
    mean: float


@dataclass(frozen=True, eq=False)
class PhotoScorer:
    """The engines that image scores take, and what they are given.

    Attributes:
        matcher: That of the reference matcher; None without a bank.
        precision: What both compute in.
        size: Side of the CLIP encoder's input, px.
        embeddings: float32 [2, embedding_size] of the product.
        parameters: Those that the scores depend on.
    """

    clip_encoder: Session
    matcher: Session | None
    precision: str
    size: int
    embeddings: TextEmbeddings
    parameters: MethodParameters

    @property
    def backend(self) -> str:
        """What runs the CLIP encoder, as its session describes itself."""
        return self.clip_encoder.backend

    def encode(self, frame: Frame) -> PhotoEncoding:
        """Run the CLIP encoder on a frame, uint8 RGB [H, W, 3]."""
        seen = encode_clip(frame, self.size, self.embeddings, self.clip_encoder)
        score = image_score(seen.cls_score, seen.zero_shot_map, self.parameters)
        tokens = seen.patch_tokens
        return PhotoEncoding(score, None if tokens is None else on_host(tokens))

    def load(self, bank: ReferenceBank, digest: str = "") -> LoadedBank | None:
        """Put a bank where the matcher reads it; None if there is no matcher."""
        return None if self.matcher is None else load_bank(bank, digest, self.matcher)

    def score(self, seen: PhotoEncoding, bank: LoadedBank | None) -> PhotoScore:
        """Score a photo that was encoded."""
        if bank is None or self.matcher is None or seen.tokens is None:
            return PhotoScore(seen.zero_shot, 0.0, 0.0)
        distances = reference_distances(match(seen.tokens, bank, self.matcher), self.parameters)
        score = fused_score(seen.zero_shot, distances, self.parameters)
        return PhotoScore(score, float(distances.max()), float(distances.mean()))


@contextmanager
def photo_scorer(
    bundle: Bundle,
    embeddings: TextEmbeddings,
    parameters: MethodParameters,
    *,
    with_bank: bool,
    backend: str,
    precision: str | None,
    threads: int,
    device: int = 0,
) -> Iterator[PhotoScorer]:
    """Load what image scores take: the CLIP encoder, and the reference matcher for a bank.

    Args:
        embeddings: float32 [2, embedding_size] of the product.
        precision: What they compute in; default: that of the backend.
        threads: CPU threads; 0 takes every core.
        device: Number of the GPU, as CUDA counts; CPU backends take 0 alone.

    Raises:
        EngineError: An engine cannot be loaded.
    """
    engines: tuple[EngineName, ...] = (CLIP_ENCODER, *([REFERENCE_MATCHER] if with_bank else ()))
    choice = choose_backend(backend, precision, bundle=bundle, engines=engines, device=device)
    with ExitStack() as loaded:

        def load(engine: EngineName) -> Session:
            session = load_session(
                bundle,
                engine,
                backend=choice.backend,
                precision=precision,
                threads=threads,
                device=device,
            )
            loaded.callback(session.close)
            return session

        yield PhotoScorer(
            load(CLIP_ENCODER),
            load(REFERENCE_MATCHER) if with_bank else None,
            choice.precision,
            bundle.manifest.sizes.clip_image_size,
            embeddings,
            parameters,
        )


def require_sight(frame: Frame, parameters: MethodParameters) -> None:
    """Refuse a frame that an inspection would hold since it shows nothing.

    Raises:
        FrameError: It is blind.
    """
    blind = blind_reason(frame_information(frame), parameters)
    if blind is not None:
        raise FrameError(f"it shows nothing that could be judged: {blind.text}", "leave it out")
