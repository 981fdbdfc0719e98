"""Photos of a product that has settings, judged by what an inspection of it decides on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from zeroflaw.frame_pipeline import FramePipeline
from zeroflaw.inspection import Inspection
from zeroflaw.loaded_products import LoadedProduct
from zeroflaw.pipeline.encoding.clip import encode_clip
from zeroflaw.pipeline.encoding.frame import EncodedFrame
from zeroflaw.pipeline.encoding.frame_information import FrameInformation, frame_information
from zeroflaw.pipeline.geometry import BoolArray, FloatArray
from zeroflaw.pipeline.intake import TakenFrame
from zeroflaw.pipeline.reference import LoadedBanks, load_banks
from zeroflaw.pipeline.view.product_view import FrameView, ProductView, product_view
from zeroflaw.pipeline.view.tiled_encoding import judged_tiles
from zeroflaw.records.decision import blind_reason
from zeroflaw.records.provenance import provenance_of
from zeroflaw.records.stamp import new_stamp
from zeroflaw.sessions import Sessions, engines_of_refiner, load_sessions
from zeroflaw_engines.backends import choose_backend, load_session
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.reference_bank import ReferenceBank
from zeroflaw_engines.contract import (
    CLIP_ENCODER,
    REFERENCE_MATCHER,
    EngineName,
)
from zeroflaw_engines.errors import EngineError, FrameError
from zeroflaw_engines.image_files.frame import Frame
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.sessions.device_tensor import on_host

# Higher than any decision score, so that what is asked for is the score alone.
_NO_THRESHOLD = 1.0


@dataclass(frozen=True)
class JudgedView:
    """What an inspection says of a photo; all in [0, 1].

    Attributes:
        score: The decision score.
        image_score: The image score.
        highest: The highest value of the reference map, 0 without a bank.
        mean: Its mean over what is judged.
    """

    score: float
    image_score: float
    highest: float
    mean: float


@dataclass(frozen=True, eq=False)
class TilePicture:
    """What CLIP is shown of a photo.

    Attributes:
        number: Of the tile, row by row from 0.
        picture: uint8 [h, w, 3], RGB.
        judged: bool [h, w], what counts of it; None: all.
    """

    number: int
    picture: Frame
    judged: BoolArray | None


@dataclass(frozen=True, eq=False)
class ViewScorer:
    """The engines of whole inspections of one product, whose banks may be any.

    Attributes:
        product: Without a bank.
        view: How its frames are looked at.
        precision: What the engines compute in.
    """

    sessions: Sessions
    pipeline: FramePipeline
    product: LoadedProduct
    view: ProductView
    parameters: MethodParameters
    size: int
    precision: str

    @property
    def backend(self) -> str:
        """What runs the CLIP encoder, as its session describes itself."""
        return self.sessions.clip_encoder.backend

    def load(self, bank: ReferenceBank) -> LoadedBanks:
        """Put banks where the matcher reads them.

        Raises:
            EngineError: The matcher was not loaded.
        """
        matcher = self.sessions.reference_matcher
        if matcher is None:
            raise EngineError(
                f"there is a reference bank, and no {REFERENCE_MATCHER}", "load it with the bank"
            )
        return load_banks(bank, "", matcher)

    def inspect(self, frame: Frame, banks: LoadedBanks | None) -> Inspection:
        """Inspect a frame, uint8 RGB [H, W, 3], with banks in place of the product's own.

        Raises:
            FrameError: An inspection would hold it since it cannot be judged.
        """
        encoded = self._encoded(frame, banks)
        return self.pipeline.decode(encoded, trace=False)

    def judge(self, frame: Frame, banks: LoadedBanks) -> JudgedView:
        """Inspect a photo, as `inspect`, and say how far it is from the banks."""
        encoded = self._encoded(frame, banks)
        zones = None if encoded.view is None else encoded.view.zones
        seen = self.pipeline.decode(encoded, trace=False)
        scores = seen.decision_score, seen.image_score
        distances = encoded.encoding.reference_map
        if distances is None:
            return JudgedView(*scores, 0.0, 0.0)
        judged = distances if zones is None else distances[zones.at_map(distances.shape)]
        return JudgedView(*scores, float(distances.max()), float(judged.mean()))

    def pictures(self, frame: Frame) -> Iterator[TilePicture]:
        """Give what CLIP is shown of a photo: each tile that counts, row by row.

        Raises:
            FrameError: As `inspect`.
        """
        seen = require_view(self.view, frame, self.parameters)
        for number in banked_tiles(self.view):
            window = (slice(None), slice(None)) if seen.grid is None else seen.grid.windows[number]
            judged = None if seen.zones is None else seen.zones.judged[window]
            yield TilePicture(number, seen.seen[window], judged)

    def tokens(self, picture: Frame) -> FloatArray:
        """Return the patch tokens of a picture, float32 [blocks, tokens, width], L2-normalised.

        Raises:
            EngineError: The encoder gives none.
        """
        seen = encode_clip(picture, self.size, self.product.embeddings, self.sessions.clip_encoder)
        if seen.patch_tokens is None:
            raise EngineError(f"{CLIP_ENCODER} gives no patch tokens", "export the bundle again")
        return on_host(seen.patch_tokens)

    def _encoded(self, frame: Frame, banks: LoadedBanks | None) -> EncodedFrame:
        product = LoadedProduct(**{**vars(self.product), "banks": banks})
        encoded = self.pipeline.encode(lambda: TakenFrame(frame, ()), product, new_stamp())
        _require_judged(encoded.view, encoded.encoding.information, self.parameters)
        return encoded


@contextmanager
def view_scorer(
    bundle: Bundle,
    product: str,
    parameters: MethodParameters,
    *,
    with_bank: bool,
    backend: str,
    precision: str | None,
    threads: int,
    device: int = 0,
) -> Iterator[ViewScorer]:
    """Load what inspections of a product that has settings take.

    Args:
        product: A name in the bundle's manifest.
        precision: What they compute in; default: that of the backend.
        threads: CPU threads; 0 takes every core.
        device: Number of the GPU, as CUDA counts; CPU backends take 0 alone.

    Raises:
        SettingsError: The settings leave nothing to judge, or ask for too many tiles.
        BundleDamagedError: The reference photo of the alignment cannot be read.
        EngineError: An engine cannot be loaded.
    """
    settings = bundle.manifest.products[product].settings
    view = product_view(settings, bundle)
    if view is None:
        raise EngineError(f"product {product!r} has no settings", "score it as a whole")
    of_bank: tuple[EngineName, ...] = (REFERENCE_MATCHER,) if with_bank else ()
    engines = (CLIP_ENCODER, *engines_of_refiner(bundle, parameters.refiner), *of_bank)
    choice = choose_backend(backend, precision, bundle=bundle, engines=engines, device=device)
    with closing(
        load_sessions(
            bundle,
            choice,
            refiner=parameters.refiner,
            precision=precision,
            threads=threads,
            device=device,
        )
    ) as sessions:
        if with_bank and sessions.reference_matcher is None:
            # Left out since no product has a bank yet: say why it cannot be loaded.
            load_session(
                bundle, REFERENCE_MATCHER, backend=choice.backend, precision=precision,
                threads=threads, device=device,
            ).close()  # fmt: skip
        loaded = LoadedProduct(
            name=product,
            embeddings=bundle.bank[product],
            banks=None,
            view=view,
            settings=settings,
            threshold=_NO_THRESHOLD,
            threshold_warnings=(),
            warnings=(),
            provenance=provenance_of(bundle, product, parameters, sessions.backend),
        )
        sizes = bundle.manifest.sizes
        with closing(
            FramePipeline(sessions, sizes, parameters, side_by_side=False, threads=threads)
        ) as pipeline:
            yield ViewScorer(
                sessions, pipeline, loaded, view, parameters, sizes.clip_image_size,
                choice.precision,
            )  # fmt: skip


def banked_tiles(view: ProductView) -> tuple[int, ...]:
    """Return the tiles whose patches are learned, row by row from 0; (0,) for a whole frame."""
    return (0,) if view.grid is None else tuple(judged_tiles(view.grid, view.zones))


def tiles_of_banks(view: ProductView) -> tuple[int, ...]:
    """Return the tiles that get a bank each; none of a product with one bank for all."""
    per_tile = view.grid is not None and view.grid.tiles.banks == "per_tile"
    return banked_tiles(view) if per_tile else ()


def require_view(view: ProductView, frame: Frame, parameters: MethodParameters) -> FrameView:
    """Look at a photo as an inspection does; no engine is needed.

    Raises:
        FrameError: An inspection would hold it since it cannot be judged.
    """
    seen = view.look(frame)
    if seen.held is None:
        judged = None if seen.zones is None else seen.zones.judged
        _require_judged(seen, frame_information(seen.seen, judged), parameters)
    else:
        _refuse(seen.held.text)
    return seen


def _require_judged(
    view: FrameView | None, information: FrameInformation, parameters: MethodParameters
) -> None:
    held = (None if view is None else view.held) or blind_reason(information, parameters)
    if held is not None:
        _refuse(held.text)


def _refuse(text: str) -> None:
    raise FrameError(f"it cannot be judged: {text}", "leave it out")
