"""The evaluation's cache: arrays on disk, each file written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from zeroflaw_engines.errors import EvaluationError
from zeroflaw_engines.files import replacing

CACHE_VERSION: Final = 3
_IDENTITY_NAME: Final = "cache.json"
_SPARE: Final = 100_000_000  # bytes that are left free for the outputs and everyone else


class _Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    version: int
    bundle: str


@dataclass(frozen=True)
class EvaluationCache:
    """Where one bundle's encodings and decodings are kept."""

    root: Path

    def encoding(self, image: str, variant: str) -> Path:
        """Return the file of one encoding.

        Args:
            image: SHA-256 of the image file.
            variant: Digest of all else that the encoding depends on.
        """
        return self.root / "encodings" / variant[:16] / f"{image[:40]}.npz"

    def inspection(self, image: str, truth: str, variant: str) -> Path:
        """Return the file of one inspection of a product with settings.

        Args:
            image: SHA-256 of the image file.
            truth: The same of the mask's file; empty for a good image.
            variant: Digest of all else that the inspection depends on.
        """
        return self.root / "inspections" / variant[:16] / f"{digest_of(image, truth)[:40]}.npz"

    def photo(self, image: str, variant: str) -> Path:
        """Return the file of a reference photo's tokens; the digests are as for `encoding`."""
        return self.root / "photos" / variant[:16] / f"{image[:40]}.npz"

    def reference(self, encoding: Path, bank: str) -> Path:
        """Return the file of an image's reference map.

        Args:
            bank: Digest of the reference bank that it was matched with.
        """
        return self.root / "references" / f"{encoding.parent.name}-{bank[:16]}" / encoding.name

    def decoding(self, encoding: Path, parameters: str, reference: Path | None = None) -> Path:
        """Return the file of what the decoder made of an encoding.

        Args:
            reference: File of its reference map; None without one.
        """
        maps = encoding if reference is None else reference
        return self.root / "decodings" / f"{maps.parent.name}-{parameters[:16]}" / encoding.name


def open_cache(root: Path, bundle_identity: str) -> EvaluationCache:
    """Open the cache of a bundle, or make it.

    Raises:
        EvaluationError: The directory is the cache of another bundle, holds something else, or
            cannot be written.
    """
    path = root / _IDENTITY_NAME
    try:
        if path.exists():
            identity = msgspec.json.decode(path.read_bytes(), type=_Identity)
            if identity.version != CACHE_VERSION:
                raise EvaluationError(
                    f"the cache {root} is of version {identity.version}, not {CACHE_VERSION}",
                    "choose another --cache, or delete this one",
                )
            if identity.bundle != bundle_identity:
                raise EvaluationError(
                    f"the cache {root} belongs to a bundle with other weights "
                    f"({identity.bundle[:12]}, not {bundle_identity[:12]})",
                    "choose another --cache for this bundle, or delete the cache",
                )
        elif root.exists() and any(root.iterdir()):
            raise EvaluationError(
                f"{root} is not a cache: it has no {_IDENTITY_NAME} but other files",
                "choose an empty or new directory for --cache",
            )
        else:
            identity = _Identity(version=CACHE_VERSION, bundle=bundle_identity)
            write_whole(path, msgspec.json.encode(identity))
    except msgspec.DecodeError as error:
        raise EvaluationError(
            f"{path} is damaged: {error}", "choose another --cache, or delete this one"
        ) from error
    except OSError as error:
        raise _not_writable(root, error) from error
    return EvaluationCache(root)


def require_space(root: Path, wanted: int) -> int:
    """Check that what will be written fits on the disk.

    Returns:
        Bytes that are free.

    Raises:
        EvaluationError: It does not fit.
    """
    free = shutil.disk_usage(root).free
    if wanted and wanted + _SPARE > free:
        raise EvaluationError(
            f"the cache {root} needs {readable_bytes(wanted)} more and {readable_bytes(_SPARE)} "
            f"to spare, and its disk has {readable_bytes(free)} free",
            "free some space, choose a --cache on another disk, or evaluate some of the classes "
            "(--class), with fewer --shots or --seeds",
        )
    return free


def readable_bytes(count: int) -> str:
    """Write bytes in MB (1e6), or GB (1e9), as people read them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def write_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """Write arrays into one file, uncompressed.

    Raises:
        EvaluationError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, _partial(path)) as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
    except OSError as error:
        raise _not_writable(path, error) from error


def read_arrays(path: Path, *names: str) -> tuple[NDArray[Any], ...]:
    """Read some of the arrays of a file; their checksums are verified.

    Raises:
        EvaluationError: The file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return tuple(file[name] for name in names)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise EvaluationError(
            f"the cache's file {path} cannot be read: {error}",
            "delete it and run the same command again: only what is missing is computed",
        ) from error


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, with the directories above it.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, _partial(path)) as partial:
        partial.write_bytes(data)


def digest_of(*parts: bytes | str) -> str:
    """Digest several parts, each with its length: SHA-256 in hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _not_writable(path: Path, error: OSError) -> EvaluationError:
    return EvaluationError(
        f"{path} cannot be written: {error.strerror}",
        "check the directory's permissions and the space on its disk, or choose another --cache",
    )
