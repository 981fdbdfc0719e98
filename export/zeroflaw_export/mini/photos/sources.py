"""Where the photos come from: archives of public registries, each with its licence."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from zeroflaw_engines.errors import DatasetError
from zeroflaw_export.weights.download import Digest

OUR_SOURCES: Final = Path(__file__).with_name("sources.toml")

_REMEDY: Final = "write it as zeroflaw_export/mini/photos/sources.toml is written"


@dataclass(frozen=True)
class PhotoSource:
    """An archive, and which of its members are wanted.

    Attributes:
        name: Name of the folder of its photos.
        kind: `deb` for a package of Debian, `pypi` for a wheel.
        package: Name in the registry.
        version: As the registry writes it.
        url: Where the archive is, for everyone.
        sha256: Of the archive.
        licences: Of the photos, by SPDX where it has a name for them.
        credit: Whom to name.
        include: Regular expression that a member's path must match somewhere, in any case.
        exclude: Regular expression that it must not match; empty excludes nothing.
        cut_out: Whether photos of objects with a transparent surrounding are laid on plain grey;
            otherwise pictures with transparent parts are left out.
    """

    name: str
    kind: Literal["deb", "pypi"]
    package: str
    version: str
    url: str
    sha256: str
    licences: tuple[str, ...]
    credit: str
    include: str
    exclude: str = ""
    cut_out: bool = False

    @property
    def digest(self) -> Digest:
        """What the archive must hash to."""
        return Digest("sha256", self.sha256)

    @property
    def archive(self) -> str:
        """Name of the archive's file."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class PhotoSources:
    """All sources, and what none of them may give.

    Attributes:
        exclude: Regular expressions of member paths that are left out of every source.
        sources: In the order in which they are fetched.
    """

    exclude: tuple[str, ...]
    sources: tuple[PhotoSource, ...]

    def wants(self, source: PhotoSource, member: str) -> bool:
        """Tell whether a member of the archive of one source is a photo that is wanted."""
        found = re.compile(source.include, re.IGNORECASE).search(member)
        unwanted = [*self.exclude, *([source.exclude] if source.exclude else [])]
        return found is not None and not any(
            re.search(pattern, member, re.IGNORECASE) for pattern in unwanted
        )


def read_photo_sources(path: Path = OUR_SOURCES) -> PhotoSources:
    """Read the sources from a TOML file.

    Raises:
        DatasetError: The file is missing or is not such a file.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        found = msgspec.convert(raw, PhotoSources)
        for source in found.sources:
            for pattern in (source.include, source.exclude, *found.exclude):
                re.compile(pattern)
    except OSError as error:
        raise DatasetError(f"the photo sources {path} cannot be read: {error}", _REMEDY) from error
    except (
        tomllib.TOMLDecodeError,
        UnicodeDecodeError,
        msgspec.ValidationError,
        re.error,
    ) as error:
        raise DatasetError(f"the photo sources {path} are not valid: {error}", _REMEDY) from error
    for name in sorted({source.name for source in found.sources}):
        if sum(source.name == name for source in found.sources) > 1:
            raise DatasetError(f"{path} names two photo sources {name}", "rename one")
        if re.fullmatch(r"[a-z0-9][a-z0-9-]*", name) is None:
            raise DatasetError(
                f"{path}: {name!r} cannot be the folder of a photo source",
                "name it in small letters, digits and hyphens",
            )
    return found
