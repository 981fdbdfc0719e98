"""The kit's parts in place on the GPU machine, and the environment in which its steps run."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zeroflaw_benchmarks.verify.gpu_kit.pieces import Contents, Part, join
from zeroflaw_engines.errors import BenchmarkError

PACKAGES: Final = ("engines", "export", "runtime", "benchmarks")
# Parts whose packages are to be found before those of the machine, and in this order.
_SITES: Final = ("ort", "rtx", "site")
_TREE: Final = "tree"


@dataclass(frozen=True)
class Place:
    """Where everything lies on the GPU machine.

    Attributes:
        work: The folder of the kit; may be used again by later calls.
        checkout: A checkout of zeroflaw in place of the part `tree`; None takes the part.
    """

    work: Path
    checkout: Path | None = None

    @property
    def tree(self) -> Path:
        """Return the checkout whose packages run."""
        return self.checkout or self.part(_TREE)

    @property
    def reports(self) -> Path:
        """Return the folder of the reports."""
        return self.work / "reports"

    @property
    def logs(self) -> Path:
        """Return the folder of what the steps print."""
        return self.work / "logs"

    @property
    def chunks(self) -> Path:
        """Return the folder of the chunks that have arrived."""
        return self.work / "chunks"

    def part(self, name: str) -> Path:
        """Return the folder of a part."""
        return self.work / "parts" / name

    def has(self, part: str) -> bool:
        """Say whether a part is in place."""
        return self._mark(part).is_file() or (part == _TREE and self.checkout is not None)

    def _mark(self, part: str) -> Path:
        return self.work / "parts" / f"{part}.sha256"


def install(contents: Contents, place: Place) -> list[str]:
    """Put the parts in place whose chunks are all here; one that is there already stays.

    Returns:
        The names of the parts that are not there yet.

    Raises:
        BenchmarkError: An archive cannot be unpacked.
    """
    missing = []
    for part in contents.parts:
        if part.name == _TREE and place.checkout is not None:
            continue
        mark = place.work / "parts" / f"{part.name}.sha256"
        if mark.is_file() and mark.read_text() == part.sha256:
            continue
        if _unpacked(part, place):
            mark.write_text(part.sha256)
        else:
            missing.append(part.name)
    if place.has(_TREE) and place.has("site"):
        _name_commands(place)
    return missing


def _unpacked(part: Part, place: Place) -> bool:
    folder = place.part(part.name)
    folder.mkdir(parents=True, exist_ok=True)
    archive = place.work / f"{part.name}.tar.xz"
    if not join(part, place.chunks, archive):
        return False
    try:
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
    except (OSError, tarfile.TarError, EOFError) as error:
        raise BenchmarkError(
            f"{archive} cannot be unpacked: {error}", f"free disk space at {place.work}"
        ) from error
    archive.unlink()
    return True


def _name_commands(place: Place) -> None:
    """Write what a distribution says of itself: zeroflaw finds its commands by entry points."""
    project = tomllib.loads((place.tree / "pyproject.toml").read_text("utf-8"))["project"]
    folder = place.part("site") / "zeroflaw-0.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: zeroflaw\nVersion: 0\n")
    groups: Mapping[str, Mapping[str, str]] = {
        "console_scripts": project["scripts"],
        **project["entry-points"],
    }
    lines = []
    for group, entries in groups.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def environment(place: Place, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of the steps: the kit's packages first, NVIDIA's libraries found."""
    sites = [place.part(name) for name in _SITES if place.has(name)]
    paths = [*sites, *(place.tree / name for name in PACKAGES)]
    set_here = {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
    }
    libraries = nvidia_packages()
    if libraries is not None:
        if place.has("ort"):
            # ONNX Runtime looks for NVIDIA's packages beside itself alone.
            link = place.part("ort") / "nvidia"
            if not link.exists():
                link.unlink(missing_ok=True)
                link.symlink_to(libraries)
        found = sorted({str(path.parent) for path in libraries.glob("*/lib/*.so*")})
        earlier = inherited.get("LD_LIBRARY_PATH")
        set_here["LD_LIBRARY_PATH"] = os.pathsep.join([*found, *([earlier] if earlier else [])])
    return {**inherited, **set_here}


def nvidia_packages() -> Path | None:
    """Return the folder of NVIDIA's packages of this Python; None if there are none."""
    found = importlib.util.find_spec("nvidia")
    places = [] if found is None else list(found.submodule_search_locations or ())
    return Path(places[0]) if places else None


def has_module(name: str, variables: Mapping[str, str]) -> bool:
    """Say whether the steps' Python finds a module; it is not imported."""
    look = f"import importlib.util as u, sys; sys.exit(u.find_spec({name!r}) is None)"
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", look], env=dict(variables), check=False, capture_output=True
    )
    return done.returncode == 0
