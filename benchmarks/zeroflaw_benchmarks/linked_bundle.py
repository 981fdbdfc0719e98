"""Copies of bundles that take no room: links to files that nobody writes to."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.manifest import ENGINES_DIRECTORY, MANIFEST_NAME


def linked_bundle(bundle: Bundle, target: Path) -> Bundle:
    """Copy a bundle, to change the products of the copy.

    A bundle that ships may have files of another (`Bundle.file`); the copy has them all.

    Args:
        target: Directory to make.

    Returns:
        The copy, its digests not verified.

    Raises:
        BundleError: A file of the bundle is missing.
    """
    target.mkdir(parents=True)
    for name in bundle.manifest.files:
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        _link(bundle.file(name), copy)
    built = bundle.path / ENGINES_DIRECTORY
    if built.is_dir():
        shutil.copytree(built, target / ENGINES_DIRECTORY, copy_function=_link)
    shutil.copyfile(bundle.path / MANIFEST_NAME, target / MANIFEST_NAME)
    return open_bundle(target, verify_digests=False)


def _link(source: str | Path, target: str | Path) -> None:
    """Link a file that only a new one takes the place of; copy it where links are not to be had."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
