"""Adding graphs for other targets to a bundle that exists already."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from zeroflaw_engines.bundle.bundle import Bundle, open_bundle, read_manifest
from zeroflaw_engines.bundle.directory.lock import MOVED_NAME, PARTIAL
from zeroflaw_engines.bundle.graph_entries import EngineFile, GraphVariant
from zeroflaw_engines.bundle.manifest import FileEntry, Manifest, ParityFigure, brought_up
from zeroflaw_engines.bundle.writer import changing, replace_manifest
from zeroflaw_engines.contract import EngineName
from zeroflaw_engines.errors import BundleError
from zeroflaw_engines.files import sha256_of_files, sync, write_durably


@dataclass
class AddedVariants:
    """What is to be added to a bundle.

    Attributes:
        directory: Where the files of the graphs are written.
        variants: The graphs by engine.
        parity: Figures of their checks.
    """

    directory: Path
    variants: dict[EngineName, GraphVariant] = field(default_factory=dict)
    parity: list[ParityFigure] = field(default_factory=list)


@contextmanager
def added_variants(bundle: Bundle) -> Iterator[AddedVariants]:
    """Give a directory for graphs to be added; they join the bundle when the block ends well.

    The manifest is replaced last, so that a reader sees all of them or none. The reference
    graphs, and with them the bundle's identity, stay as they are.

    Raises:
        BundleError: The bundle has a graph for such a target already, cannot be written, or
            another process is changing it.
    """
    with changing(bundle) as path:
        current = open_bundle(path, verify_digests=False).manifest
        staging = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=path))
        moved: list[Path] = []
        try:
            added = AddedVariants(directory=staging)
            yield added
            engines = _with_variants(path, current, added.variants)
            new = sorted(staging.iterdir())
            files = {
                file.name: FileEntry(sha256=digest, bytes=file.stat().st_size)
                for file, digest in sha256_of_files(new).items()
            }
            # Should this process be killed, the next writer removes what was moved.
            write_durably(staging / MOVED_NAME, "\n".join(files).encode())
            for file in new:
                sync(file)
                moved.append(file.replace(path / file.name))
            replace_manifest(
                path,
                brought_up(
                    current,
                    engines=engines,
                    parity=(*current.parity, *added.parity),
                    files={**current.files, **files},
                ),
            )
        except BaseException:
            kept = read_manifest(path).files
            for file in moved:
                if file.name not in kept:
                    file.unlink(missing_ok=True)
            raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _with_variants(
    path: Path, manifest: Manifest, variants: Mapping[EngineName, GraphVariant]
) -> dict[EngineName, EngineFile]:
    engines = dict(manifest.engines)
    for name, variant in variants.items():
        if engines[name].variant(variant.target):
            raise BundleError(
                f"{path} has a graph of {name} for {variant.target} already",
                "export the bundle again to make it anew",
            )
        engines[name] = msgspec.structs.replace(
            engines[name], variants=(*engines[name].variants, variant)
        )
    return engines
