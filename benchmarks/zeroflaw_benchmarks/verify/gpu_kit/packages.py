"""The packages that a kit carries: which, and how they are put together for another machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from zeroflaw_benchmarks.verify.gpu_kit.fatbin_keep import keep_architecture
from zeroflaw_engines.errors import BenchmarkError

# What an image with PyTorch, ONNX and the usual packages of science lacks.
BASE: Final = (
    "msgspec==0.22.0",
    "simplejpeg==1.9.0",
    "imagecodecs==2026.3.6",
    "open_clip_torch==3.3.0",
    "segment_anything==1.0",
    "ftfy==6.3.1",
    "wcwidth==0.9.4",
    "tenacity",
)
ONNXRUNTIME_GPU: Final = "onnxruntime-gpu==1.31.1"
TENSORRT_RTX: Final = (
    "tensorrt-rtx-cu13-libs==1.7.1.116",
    "tensorrt-rtx-cu13-bindings==1.7.1.116",
)
# The module itself, of which there is no wheel.
TENSORRT_RTX_SOURCE: Final = "tensorrt-rtx-cu13==1.7.1.116"
_PLATFORMS: Final = (
    "manylinux_2_39_x86_64", "manylinux_2_28_x86_64", "manylinux_2_27_x86_64",
    "manylinux_2_24_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64",
    "manylinux1_x86_64",
)  # fmt: skip
_PROVIDER: Final = "libonnxruntime_providers_cuda.so"
# For other programs than Python, and of no use to an inspection.
_LEFT_OUT: Final = (
    "transformers", "tools", "quantization", "datasets", "backend", "ThirdPartyNotices.txt",
    "capi/libonnxruntime_providers_tensorrt.so",
)  # fmt: skip
_LAST_LINES: Final = 6


def install(packages: Sequence[str], target: Path, python: str) -> None:
    """Install wheels for another Linux machine into a folder, without what they depend on.

    Args:
        packages: As pip takes them, files of wheels among them.
        python: Version of that machine's Python, as `3.12`.

    Raises:
        BenchmarkError: pip failed.
    """
    abi = f"cp{python.replace('.', '')}"
    platforms = [word for name in _PLATFORMS for word in ("--platform", name)]
    _pip(
        "install", "--no-deps", "--no-compile", "--only-binary=:all:", "--upgrade",
        "--implementation", "cp", "--python-version", python,
        "--abi", abi, "--abi", "abi3", "--abi", "none", *platforms,
        "--target", str(target), *packages,
    )  # fmt: skip


def install_onnxruntime(target: Path, python: str, architecture: int) -> None:
    """Install ONNX Runtime with its CUDA provider, for one architecture of GPUs.

    Args:
        architecture: Compute capability without its point, as 90.

    Raises:
        BenchmarkError: pip failed, or there is no code for such GPUs.
    """
    install([ONNXRUNTIME_GPU], target, python)
    package = target / "onnxruntime"
    for name in _LEFT_OUT:
        path = package / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for library in (package / "capi").glob("libonnxruntime.so.*"):
        library.unlink()
    provider = package / "capi" / _PROVIDER
    keep_architecture(provider, provider, architecture)


def install_tensorrt_rtx(target: Path, python: str) -> None:
    """Install TensorRT-RTX.

    Raises:
        BenchmarkError: pip failed.
    """
    wheels = target.with_name(f"{target.name}.wheels")
    _pip("wheel", "--no-deps", "--wheel-dir", str(wheels), TENSORRT_RTX_SOURCE)
    install([*TENSORRT_RTX, *map(str, wheels.glob("*.whl"))], target, python)


def _pip(*words: str) -> None:
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = " | ".join(done.stderr.strip().splitlines()[-_LAST_LINES:])
        raise BenchmarkError(
            f"pip {words[0]} failed: {said}", "pack where PyPI, or a mirror of it, can be reached"
        )
