"""The three engines that an inspection runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zeroflaw_engines.backends import BackendChoice, choose_backend, load_session
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.contract import CLIP_ENCODER, SAM_DECODER, SAM_ENCODER, EngineName
from zeroflaw_engines.errors import BundleChangedError
from zeroflaw_engines.sessions.session import Session, zeros_for

# How often a bundle may be replaced by another while its engines load.
_MAX_LOADS: Final = 20


@dataclass(frozen=True)
class Sessions:
    """The three engines that an inspection runs."""

    clip_encoder: Session
    sam_encoder: Session
    sam_decoder: Session

    def __iter__(self) -> Iterator[Session]:
        return iter((self.clip_encoder, self.sam_encoder, self.sam_decoder))

    def warm_up(self, runs: int) -> None:
        """Prepare every engine and run it as often, on zeros."""
        for session in self:
            session.prepare()
            session.capture()
            for _ in range(runs - 1):
                session.execute(zeros_for(session.contract))

    def close(self) -> None:
        """Release all of them."""
        for session in self:
            session.close()


def load_bundle(
    bundle: str | Path,
    backend: str,
    *,
    precision: str | None = None,
    threads: int = 0,
    model_cache: Path | None = None,
) -> tuple[Bundle, BackendChoice, Sessions]:
    """Open a bundle and load its engines, all of one and the same state of it.

    Args:
        backend: A backend's name, or `auto`.
        precision: What the engines compute in; None takes that of the backend.
        threads: CPU threads of each engine; 0 takes every core that the process may use.
        model_cache: Where backends that compile at load keep what they compiled.

    Raises:
        BundleError: The bundle is missing, damaged, of a newer schema, or is replaced all the time.
        BackendUnavailableError: The backend is unknown, or lacks its driver or the precision.
        EngineError: An engine cannot be loaded.
    """
    for _ in range(_MAX_LOADS):
        opened = open_bundle(bundle)
        choice = choose_backend(backend, precision, bundle=opened)
        try:
            sessions = load_sessions(
                opened, choice, precision=precision, threads=threads, model_cache=model_cache
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
    precision: str | None = None,
    threads: int = 0,
    model_cache: Path | None = None,
) -> Sessions:
    """Load the engines of a bundle: all of them, or none.

    Args:
        precision: What they compute in, if it was asked for.
        threads: CPU threads of each engine; 0 takes every core that the process may use.
        model_cache: Where backends that compile at load keep what they compiled.

    Raises:
        BackendUnavailableError: The backend lacks its driver or the precision.
        EngineError: An engine cannot be loaded.
    """
    with ExitStack() as loaded:

        def load(engine: EngineName) -> Session:
            session = load_session(
                bundle,
                engine,
                backend=choice.backend,
                precision=precision,
                threads=threads,
                model_cache=model_cache,
            )
            loaded.callback(session.close)
            return session

        sessions = Sessions(
            clip_encoder=load(CLIP_ENCODER),
            sam_encoder=load(SAM_ENCODER),
            sam_decoder=load(SAM_DECODER),
        )
        loaded.pop_all()
    return sessions
