"""What ships inside the package: the bundle `mini`, and the graph that is no bundle's own."""

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
FRAME_RESIZER_PATH: Final = Path(__file__).parents[1] / "built_engines" / f"{FRAME_RESIZER}.onnx"

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
