"""The bundle that ships inside the package, and what its name means."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from zeroflaw_engines import arguments
from zeroflaw_engines.bundle.manifest import MANIFEST_NAME
from zeroflaw_engines.errors import BundleError

SHIPPED_NAME: Final = "mini"

_DIRECTORY = Path(__file__).with_name(SHIPPED_NAME)


def bundle_path(bundle: str | Path) -> Path:
    """Find the directory that is meant where a bundle is named.

    Args:
        bundle: The text `mini` is the bundle inside the package; any other text, and every
            Path, is a directory. A directory called mini is `./mini` as text: pass user input
            on as it was typed, since `Path("./mini")` loses the dot.

    Raises:
        BundleError: It is not a path, or the bundle that ships is meant and this installation
            lacks it.
    """
    arguments.path("the bundle", bundle, error=BundleError)
    if not isinstance(bundle, str) or bundle != SHIPPED_NAME:
        return Path(bundle)
    if not (_DIRECTORY / MANIFEST_NAME).is_file():
        raise BundleError(
            f"this installation of zeroflaw lacks the bundle {SHIPPED_NAME!r}: there is no"
            f" {_DIRECTORY / MANIFEST_NAME}",
            "install zeroflaw from its wheel, or name a bundle that `zeroflaw export` wrote"
            f" (a directory called {SHIPPED_NAME} is ./{SHIPPED_NAME})",
        )
    return _DIRECTORY


def is_shipped(bundle: Path) -> bool:
    """Return whether a directory is the bundle that ships."""
    return bundle.resolve() == _DIRECTORY.resolve()


def require_changeable(bundle: Path) -> None:
    """Refuse to change the bundle that ships, which is part of the installation.

    Raises:
        BundleError: The directory is the bundle that ships.
    """
    if is_shipped(bundle):
        raise BundleError(
            f"the bundle {SHIPPED_NAME!r} is part of the installation and is not changed",
            f"copy it with `zeroflaw bundle copy {SHIPPED_NAME} DIR`, and change the copy",
        )
