"""What goes wrong only where the runtime is embedded, and every error's status code."""

from __future__ import annotations

from typing import Final

from zeroflaw.capi.abi import Status
from zeroflaw_engines.errors import (
    ArgumentError,
    BackendUnavailableError,
    BundleError,
    EngineError,
    FrameError,
    ProcessError,
    ProductError,
    ReferenceBankError,
    StreamError,
    StreamFullError,
    ZeroflawError,
)


class EmbeddingError(ZeroflawError):
    """A call of the C ABI cannot be carried out.

    Attributes:
        status: What the call returns.
    """

    code = "embedding"

    def __init__(self, cause: str, remedy: str, status: Status = Status.INVALID_ARGUMENT) -> None:
        super().__init__(cause, remedy)
        self.status = status


# From the special to the general: the first that fits counts.
_STATUSES: Final[tuple[tuple[type[ZeroflawError], Status], ...]] = (
    (BackendUnavailableError, Status.BACKEND),
    (BundleError, Status.BUNDLE),
    (ReferenceBankError, Status.BUNDLE),
    (EngineError, Status.ENGINE),
    (FrameError, Status.FRAME),
    (ProductError, Status.PRODUCT),
    (ArgumentError, Status.INVALID_ARGUMENT),
    (ProcessError, Status.ENVIRONMENT),
    (StreamFullError, Status.QUEUE_FULL),
    (StreamError, Status.INTERNAL),
)


def status_of(error: BaseException) -> Status:
    """Return the status code that stands for an error in the C ABI."""
    if isinstance(error, EmbeddingError):
        return error.status
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return status
    return Status.CONFIGURATION if isinstance(error, ZeroflawError) else Status.INTERNAL


def text_of(error: BaseException) -> str:
    """Return cause and remedy of an error, for people."""
    if isinstance(error, ZeroflawError):
        return str(error)
    return f"{type(error).__name__}: {error} -- this is a defect of zeroflaw, please report it"
