"""What there is on a GPU machine: the GPU, Python, the packages, and what is lacking.

    python -m zeroflaw_benchmarks.verify.gpu_kit.machine_report

Exit code 1: a package that zeroflaw needs is lacking.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from typing import Final

# What the packages of zeroflaw import, by module, and the distribution that it is of.
_NEEDED: Final = {
    "numpy": "numpy", "cv2": "opencv-python-headless", "PIL": "pillow", "tifffile": "tifffile",
    "imagecodecs": "imagecodecs", "simplejpeg": "simplejpeg", "onnxruntime": "onnxruntime",
    "msgspec": "msgspec", "safetensors": "safetensors", "filelock": "filelock", "typer": "typer",
    "rich": "rich", "psutil": "psutil", "tokenizers": "tokenizers", "ftfy": "ftfy",
    "torch": "torch", "torchvision": "torchvision", "open_clip": "open_clip_torch",
    "segment_anything": "segment_anything", "timm": "timm", "onnx": "onnx", "onnx_ir": "onnx_ir",
    "onnxscript": "onnxscript", "requests": "requests", "tenacity": "tenacity",
    "matplotlib": "matplotlib", "skimage": "scikit-image", "sklearn": "scikit-learn",
    "scipy": "scipy", "threadpoolctl": "threadpoolctl",
}  # fmt: skip
_ON_A_GPU: Final = {
    "cuda.bindings": "cuda-bindings", "tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx-cu13",
}  # fmt: skip
_ASKED: Final = (
    "name", "driver_version", "memory.total", "memory.used", "clocks.sm", "clocks.max.sm",
    "power.draw", "temperature.gpu", "mig.mode.current",
)  # fmt: skip


def report() -> tuple[list[str], list[str]]:
    """Look at this machine.

    Returns:
        Lines of text, and the distributions that are lacking.
    """
    lines = [f"{platform.platform()}, {os.cpu_count()} cores", f"Python {sys.version}", *_gpu()]
    lacking = []
    for module, distribution in {**_NEEDED, **_ON_A_GPU}.items():
        if _is_there(module):
            lines.append(f"{distribution} {_version(distribution)}")
        elif module in _NEEDED:
            lacking.append(distribution)
        else:
            lines.append(f"{distribution}: none")
    return lines, lacking


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _gpu() -> list[str]:
    command = shutil.which("nvidia-smi")
    if command is None:
        return ["no nvidia-smi"]
    done = subprocess.run(  # noqa: S603 - the driver's own command
        [command, f"--query-gpu={','.join(_ASKED)}", "--format=csv"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return (done.stdout or done.stderr).splitlines()


def _version(distribution: str) -> str:
    # onnxruntime and onnxruntime-gpu hold the same module.
    for name in (distribution, f"{distribution}-gpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "of an unknown version"


def main() -> int:
    """Print the report."""
    lines, lacking = report()
    if lacking:
        lines.append(f"LACKING: {', '.join(lacking)}")
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())
