"""zeroflaw: zero-shot anomaly segmentation on the line, without PyTorch.

from zeroflaw import Inspector

with Inspector.load("bundle") as inspector:
    inspection = inspector.inspect(frame, product="metal_nut")
"""

from zeroflaw.inspection import Inspection, Trace
from zeroflaw.inspector import Inspector
from zeroflaw.regions import Region
from zeroflaw_engines.errors import ZeroflawError
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.version import __version__

__all__ = [
    "Inspection",
    "Inspector",
    "MethodParameters",
    "Region",
    "Trace",
    "ZeroflawError",
    "__version__",
]
