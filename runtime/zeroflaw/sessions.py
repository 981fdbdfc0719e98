"""The engines that an inspection runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from zeroflaw.pipeline.resizing.on_device import DeviceResizer
from zeroflaw_engines.backends import BACKENDS, BackendChoice, choose_backend, load_session
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.contract import (
    BOX_PROPOSER,
    CLIP_ENCODER,
    ENGINES_OF_REFINER,
    FRAME_RESIZER,
    REFERENCE_MATCHER,
    SINGLE_GRAPH_ENGINES,
    EngineName,
)
from zeroflaw_engines.errors import BundleChangedError, EngineError, EngineMissingError
from zeroflaw_engines.parameters import Refiner
from zeroflaw_engines.sessions.session import Session, zeros_for

# How often a bundle may be replaced by another while its engines load.
_MAX_LOADS: Final = 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sessions:
    """The engines that an inspection runs.

    Attributes:
        clip_encoder: Always run.
        sam_encoder: Run where the refiner needs SAM's features, or beside CLIP; None for refiners
            that run without SAM.
        sam_decoder: Run by the refiner; the same.
        reference_matcher: Run for products with a reference bank; None if none can be inspected.
        frame_resizer: Resizes frames on the GPU; None where the host does.
        box_proposer: Run beside CLIP for the refiner `box_proposals`; None for others.
    """

    clip_encoder: Session
    sam_encoder: Session | None = None
    sam_decoder: Session | None = None
    reference_matcher: Session | None = None
    frame_resizer: Session | None = None
    box_proposer: Session | None = None

    def __iter__(self) -> Iterator[Session]:
        yield from self.models
        if self.frame_resizer is not None:
            yield self.frame_resizer

    @property
    def backend(self) -> str:
        """What runs the models: name, version, device and precision."""
        return ", ".join(dict.fromkeys(session.backend for session in self.models))

    @cached_property
    def resizer(self) -> DeviceResizer | None:
        """What resizes frames on the GPU; None where the host does."""
        return None if self.frame_resizer is None else DeviceResizer(self.frame_resizer)

    def clone(self) -> Sessions:
        """Make others on the same loaded weights, each to be closed by itself: all, or none.

        Raises:
            EngineError: There is not enough memory, or one is closed.
        """
        with ExitStack() as made:

            def cloned(session: Session) -> Session:
                clone = session.clone()
                made.callback(clone.close)
                return clone

            loaded = {one.name: getattr(self, one.name) for one in fields(self)}
            sessions = replace(self, **{name: s and cloned(s) for name, s in loaded.items()})
            made.pop_all()
        return sessions

    def warm_up(self, runs: int) -> None:
        """Prepare every engine and run it as often, on zeros."""
        for session in self:
            session.prepare()
            if session is not self.frame_resizer:  # no frame is of the size that is captured
                session.capture()
            for _ in range(runs - 1):
                session.execute(zeros_for(session.contract))

    def close(self) -> None:
        """Release all of them, also if one fails: its error comes after the others are closed."""
        with ExitStack() as closing:
            for session in self:
                closing.callback(session.close)

    @property
    def models(self) -> tuple[Session, ...]:
        """All but `frame_resizer`: those of the bundle itself."""
        some = (self.sam_encoder, self.sam_decoder, self.reference_matcher, self.box_proposer)
        return (self.clip_encoder, *(session for session in some if session is not None))

    def require(self, refiner: Refiner) -> None:
        """Refuse a refiner whose engines are not among these.

        Raises:
            EngineMissingError: They are not.
        """
        missing = [name for name in ENGINES_OF_REFINER[refiner] if getattr(self, name) is None]
        if missing:
            raise EngineMissingError(
                f"the refiner {refiner} runs {' and '.join(missing)}, which was not loaded",
                "load the engines for that refiner, as `Inspector.load` does",
            )


def load_bundle(
    bundle: str | Path,
    backend: str,
    *,
    refiner: Refiner | None = None,
    precision: str | None = None,
    threads: int = 0,
    model_cache: Path | None = None,
    device: int = 0,
) -> tuple[Bundle, BackendChoice, Sessions]:
    """Open a bundle and load its engines, all of one and the same state of it.

    Args:
        backend: A backend's name, or `auto`.
        refiner: Whose engines are loaded; None takes the one that the bundle records.
        precision: What the engines compute in; None takes that of the backend.
        threads: CPU threads of each engine; 0 takes every core that the process may use.
        model_cache: Where backends that compile at load keep what they compiled.
        device: Number of the GPU, as CUDA counts; CPU backends take 0 alone.

    Raises:
        BundleError: The bundle is missing, damaged, of a newer schema, or is replaced all the time.
        BackendUnavailableError: The backend is unknown, or lacks its driver, the GPU of that
            number or the precision.
        EngineMissingError: The bundle has no engines of the refiner.
        EngineError: An engine cannot be loaded.
    """
    for _ in range(_MAX_LOADS):
        opened = open_bundle(bundle)
        of_banks: tuple[EngineName, ...] = (REFERENCE_MATCHER,) if _has_bank(opened) else ()
        wanted = (CLIP_ENCODER, *engines_of_refiner(opened, refiner), *of_banks)
        choice = choose_backend(backend, precision, bundle=opened, engines=wanted, device=device)
        try:
            sessions = load_sessions(
                opened,
                choice,
                refiner=refiner,
                precision=precision,
                threads=threads,
                model_cache=model_cache,
                device=device,
            )
        except BundleChangedError as error:
            changed = error
        else:
            return opened, choice, sessions
    raise changed


def load_sessions(
    bundle: Bundle,
    choice: BackendChoice,
    *,
    refiner: Refiner | None = None,
    precision: str | None = None,
    threads: int = 0,
    model_cache: Path | None = None,
    device: int = 0,
) -> Sessions:
    """Load the engines of a bundle that a refiner runs: all of them, or none.

    A reference_matcher that cannot be loaded is left out where no product has a bank: a station
    that learns nothing need not have built it. A frame_resizer is loaded on GPUs alone, since
    Pillow is faster on CPUs; where it was not built, the host resizes, and the log says so.

    Args:
        refiner: Whose engines are loaded; None takes the one that the bundle records.
        precision: What they compute in, if it was asked for.
        threads: CPU threads of each engine; 0 takes every core that the process may use.
        model_cache: Where backends that compile at load keep what they compiled.
        device: Number of the GPU, as CUDA counts; CPU backends take 0 alone.

    Raises:
        BackendUnavailableError: The backend lacks its driver or the precision.
        EngineMissingError: The bundle has no engines of the refiner.
        EngineError: An engine cannot be loaded.
    """
    of_refiner = engines_of_refiner(bundle, refiner)
    with ExitStack() as loaded:

        def load(engine: EngineName) -> Session:
            session = load_session(
                bundle,
                engine,
                backend=choice.backend,
                precision=None if engine in SINGLE_GRAPH_ENGINES else precision,
                threads=threads,
                model_cache=model_cache,
                device=device,
            )
            loaded.callback(session.close)
            return session

        def load_matcher() -> Session | None:
            has_bank = _has_bank(bundle)
            if not has_bank and REFERENCE_MATCHER not in bundle.manifest.engines:
                return None
            try:
                return load(REFERENCE_MATCHER)
            except EngineError as error:
                if has_bank:
                    raise
                _log.info("no product has a reference bank, and left out is: %s", error)
                return None

        def load_resizer() -> Session | None:
            if not BACKENDS[choice.backend].on_gpu:
                return None
            try:
                return load(FRAME_RESIZER)
            except EngineError as error:
                _log.warning("frames are resized on the host: %s; %s", error.cause, error.remedy)
                return None

        sessions = Sessions(
            clip_encoder=load(CLIP_ENCODER),
            **{name: load(name) for name in of_refiner},
            reference_matcher=load_matcher(),
            frame_resizer=load_resizer(),
        )
        loaded.pop_all()
    return sessions


def engines_of_refiner(bundle: Bundle, refiner: Refiner | None = None) -> tuple[EngineName, ...]:
    """Return the engines of a bundle that a refiner runs beside the CLIP encoder.

    Args:
        refiner: None takes the one that the bundle records.

    Raises:
        EngineMissingError: The bundle has none of them: it was exported for another refiner.
    """
    recorded = bundle.manifest.method_parameters.refiner
    refiner = refiner or recorded
    engines = ENGINES_OF_REFINER[refiner]
    missing = [name for name in engines if name not in bundle.manifest.engines]
    if missing:
        raise EngineMissingError(
            f"the refiner {refiner} runs {' and '.join(missing)}, and the bundle {bundle.path} was"
            " exported without",
            f"set the refiner to {recorded}, which it was exported for, or export it again with"
            f" `zeroflaw export --refiner {refiner}"
            f"{' --proposals GRAPH.onnx' if BOX_PROPOSER in missing else ''}`",
        )
    return engines


def _has_bank(bundle: Bundle) -> bool:
    return any(product.reference for product in bundle.manifest.products.values())
