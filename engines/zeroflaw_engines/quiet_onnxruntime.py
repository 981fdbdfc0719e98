"""ONNX Runtime without its telemetry; nothing of zeroflaw imports it from anywhere else."""

from zeroflaw_engines.telemetry import silence_onnxruntime

silence_onnxruntime()

import onnxruntime as ort  # noqa: E402 - it would begin with telemetry

__all__ = ["ort"]
