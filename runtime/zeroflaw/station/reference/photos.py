"""Photos to learn from: which can be taken, and what was computed of each, kept on the disk.

A bundle keeps what a learning has computed in `.learning-*` until the learning succeeds, so that
one that was interrupted goes on where it ended.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from zeroflaw.pictures.images import ImageFile, Orientation, file_frame, read_image_file
from zeroflaw.pipeline.view.product_view import ProductView
from zeroflaw.station.reference.scorer import require_sight
from zeroflaw.station.reference.view_scorer import require_view
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.directory.lock import LEARNING
from zeroflaw_engines.errors import BundleError, FrameError, ImageFileError, ReferenceBankError
from zeroflaw_engines.files import disk_errors_named, replacing, sha256_of_file
from zeroflaw_engines.image_files.frame import Frame
from zeroflaw_engines.parameters import MethodParameters

_LOCK: Final = ".lock"
_TRIES: Final = 20
# Left free on the disk beyond what learning needs.
_DISK_MARGIN: Final = 16 << 20

Arrays = dict[str, NDArray[Any]]
Progress = Callable[[Path, FrameError | ImageFileError | None], None]


@dataclass(frozen=True)
class Photo:
    """A photo of a good part.

    Attributes:
        sha256: Of the file.
        size: Height and width, px.
    """

    path: Path
    sha256: str
    size: tuple[int, int]


@dataclass(frozen=True)
class PhotoReader:
    """How the files are read.

    Attributes:
        white_level: The value that is white, against what the files say.
        orientation: Whether pixels are turned as orientation tags say.
    """

    white_level: float | None = None
    orientation: Orientation = "as_stored"

    def file(self, path: Path) -> ImageFile:
        """Read an image file."""
        return read_image_file(path, white_level=self.white_level, orientation=self.orientation)

    def frame(self, photo: Photo) -> Frame:
        """Read a photo that was surveyed, uint8 RGB [H, W, 3].

        Raises:
            ReferenceBankError: Its file is another one by now.
        """
        frame = file_frame(self.file(photo.path))
        if sha256_of_file(photo.path) != photo.sha256:
            raise ReferenceBankError(
                f"{photo.path} was changed while it was learned", "learn the product again"
            )
        return frame


@dataclass(frozen=True)
class PhotoSurvey:
    """The photos that can be learned from, each content once.

    Attributes:
        photos: In the order of the files.
        copies: Files whose content had been seen before; they do not count.
        failed: Files that cannot be read, or show nothing; they do not count.
        warnings: What is to be known of the photos, each with its file's name.
    """

    photos: tuple[Photo, ...]
    copies: tuple[Path, ...]
    failed: tuple[Path, ...]
    warnings: tuple[str, ...]


def survey_photos(
    files: Iterable[Path],
    reader: PhotoReader,
    parameters: MethodParameters,
    progress: Progress | None = None,
    view: ProductView | None = None,
) -> PhotoSurvey:
    """Find out which files can be learned from; no engine is needed.

    Args:
        parameters: Limits of photos that show nothing.
        progress: Called for each file that is left out, with the error if there is one.
        view: How the product's frames are looked at: what an inspection would hold is left out.
    """
    photos: dict[str, Photo] = {}
    copies: list[Path] = []
    failed: list[Path] = []
    warnings: list[str] = []
    for path in files:
        error: FrameError | ImageFileError | None = None
        try:
            file = reader.file(path)
            digest = sha256_of_file(path)
            if digest not in photos:
                frame = file_frame(file)
                if view is None:
                    require_sight(frame, parameters)
                else:
                    require_view(view, frame, parameters)
                warnings += file.warnings
                photos[digest] = Photo(path, digest, (frame.shape[0], frame.shape[1]))
                continue
            copies.append(path)
        except (FrameError, ImageFileError) as caught:
            error = caught
            if isinstance(caught, FrameError):
                error = FrameError(f"{path} cannot be learned from: {caught.cause}", caught.remedy)
            failed.append(path)
        if progress:
            progress(path, error)
    taken = tuple(photos.values())
    return PhotoSurvey(taken, tuple(copies), tuple(failed), (*warnings, *_other_sizes(taken)))


@dataclass(frozen=True)
class PhotoStore:
    """What was computed of photos under some settings, a file each.

    Attributes:
        directory: From `learning_directory`.
        bundle: The bundle's path, for errors.
        settings: Digest of all that the arrays depend on, beside the photo.
    """

    directory: Path
    bundle: Path
    settings: str

    def has(self, photo: Photo) -> bool:
        """Return whether something was stored of a photo."""
        return self._path(photo).exists()

    def read(self, photo: Photo) -> Arrays | None:
        """Return what was stored of a photo; None if nothing was, or not as it was written."""
        try:
            digest, data = self._path(photo).read_bytes().split(b"\n", 1)
            # A power cut may leave a file whose contents never reached the disk.
            if hashlib.sha256(data).hexdigest().encode() != digest:
                return None
            stored: Arrays = load(data)
        except (OSError, SafetensorError, ValueError):
            return None
        return stored

    def write(self, photo: Photo, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Store arrays of a photo, all of them or none.

        Raises:
            BundleError: The disk is full, or cannot be written.
        """
        path = self._path(photo)
        checked = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
        with disk_errors(self.bundle), replacing(path) as written:
            data = save(checked)
            written.write_bytes(hashlib.sha256(data).hexdigest().encode() + b"\n" + data)

    def _path(self, photo: Photo) -> Path:
        return self.directory / f"{photo.sha256[:32]}-{self.settings[:16]}.photo"


@contextmanager
def learning_directory(bundle: Bundle, product: str) -> Iterator[Path]:
    """Give the directory in a bundle for what is computed while one product is learned.

    It is kept if the block raises, and removed when it ends well. One process at a time has it.

    Raises:
        ReferenceBankError: Another process is learning the product.
        BundleError: It cannot be made.
    """
    directory = directory_of(bundle, product)
    with disk_errors(bundle.path):
        lock = _locked(directory, product)
    try:
        yield directory
    except BaseException:
        if {path.name for path in directory.glob("*")} <= {_LOCK}:
            shutil.rmtree(directory, ignore_errors=True)
        raise
    else:
        shutil.rmtree(directory, ignore_errors=True)
    finally:
        lock.release()


def directory_of(bundle: Bundle, product: str) -> Path:
    """Name the directory that `learning_directory` gives."""
    digest = hashlib.sha256(product.encode()).hexdigest()
    return bundle.path.resolve() / f"{LEARNING}{digest[:16]}"


def require_disk_space(bundle: Path, size: int) -> None:
    """Refuse to begin what the disk has no room for.

    Args:
        size: Bytes that will be written.

    Raises:
        BundleError: There is not as much space.
    """
    free = shutil.disk_usage(bundle).free
    if free < size + _DISK_MARGIN:
        raise BundleError(
            f"learning keeps {size / 1e6:.0f} MB in {bundle} until it is done, and its disk has"
            f" {free / 1e6:.0f} MB free",
            "free space there, copy the bundle to another disk, or give fewer photos",
        )


@contextmanager
def disk_errors(bundle: Path) -> Iterator[None]:
    """Name the bundle in errors of the disk while something is learned."""
    with disk_errors_named(
        bundle,
        BundleError,
        "check the path and its permissions",
        full=(
            "the bundle is as it was, and what was computed so far is kept",
            "free space there, and learn again: it goes on where it ended",
        ),
    ):
        yield


def _locked(directory: Path, product: str) -> FileLock:
    for _ in range(_TRIES):
        directory.mkdir(exist_ok=True)
        lock = FileLock(directory / _LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise ReferenceBankError(
                f"another process is learning {product!r} in {directory.parent}",
                "wait for it to end; what it learns can be learned anew then",
            ) from error
        except FileNotFoundError:
            continue
        # Whoever had the directory before has removed it, if this is not its lock any more.
        with suppress(FileNotFoundError):
            if (directory / _LOCK).exists():
                return lock
        lock.release()
    raise OSError(f"{directory} is removed by other processes all the time")


def _other_sizes(photos: tuple[Photo, ...]) -> Iterator[str]:
    others = [photo for photo in photos if photo.size != photos[0].size]
    if others:
        height, width = photos[0].size
        listed = ", ".join(f"{p.path} ({p.size[1]} x {p.size[0]})" for p in others[:5])
        yield (
            f"{len(others)} photos are of another size than {photos[0].path} ({width} x {height}):"
            f" {listed}{', ...' if len(others) > 5 else ''}. Each is squashed to the model's"
            " square, so that parts look larger or stretched: take all as the line takes them"
        )
