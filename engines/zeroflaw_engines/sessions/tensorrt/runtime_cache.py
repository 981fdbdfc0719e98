"""Kernels that TensorRT-RTX compiled on this GPU, kept in a file from start to start."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from zeroflaw_engines.files import replacing

# Another process that writes the same file is done sooner, or it hangs.
_LOCK_SECONDS = 10

_log = logging.getLogger(__name__)


class RuntimeCache:
    """The cache of one engine, which all its contexts share.

    Args:
        path: Its file; need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cache: Any = None
        self._saved = b""
        self._lock = threading.Lock()

    def attach(self, config: Any) -> None:  # noqa: ANN401 - TensorRT's own types
        """Put it into the runtime configuration of a context; the first one reads the file."""
        with self._lock:
            if self._cache is None:
                self._cache = config.create_runtime_cache()
                self._load()
            if not config.set_runtime_cache(self._cache):
                _log.warning("TensorRT-RTX takes no runtime cache: it compiles at every start")

    def save(self) -> None:
        """Write the file if the cache has changed; what cannot be written is logged."""
        with self._lock:
            if self._cache is None:
                return
            serialized = self._cache.serialize()
            if serialized is None:
                _log.warning("TensorRT-RTX gives no runtime cache for %s", self._path)
                return
            data = bytes(serialized)
            if data == self._saved:
                return
            try:
                with (
                    FileLock(self._path.with_name(f".{self._path.name}.lock"), _LOCK_SECONDS),
                    replacing(self._path) as temporary,
                ):
                    temporary.write_bytes(data)
            except Timeout:
                _log.warning("%s is written by another process, and was left to it", self._path)
            except OSError as error:
                _log.warning("%s cannot be written: %s", self._path, error.strerror)
            else:
                self._saved = data

    def _load(self) -> None:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            _log.warning("%s cannot be read: %s", self._path, error.strerror)
            return
        if self._cache.deserialize(data):
            self._saved = data
        else:
            _log.info("%s is of another GPU or version: compiled anew", self._path)
