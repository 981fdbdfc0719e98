"""zeroflaw: zero-shot anomaly segmentation on the line, without PyTorch.

    from zeroflaw import Inspector

    with Inspector.load("bundle") as inspector:
        inspection = inspector.inspect(frame, product="metal_nut")

NumPy and OpenCV are imported with the first name that needs them, not with the package.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from zeroflaw_engines.version import __version__

if TYPE_CHECKING:
    from zeroflaw import errors
    from zeroflaw.inspection import Inspection
    from zeroflaw.inspector import Inspector
    from zeroflaw.pictures.images import read_image
    from zeroflaw.pictures.overlay import draw_overlay
    from zeroflaw.pipeline.masks.regions import Region
    from zeroflaw.pipeline.trace import Trace
    from zeroflaw.records.decision import Reason
    from zeroflaw.records.record import InspectionRecord
    from zeroflaw.station.products.editing import EditedProduct, edit_product
    from zeroflaw.stream.result import StreamResult
    from zeroflaw.stream.stream import InspectionStream
    from zeroflaw_engines.bundle.products.settings import (
        Alignment,
        ProductSettings,
        Rule,
        Tiles,
        Zone,
    )
    from zeroflaw_engines.errors import ZeroflawError
    from zeroflaw_engines.parameters import MethodParameters

__all__ = [
    "Alignment",
    "EditedProduct",
    "Inspection",
    "InspectionRecord",
    "InspectionStream",
    "Inspector",
    "MethodParameters",
    "ProductSettings",
    "Reason",
    "Region",
    "Rule",
    "StreamResult",
    "Tiles",
    "Trace",
    "ZeroflawError",
    "Zone",
    "__version__",
    "draw_overlay",
    "edit_product",
    "errors",
    "read_image",
]

_MODULES = {
    "Alignment": "zeroflaw_engines.bundle.products.settings",
    "EditedProduct": "zeroflaw.station.products.editing",
    "Inspection": "zeroflaw.inspection",
    "InspectionRecord": "zeroflaw.records.record",
    "InspectionStream": "zeroflaw.stream.stream",
    "Inspector": "zeroflaw.inspector",
    "MethodParameters": "zeroflaw_engines.parameters",
    "ProductSettings": "zeroflaw_engines.bundle.products.settings",
    "Reason": "zeroflaw.records.decision",
    "Region": "zeroflaw.pipeline.masks.regions",
    "Rule": "zeroflaw_engines.bundle.products.settings",
    "StreamResult": "zeroflaw.stream.result",
    "Tiles": "zeroflaw_engines.bundle.products.settings",
    "Trace": "zeroflaw.pipeline.trace",
    "ZeroflawError": "zeroflaw_engines.errors",
    "Zone": "zeroflaw_engines.bundle.products.settings",
    "draw_overlay": "zeroflaw.pictures.overlay",
    "edit_product": "zeroflaw.station.products.editing",
    "read_image": "zeroflaw.pictures.images",
}


def __getattr__(name: str) -> object:
    if name == "errors":
        return import_module("zeroflaw.errors")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
