"""Writing a bundle, atomically: either all of it is there, or nothing is."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import msgspec
import numpy as np
from filelock import FileLock, Timeout

from zeroflaw_engines.bundle import Bundle, open_bundle, read_manifest
from zeroflaw_engines.digests import sha256_of_file, sha256_of_files
from zeroflaw_engines.embedded import require_changeable
from zeroflaw_engines.errors import BundleDamagedError, BundleError, ProductError
from zeroflaw_engines.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    Calibration,
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
    target = Path(target).absolute()
    with _disk_errors_named(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target):
            _clear_left_overs(target)
            _require_replaceable(target, overwrite=overwrite)
            staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
            try:
                staging.chmod(0o755)
                yield staging
                _require_replaceable(target, overwrite=overwrite)
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


def copy_bundle(bundle: Bundle, target: str | Path, *, overwrite: bool = False) -> Bundle:
    """Copies a bundle, and verifies the copy before it is published.

    Args:
        bundle: The bundle to copy.
        target: Directory of the copy.
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
        manifest = open_bundle(bundle.path).manifest
        for name in manifest.files:
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.path / name, staging / name)
        _write_durably(staging / MANIFEST_NAME, encode_manifest(manifest))
        open_bundle(staging)
    return Bundle(path=target, manifest=manifest)


def add_products(
    bundle: Bundle, embeddings: Mapping[str, TextEmbeddings], products: Mapping[str, Product]
) -> Bundle:
    """Adds products to a bundle, or replaces them, with their thresholds and calibrations.

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
    if embeddings.keys() != products.keys():
        raise ProductError(
            f"embeddings of {sorted(embeddings)} came with entries of {sorted(products)}",
            "give both for the same products",
        )
    for name, value in embeddings.items():
        check_product_name(name)
        check_text_embeddings(name, value, size)
    with changing(bundle) as path:
        current = open_bundle(path, verify_digests=False).manifest
        old_bank = path / current.prompts
        if sha256_of_file(old_bank) != current.files[current.prompts].sha256:
            raise BundleDamagedError(
                f"{old_bank} was altered: its SHA-256 is not the manifest's",
                "copy the bundle anew, or export it again",
            )
        bank = {**read_prompt_bank(old_bank, size), **embeddings}
        new_bank = path / f"prompts-{uuid4().hex[:8]}.safetensors"
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
                schema_version=SCHEMA_VERSION,
                prompts=new_bank.name,
                products={**current.products, **products},
                files=files,
            )
            replace_manifest(path, manifest)
        except BaseException:
            # An interrupt may come after the manifest has already taken the new bank up.
            if read_manifest(path).prompts != new_bank.name:
                new_bank.unlink(missing_ok=True)
            raise
        old_bank.unlink(missing_ok=True)
    return Bundle(path=bundle.path, manifest=manifest)


def set_calibration(
    bundle: Bundle,
    product: str,
    threshold: float,
    calibration: Calibration,
    *,
    embeddings: TextEmbeddings,
) -> Bundle:
    """Gives a product its calibrated decision threshold; the prompt bank stays as it is.

    Args:
        bundle: The bundle to change.
        product: A product that it has.
        threshold: In [0, 1].
        calibration: Where the threshold comes from.
        embeddings: Those that the images were scored with.

    Returns:
        The bundle as it is now.

    Raises:
        ProductError: The product is unknown, was added anew since its images were scored, or
            the threshold is out of its range.
        BundleError: The bundle cannot be written, or another process is changing it.
    """
    if not 0 <= threshold <= 1:
        raise ProductError(
            f"the threshold of product {product!r} would be {threshold}", "give one in [0, 1]"
        )
    with changing(bundle) as path:
        current = open_bundle(path, verify_digests=False)
        if not np.array_equal(current.text_embeddings(product), embeddings):
            raise ProductError(
                f"product {product!r} was added anew while its images were scored",
                "calibrate it again",
            )
        entry = msgspec.structs.replace(
            current.manifest.products[product], threshold=threshold, calibration=calibration
        )
        manifest = msgspec.structs.replace(
            current.manifest,
            schema_version=SCHEMA_VERSION,
            products={**current.manifest.products, product: entry},
        )
        replace_manifest(path, manifest)
    return Bundle(path=bundle.path, manifest=manifest)


@contextmanager
def changing(bundle: Bundle) -> Iterator[Path]:
    """Keeps a bundle for the block, which may add files to it and replace its manifest.

    Returns:
        The bundle's absolute path.

    Raises:
        BundleError: The bundle ships with zeroflaw, another process is changing it, or the disk
            is full.
    """
    require_changeable(bundle.path)
    path = bundle.path.absolute()
    with _disk_errors_named(path), _locked(path):
        yield path


def replace_manifest(path: Path, manifest: Manifest) -> None:
    """Replaces a bundle's manifest in one rename."""
    _replace_durably(path / MANIFEST_NAME, encode_manifest(manifest))


def _require_replaceable(target: Path, *, overwrite: bool) -> None:
    if not target.exists():
        return
    if not overwrite:
        raise BundleError(f"{target} exists already", "choose another path or pass --overwrite")
    if not (target / MANIFEST_NAME).is_file():
        raise BundleError(
            f"{target} exists and is not a bundle, so it is not replaced", "choose another path"
        )


def _clear_left_overs(target: Path) -> None:
    """Removes what killed exports left, and brings back a bundle caught between two renames."""
    name = glob.escape(target.name)
    for replaced in target.parent.glob(f".{name}.replaced-*"):
        if target.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            replaced.rename(target)
    for partial in target.parent.glob(f".{name}.partial-*"):
        shutil.rmtree(partial, ignore_errors=True)


def _publish(staging: Path, target: Path) -> None:
    for path in staging.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    if target.exists():
        old = target.with_name(f".{target.name}.replaced-{uuid4().hex[:8]}")
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


def _replace_durably(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        _write_durably(temporary, data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
        about = Path(error.filename).absolute() if error.filename else target
        if about.is_relative_to(target.parent) or target.is_relative_to(about):
            raise BundleError(
                f"{target} cannot be written: {error.strerror} ({about})",
                "check the path and its permissions",
            ) from error
        raise
