"""Writing a bundle, atomically: either all of it is there, or nothing is."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePath

import msgspec

from zeroflaw_engines.bundle.bundle import Bundle, open_bundle, read_manifest
from zeroflaw_engines.bundle.directory.lock import (
    LEARNING,
    LOCK_NAME,
    PARTIAL,
    clear_beside,
    clear_beside_if_idle,
    clear_inside,
    locked_bundle,
    locked_name,
    publish,
)
from zeroflaw_engines.bundle.manifest import (
    ENGINES_DIRECTORY,
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    brought_up,
)
from zeroflaw_engines.bundle.manifest_text import decode_manifest, encode_manifest
from zeroflaw_engines.bundle.prompt_bank import (
    encode_prompt_bank,
)
from zeroflaw_engines.bundle.shipped import require_changeable
from zeroflaw_engines.errors import BundleDamagedError, BundleError
from zeroflaw_engines.files import (
    disk_errors_named,
    replace_durably,
    sha256_of_file,
    sha256_of_files,
    temporary_pattern,
    write_durably,
)


@contextmanager
def staged_bundle(target: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give an empty directory to fill, and publish it at `target` when the block ends well.

    The directory lies beside the target, so that publishing is one rename, and there is a whole
    bundle at the target at every moment. When the block raises (an interrupt included), it is
    removed and the target stays as it was. What a killed export left behind is removed by the
    next writer.

    Args:
        overwrite: Whether an existing bundle may be replaced.

    Raises:
        BundleError: The target exists and may not be replaced, another export to it is under
            way, or the disk is full.
    """
    named = Path(target).absolute()
    with _disk_errors(named):
        # The real directory is replaced, not a link to it; and all its names are one.
        real = named.resolve()
        real.parent.mkdir(parents=True, exist_ok=True)
        with locked_name(real):
            clear_beside(real)
            _require_replaceable(named, overwrite=overwrite)
            staging = Path(tempfile.mkdtemp(prefix=f".{real.name}{PARTIAL}", dir=real.parent))
            try:
                staging.chmod(0o755)
                yield staging
                _require_replaceable(named, overwrite=overwrite)
                publish(staging, real)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise


def write_manifest(directory: Path, manifest: Manifest) -> Manifest:
    """Complete a manifest with the digest of every file in the directory, and write it there.

    Returns:
        The manifest as written.
    """
    paths = [
        path
        for path in sorted(directory.rglob("*"))
        if path.is_file() and _is_content(path.relative_to(directory))
    ]
    files = {
        path.relative_to(directory).as_posix(): FileEntry(sha256=digest, bytes=path.stat().st_size)
        for path, digest in sha256_of_files(paths).items()
    }
    complete = msgspec.structs.replace(manifest, files=files)
    replace_durably(directory / MANIFEST_NAME, encode_manifest(complete))
    return complete


def copy_bundle(bundle: Bundle, target: str | Path, *, overwrite: bool = False) -> Bundle:
    """Copy a bundle, and verify the copy before it is published.

    Args:
        overwrite: Whether an existing bundle may be replaced.

    Returns:
        The copy.

    Raises:
        BundleError: The target exists and may not be replaced, or cannot be written.
        BundleDamagedError: A file of the bundle is missing or altered.
    """
    target = Path(target)
    require_changeable(target)
    with staged_bundle(target, overwrite=overwrite) as staging:
        copied = _copy_into(staging, bundle.path)
    return Bundle(path=target, manifest=copied.manifest, read_bank=copied.bank)


def _copy_into(staging: Path, path: Path) -> Bundle:
    """Copy a bundle that another process may change meanwhile, until the copy is whole."""
    while True:
        source = open_bundle(path)
        files = source.manifest.files
        passing = source.manifest.product_files
        try:
            for old in staging.rglob("*"):
                if old.is_file() and old.relative_to(staging).as_posix() not in files:
                    old.unlink()
            # Those of products first: the next writer may remove them.
            for name in sorted(files, key=lambda name: name not in passing):
                _copy_file(source, name, files[name], staging / name)
            write_durably(staging / MANIFEST_NAME, encode_manifest(source.manifest))
            return open_bundle(staging)
        except (OSError, BundleDamagedError):
            if read_manifest(path) == source.manifest:
                raise


def _copy_file(source: Bundle, name: str, entry: FileEntry, copy: Path) -> None:
    if copy.is_file() and sha256_of_file(copy) == entry.sha256:
        return
    copy.parent.mkdir(parents=True, exist_ok=True)
    # The bank's file may be gone by now: it is replaced whenever a product is added.
    bank = encode_prompt_bank(source.bank) if name == source.manifest.prompts else b""
    if hashlib.sha256(bank).hexdigest() == entry.sha256:
        copy.write_bytes(bank)
    else:
        shutil.copyfile(source.file(name), copy)


def upgrade_bundle(bundle: Bundle) -> Bundle:
    """Bring the manifest of an older bundle to the current version; no other file changes.

    Returns:
        The bundle as it is now.

    Raises:
        BundleError: The bundle cannot be written, or another process is changing it.
    """
    with changing(bundle) as path:
        current = open_bundle(path)
        manifest = brought_up(current.manifest)
        replace_manifest(path, manifest)
    return Bundle(path=bundle.path, manifest=manifest, read_bank=current.bank)


@contextmanager
def changing(bundle: Bundle) -> Iterator[Path]:
    """Keep a bundle for the block, which may add files to it and replace its manifest.

    What killed writers left is removed first.

    Yields:
        The bundle's real path.

    Raises:
        BundleError: The bundle ships with zeroflaw, another process is changing it, or the disk
            is full.
    """
    require_changeable(bundle.path)
    named = bundle.path.absolute()
    with _disk_errors(named), locked_bundle(named) as path:
        clear_inside(path, read_manifest(path).files)
        clear_beside_if_idle(path)
        yield path


def replace_manifest(path: Path, manifest: Manifest) -> None:
    """Replace a bundle's manifest in one rename, by one that can be read.

    Raises:
        BundleError: It contradicts itself; the old one is there.
    """
    data = encode_manifest(manifest)
    decode_manifest(data, f"the new {path / MANIFEST_NAME}")
    replace_durably(path / MANIFEST_NAME, data)


def take_up(path: Path, before: Manifest, manifest: Manifest, new: Mapping[str, bytes]) -> None:
    """Write files, then the manifest that names them; then remove those that it no longer names.

    Args:
        before: The manifest that is replaced.
        new: The files by name, none of which is there yet.
    """
    try:
        for name, data in new.items():
            write_durably(path / name, data)
        replace_manifest(path, manifest)
    except BaseException:
        # An interrupt may come after the manifest has already taken the files up.
        for name in new.keys() - read_manifest(path).files.keys():
            (path / name).unlink(missing_ok=True)
        raise
    for name in before.files.keys() - manifest.files.keys():
        (path / name).unlink(missing_ok=True)


def _require_replaceable(target: Path, *, overwrite: bool) -> None:
    if not target.exists():
        return
    if not overwrite:
        raise BundleError(f"{target} exists already", "choose another path or pass --overwrite")
    if not (target / MANIFEST_NAME).is_file():
        raise BundleError(
            f"{target} exists and is not a bundle, so it is not replaced", "choose another path"
        )


def _is_content(name: PurePath) -> bool:
    """Return whether a file in a bundle's directory belongs into its manifest."""
    return (
        name.parts[0] not in {MANIFEST_NAME, LOCK_NAME, ENGINES_DIRECTORY}
        and not name.parts[0].startswith((PARTIAL, LEARNING))
        and not name.match(temporary_pattern(MANIFEST_NAME))
    )


def _disk_errors(target: Path) -> AbstractContextManager[None]:
    """Name the bundle in errors about it, its directory, and those above: the block does more."""
    return disk_errors_named(
        target,
        BundleError,
        "check the path and its permissions",
        full=("nothing was published", "free space there or choose another disk"),
        ours=lambda file: (
            file is None or file.is_relative_to(target.parent) or target.is_relative_to(file)
        ),
    )
