"""Writing a bundle, atomically: either all of it is there, or nothing is."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import msgspec
from filelock import FileLock, Timeout

from zeroflaw_engines.bundle import Bundle, open_bundle
from zeroflaw_engines.digests import sha256_of_file, sha256_of_files
from zeroflaw_engines.errors import BundleError
from zeroflaw_engines.manifest import (
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    Product,
    check_product_name,
    encode_manifest,
)
from zeroflaw_engines.prompt_bank import (
    TextEmbeddings,
    check_text_embeddings,
    encode_prompt_bank,
    read_prompt_bank,
)

_LOCK_SECONDS = 10


@contextmanager
def staged_bundle(target: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Gives an empty directory to fill; publishes it at `target` when the block ends well.

    The directory lies beside the target, so that publishing is one rename. When the block
    raises (an interrupt included), it is removed and the target stays as it was. What a killed
    export left behind is removed by the next export to the same target.

    Args:
        target: Directory of the bundle to be.
        overwrite: Whether an existing bundle may be replaced.

    Raises:
        BundleError: The target exists and may not be replaced, another export to it is under
            way, or the disk is full.
    """
    target = Path(target)
    if target.exists() and not overwrite:
        raise BundleError(f"{target} exists already", "choose another path or pass --overwrite")
    if target.exists() and not (target / MANIFEST_NAME).is_file():
        raise BundleError(
            f"{target} exists and is not a bundle, so it is not replaced", "choose another path"
        )
    with _disk_errors_named(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target):
            for left_over in target.parent.glob(f".{target.name}.partial-*"):
                shutil.rmtree(left_over, ignore_errors=True)
            staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
            try:
                staging.chmod(0o755)
                yield staging
                _publish(staging, target)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise


def write_manifest(directory: Path, manifest: Manifest) -> Manifest:
    """Completes a manifest with the digest of every file in the directory, and writes it there.

    Returns:
        The manifest as written.
    """
    paths = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    files = {
        path.relative_to(directory).as_posix(): FileEntry(sha256=digest, bytes=path.stat().st_size)
        for path, digest in sha256_of_files(paths).items()
    }
    complete = msgspec.structs.replace(manifest, files=files)
    _write_durably(directory / MANIFEST_NAME, encode_manifest(complete))
    return complete


def add_products(
    bundle: Bundle, embeddings: Mapping[str, TextEmbeddings], products: Mapping[str, Product]
) -> Bundle:
    """Adds products to a bundle, or replaces them.

    The new bank gets a name of its own and the manifest is replaced last, in one rename, so
    that a reader sees the old products or the new ones and never a mixture.

    Args:
        bundle: The bundle to change.
        embeddings: float32 [2, embedding_size] by product name.
        products: The entries of the same names.

    Returns:
        The bundle as it is now.

    Raises:
        ProductError: A name or its embeddings are not acceptable.
        BundleError: The bundle cannot be written, or another process is changing it.
    """
    size = bundle.manifest.clip.embedding_size
    for name, value in embeddings.items():
        check_product_name(name)
        check_text_embeddings(name, value, size)
    with _disk_errors_named(bundle.path), _locked(bundle.path):
        current = open_bundle(bundle.path, verify_digests=False).manifest
        bank = {**read_prompt_bank(bundle.path / current.prompts, size), **embeddings}
        new_bank = bundle.path / f"prompts-{uuid4().hex[:8]}.safetensors"
        try:
            _write_durably(new_bank, encode_prompt_bank(bank))
            files = {
                name: entry for name, entry in current.files.items() if name != current.prompts
            }
            files[new_bank.name] = FileEntry(
                sha256=sha256_of_file(new_bank), bytes=new_bank.stat().st_size
            )
            manifest = msgspec.structs.replace(
                current,
                prompts=new_bank.name,
                products={**current.products, **products},
                files=files,
            )
            temporary = bundle.path / f".{MANIFEST_NAME}.{uuid4().hex[:8]}"
            try:
                _write_durably(temporary, encode_manifest(manifest))
                temporary.replace(bundle.path / MANIFEST_NAME)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        except BaseException:
            new_bank.unlink(missing_ok=True)
            raise
        (bundle.path / current.prompts).unlink(missing_ok=True)
    return Bundle(path=bundle.path, manifest=manifest)


def _publish(staging: Path, target: Path) -> None:
    for path in staging.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    if target.exists():
        old = target.with_name(f".{target.name}.partial-old-{uuid4().hex[:8]}")
        target.rename(old)
        try:
            staging.rename(target)
        except BaseException:
            old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    else:
        staging.rename(target)


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        with lock.acquire(timeout=_LOCK_SECONDS):
            yield
    except Timeout as error:
        raise BundleError(
            f"another process is writing {target} (it holds {lock.lock_file})",
            "wait for it to end and try again",
        ) from error


@contextmanager
def _disk_errors_named(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BundleError(
                f"no space left on the disk of {target}; nothing was published",
                "free space there or choose another disk",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise BundleError(
                f"{target} cannot be written: {error.strerror}", "check its permissions"
            ) from error
        raise
