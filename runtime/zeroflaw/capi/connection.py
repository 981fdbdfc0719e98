"""The functions that the C library calls, as C function pointers."""

from __future__ import annotations

import ctypes
import functools
import itertools
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from zeroflaw.capi.abi import (
    ABI_VERSION,
    Config,
    FrameStruct,
    HealthStruct,
    Status,
)
from zeroflaw.capi.configuration import configuration_of, decoded, read_configuration
from zeroflaw.capi.errors import EmbeddingError, status_of, text_of
from zeroflaw.capi.frames import request_of
from zeroflaw.capi.hosted import HostedInspector
from zeroflaw.capi.views import OutcomeView, json_of
from zeroflaw_engines.process.fork_gate import fork_gate
from zeroflaw_engines.version import __version__

_HANDLE: Final = ctypes.c_uint64
_OUT_NUMBER: Final = ctypes.POINTER(ctypes.c_uint64)
_JSON: Final = (ctypes.c_void_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_size_t))

# `Functions` in runtime/c/src/interpreter.hpp, in the same order.
_SIGNATURES: Final[dict[str, tuple[Any, ...]]] = {
    "create": (ctypes.POINTER(Config), _OUT_NUMBER),
    "create_from_file": (ctypes.c_char_p, _OUT_NUMBER),
    "clone": (_HANDLE, _OUT_NUMBER),
    "destroy": (_HANDLE,),
    "warm_up": (_HANDLE, ctypes.c_int32),
    "inspect": (_HANDLE, ctypes.POINTER(FrameStruct), _OUT_NUMBER),
    "submit": (_HANDLE, ctypes.POINTER(FrameStruct), _OUT_NUMBER),
    "poll": (_HANDLE, ctypes.c_double, _OUT_NUMBER),
    "view": (_HANDLE, ctypes.c_void_p),
    "release": (_HANDLE,),
    "inspection_json": (_HANDLE, *_JSON),
    "describe": (_HANDLE, *_JSON),
    "health": (_HANDLE, ctypes.POINTER(HealthStruct)),
    "close_all": (),
    "frame_sha256": (_HANDLE, ctypes.POINTER(ctypes.c_char_p)),
    "before_fork": (),
    "after_fork": (),
    "reload": (_HANDLE,),
}
_PROTOTYPES: Final = {
    name: ctypes.CFUNCTYPE(ctypes.c_int32, *arguments) for name, arguments in _SIGNATURES.items()
}


class FunctionTable(ctypes.Structure):
    """`Functions` of the C library."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        *((name, prototype) for name, prototype in _PROTOTYPES.items()),
    )


_Entry = TypeVar("_Entry")


class HandleTable(Generic[_Entry]):
    """Things by number; a number is never used twice, so a stale handle is always told."""

    def __init__(self, thing: str, ended: str, numbers: Callable[[], int]) -> None:
        """Make an empty table of `thing`s, which end by being `ended`."""
        self._thing = thing
        self._ended = ended
        self._numbers = numbers
        self._entries: dict[int, _Entry] = {}
        self._lock = threading.Lock()

    def add(self, entry: _Entry) -> int:
        """Return the new number of an entry."""
        number = self._numbers()
        with self._lock:
            self._entries[number] = entry
        return number

    def get(self, number: int) -> _Entry:
        """Return the entry of a number; raise EmbeddingError if it has none."""
        with self._lock:
            entry = self._entries.get(number)
        return self._known(entry)

    def remove(self, number: int) -> _Entry:
        """Return an entry, whose number has none any more."""
        with self._lock:
            entry = self._entries.pop(number, None)
        return self._known(entry)

    def remove_all(self) -> list[_Entry]:
        """Empty the table."""
        with self._lock:
            entries = list(self._entries.values())
            self._entries.clear()
        return entries

    def _known(self, entry: _Entry | None) -> _Entry:
        if entry is None:
            raise EmbeddingError(
                f"this handle is not of an {self._thing}: it was {self._ended}, or never was one",
                f"use the handle of an {self._thing} only until it is {self._ended}",
                Status.INVALID_HANDLE,
            )
        return entry


class Connection:
    """The functions of the table, and what their handles mean.

    Every method returns nothing; what it raises becomes the status code and the error text.
    """

    def __init__(self) -> None:
        """Begin without handles."""
        # One sequence for both: an inspection given for an inspector is told, too.
        numbers = itertools.count(1)
        self._inspectors = HandleTable[HostedInspector](
            "inspector", "destroyed", lambda: next(numbers)
        )
        self._views = HandleTable[OutcomeView]("inspection", "released", lambda: next(numbers))

    def create(self, config: Any, made: Any) -> None:  # noqa: ANN401 - ctypes pointers
        """Implement `zeroflaw_create`."""
        loaded = HostedInspector.load(configuration_of(config.contents))
        made[0] = self._inspectors.add(loaded)

    def create_from_file(self, path: bytes, made: Any) -> None:  # noqa: ANN401
        """Implement `zeroflaw_create_from_file`."""
        configuration = read_configuration(Path(decoded(path, "config_file")))
        made[0] = self._inspectors.add(HostedInspector.load(configuration))

    def clone(self, handle: int, made: Any) -> None:  # noqa: ANN401
        """Implement `zeroflaw_clone`."""
        made[0] = self._inspectors.add(self._inspectors.get(handle).clone())

    def destroy(self, handle: int) -> None:
        """Implement `zeroflaw_destroy`."""
        self._inspectors.remove(handle).close()

    def warm_up(self, handle: int, runs: int) -> None:
        """Implement `zeroflaw_warm_up`."""
        self._inspectors.get(handle).warm_up(runs)

    def reload(self, handle: int) -> None:
        """Implement `zeroflaw_reload`."""
        self._inspectors.get(handle).reload()

    def inspect(self, handle: int, frame: Any, made: Any) -> None:  # noqa: ANN401
        """Implement `zeroflaw_inspect`."""
        inspector = self._inspectors.get(handle)
        outcome = inspector.inspect(request_of(frame.contents))
        made[0] = self._views.add(OutcomeView(outcome))

    def submit(self, handle: int, frame: Any, ticket: Any) -> None:  # noqa: ANN401
        """Implement `zeroflaw_submit`."""
        ticket[0] = self._inspectors.get(handle).submit(request_of(frame.contents))

    def poll(self, handle: int, milliseconds: float, made: Any) -> None:  # noqa: ANN401
        """Implement `zeroflaw_poll`."""
        outcome = self._inspectors.get(handle).poll(milliseconds / 1e3)
        if outcome is None:
            raise EmbeddingError(
                f"no result within {milliseconds:g} ms",
                "wait longer, or submit a frame first",
                Status.TIMEOUT,
            )
        made[0] = self._views.add(OutcomeView(outcome))

    def view(self, handle: int, view: int) -> None:
        """Implement `zeroflaw_view`."""
        self._views.get(handle).copy_to(view)

    def release(self, handle: int) -> None:
        """Implement `zeroflaw_release`."""
        self._views.remove(handle)

    def inspection_json(self, handle: int, buffer: int | None, capacity: int, needed: Any) -> None:  # noqa: ANN401
        """Implement `zeroflaw_inspection_json`."""
        _give_text(self._views.get(handle).to_json(), buffer, capacity, needed)

    def frame_sha256(self, handle: int, digest: Any) -> None:  # noqa: ANN401
        """Implement `zeroflaw_frame_sha256`."""
        digest[0] = self._views.get(handle).frame_sha256

    def describe(self, handle: int, buffer: int | None, capacity: int, needed: Any) -> None:  # noqa: ANN401
        """Implement `zeroflaw_describe`."""
        description = self._inspectors.get(handle).describe()
        _give_text(json_of(description), buffer, capacity, needed)

    def health(self, handle: int, report: Any) -> None:  # noqa: ANN401
        """Implement `zeroflaw_health`."""
        self._inspectors.get(handle).report_health(report.contents)

    def before_fork(self) -> None:
        """Wait for the inspections under way, before C code forks the process."""
        fork_gate().hold()

    def after_fork(self) -> None:
        """Go on in the parent, after that."""
        fork_gate().let_go()

    def close_all(self) -> None:
        """Close every inspector: the process ends."""
        for inspector in self._inspectors.remove_all():
            inspector.close()


def connect(table: int, set_last_error: int, abi_version: int) -> object:
    """Fill the library's table of functions.

    Args:
        table: Address of the `Functions` that are to be filled, whose `struct_size` is set.
        set_last_error: Address of the library's `void (*)(const char *)`.
        abi_version: ZEROFLAW_ABI_VERSION that the library was built with.

    Returns:
        What must be kept for as long as the functions may be called.

    Raises:
        EmbeddingError: Library and package are not of the same ABI, or the library knows other
            functions.
    """
    if abi_version != ABI_VERSION:
        raise EmbeddingError(
            f"this libzeroflaw has ABI {abi_version}, and zeroflaw {__version__} has {ABI_VERSION}",
            "install both in the same version",
            Status.ENVIRONMENT,
        )
    functions = FunctionTable.from_address(table)
    if functions.struct_size != ctypes.sizeof(FunctionTable):
        raise EmbeddingError(
            f"this libzeroflaw is older or newer than zeroflaw {__version__}: it calls other"
            " functions",
            "install both in the same version",
            Status.ENVIRONMENT,
        )
    for package in ("zeroflaw", "zeroflaw_engines"):
        # Without a handler Python would print warnings on the process's stderr.
        logging.getLogger(package).addHandler(logging.NullHandler())
    # PYFUNCTYPE: the text is set by the thread that failed, which holds the GIL.
    give_text = ctypes.PYFUNCTYPE(None, ctypes.c_char_p)(set_last_error)
    connection = Connection()
    kept: list[object] = [connection]
    for name, prototype in _PROTOTYPES.items():
        function = prototype(_reporting(getattr(connection, name), give_text))
        setattr(functions, name, function)
        kept.append(function)
    return kept


def _reporting(
    function: Callable[..., None], give_text: Callable[[bytes], object]
) -> Callable[..., int]:
    """Wrap a function so that it returns a status code and raises nothing at all."""

    @functools.wraps(function)
    def call(*arguments: object) -> int:
        try:
            function(*arguments)
        # Whatever it is, it must not cross into C: there it would be "no error".
        except BaseException as error:
            give_text(text_of(error).replace("\0", "").encode("utf-8", "replace"))
            return int(status_of(error))
        return int(Status.OK)

    return call


def _give_text(text: bytes, buffer: int | None, capacity: int, needed: Any) -> None:  # noqa: ANN401
    needed[0] = len(text) + 1
    if buffer is None:
        return
    if capacity < len(text) + 1:
        raise EmbeddingError(
            f"the text has {len(text) + 1} bytes, and the buffer {capacity}",
            "ask for the size first, with a null buffer",
            Status.BUFFER_TOO_SMALL,
        )
    ctypes.memmove(buffer, text + b"\0", len(text) + 1)
