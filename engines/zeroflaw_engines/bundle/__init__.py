"""The bundle: the directory that is the whole contract between workstation and station.

    from zeroflaw_engines.bundle import open_bundle

    bundle = open_bundle("bundle")

NumPy and msgspec are imported with the first name that needs them, not with the package.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zeroflaw_engines.bundle.bundle import Bundle, open_bundle, read_manifest
    from zeroflaw_engines.bundle.graph_entries import Graph
    from zeroflaw_engines.bundle.manifest import Calibration, Manifest, Product
    from zeroflaw_engines.bundle.products.writer import add_products, set_calibration
    from zeroflaw_engines.bundle.writer import copy_bundle, upgrade_bundle

__all__ = [
    "Bundle",
    "Calibration",
    "Graph",
    "Manifest",
    "Product",
    "add_products",
    "copy_bundle",
    "open_bundle",
    "read_manifest",
    "set_calibration",
    "upgrade_bundle",
]

_MODULES = {
    "Bundle": "zeroflaw_engines.bundle.bundle",
    "Calibration": "zeroflaw_engines.bundle.manifest",
    "Graph": "zeroflaw_engines.bundle.graph_entries",
    "Manifest": "zeroflaw_engines.bundle.manifest",
    "Product": "zeroflaw_engines.bundle.manifest",
    "add_products": "zeroflaw_engines.bundle.products.writer",
    "copy_bundle": "zeroflaw_engines.bundle.writer",
    "open_bundle": "zeroflaw_engines.bundle.bundle",
    "read_manifest": "zeroflaw_engines.bundle.bundle",
    "set_calibration": "zeroflaw_engines.bundle.products.writer",
    "upgrade_bundle": "zeroflaw_engines.bundle.writer",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
