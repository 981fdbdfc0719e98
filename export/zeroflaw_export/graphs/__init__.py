"""ONNX graphs: written from export modules, rewritten, typed for FP16."""
