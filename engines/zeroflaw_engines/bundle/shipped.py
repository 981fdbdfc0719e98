"""What ships inside the package: bundles with names, and the graph that is no bundle's own.

`mini` is whole. Each other bundle has the same towers, or the same SAM: it holds what is its own,
and has the rest from `mini`, so that a wheel has it once.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from zeroflaw_engines import arguments
from zeroflaw_engines.bundle.graph_entries import Graph
from zeroflaw_engines.bundle.manifest import MANIFEST_NAME
from zeroflaw_engines.contract import FRAME_RESIZER
from zeroflaw_engines.errors import BundleError, EngineError
from zeroflaw_engines.files import sha256_of_file

SHIPPED_NAME: Final = "mini"
SHIPPED_NAMES: Final = (SHIPPED_NAME, "mini_clipsam")
FRAME_RESIZER_PATH: Final = Path(__file__).parents[1] / "built_engines" / f"{FRAME_RESIZER}.onnx"

_PLACE = Path(__file__).parent


def bundle_path(bundle: str | Path) -> Path:
    """Find the directory that is meant where a bundle is named.

    Args:
        bundle: One of the texts `SHIPPED_NAMES`, as `mini`, is a bundle inside the package; any
            other text, and every Path, is a directory. A directory called mini is `./mini` as
            text: pass user input on as it was typed, since `Path("./mini")` loses the dot.

    Raises:
        BundleError: It is not a path, or a bundle that ships is meant and this installation
            lacks it.
    """
    arguments.path("the bundle", bundle, error=BundleError)
    if not isinstance(bundle, str) or bundle not in SHIPPED_NAMES:
        return Path(bundle)
    directory = _PLACE / bundle
    if not (directory / MANIFEST_NAME).is_file():
        raise BundleError(
            f"this installation of zeroflaw lacks the bundle {bundle!r}: there is no"
            f" {directory / MANIFEST_NAME}",
            "install zeroflaw from its wheel, or name a bundle that `zeroflaw export` wrote"
            f" (a directory called {bundle} is ./{bundle})",
        )
    return directory


def is_shipped(bundle: Path) -> bool:
    """Return whether a directory is a bundle that ships."""
    return bundle.resolve() in {(_PLACE / name).resolve() for name in SHIPPED_NAMES}


def file_of_bundle(bundle: Path, name: str) -> Path:
    """Find a file of a bundle: in its directory, or where a bundle that ships has it from.

    Args:
        name: As the manifest has it.

    Returns:
        The path; the file need not be there.
    """
    own = bundle / name
    if own.exists() or not is_shipped(bundle):
        return own
    return _PLACE / SHIPPED_NAME / name


def require_changeable(bundle: Path) -> None:
    """Refuse to change a bundle that ships, which is part of the installation.

    Raises:
        BundleError: The directory is a bundle that ships.
    """
    if is_shipped(bundle):
        name = bundle.resolve().name
        raise BundleError(
            f"the bundle {name!r} is part of the installation and is not changed",
            f"copy it with `zeroflaw bundle copy {name} DIR`, and change the copy",
        )


@cache
def shipped_frame_resizer() -> Graph:
    """Return the graph of `frame_resizer`, which every bundle shares.

    Raises:
        EngineError: This installation lacks it.
    """
    try:
        digest = sha256_of_file(FRAME_RESIZER_PATH)
    except OSError as error:
        raise EngineError(
            f"this installation of zeroflaw lacks {FRAME_RESIZER_PATH}: {error.strerror}",
            "install zeroflaw from its wheel",
        ) from error
    return Graph(
        engine=FRAME_RESIZER,
        path=FRAME_RESIZER_PATH,
        weights_path=None,
        opset=23,
        precision="fp32",
        attention="none",
        recipe=None,
        sha256={FRAME_RESIZER_PATH.name: digest},
    )
