"""ONNX Runtime without its telemetry; nothing of zeroflaw imports it from anywhere else."""

from typing import Final

from zeroflaw_engines.process.telemetry import silence_onnxruntime

silence_onnxruntime()

import onnxruntime as ort  # noqa: E402 - it would begin with telemetry

__all__ = ["ort", "quiet_settings"]

_ERRORS_ONLY: Final = 3


def quiet_settings() -> ort.SessionOptions:
    """Give session settings with which it reports errors, not warnings, on standard error."""
    settings = ort.SessionOptions()
    settings.log_severity_level = _ERRORS_ONLY
    return settings
