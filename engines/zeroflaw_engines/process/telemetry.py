"""Telemetry of the libraries that run engines: off, unless the user wants it.

ONNX Runtime from 1.29 on writes an identifier of the device and a queue of events under the home
directory, and sends them to Microsoft. OpenVINO writes an identifier there and sends an event to
an analytics service each time that it is imported. Both begin with the import, so both are
switched off before it: everything of zeroflaw that needs one of them asks this module for it.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Final

# `1` leaves the libraries as they are.
VARIABLE: Final = "ZEROFLAW_TELEMETRY"


def telemetry_is_wanted() -> bool:
    """Return whether the user wants the telemetry of others: `ZEROFLAW_TELEMETRY=1`."""
    return os.environ.get(VARIABLE) == "1"


def silence_onnxruntime() -> None:
    """Switch off ONNX Runtime's telemetry; to be called before its import.

    It reads the variable as it is loaded, and so do child processes. Where it has been imported
    already, its events are switched off.
    """
    if telemetry_is_wanted():
        return
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    loaded = sys.modules.get("onnxruntime")
    if loaded is not None:
        loaded.disable_telemetry_events()


def import_openvino() -> ModuleType:
    """Import OpenVINO, which sends nothing on the way.

    Raises:
        ImportError: It is not installed, or its libraries cannot be loaded.
        OSError: Its libraries cannot be loaded.
    """
    with without_openvino_telemetry():
        return importlib.import_module("openvino")


@contextmanager
def without_openvino_telemetry() -> Iterator[None]:
    """Keep OpenVINO's telemetry from being imported: OpenVINO has a stub for that case.

    What is imported already is not changed.
    """
    name = "openvino_telemetry"
    if telemetry_is_wanted() or name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # how Python says: there is none
    try:
        yield
    finally:
        del sys.modules[name]
