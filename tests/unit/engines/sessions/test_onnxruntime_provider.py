"""What ONNX Runtime's providers are given, and what they may print."""

from __future__ import annotations

import logging
import sys
import threading
import time
import tomllib
from pathlib import Path

import onnxruntime
import pytest

from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.errors import BackendUnavailableError, EngineError
from zeroflaw_engines.sessions import onnxruntime_provider
from zeroflaw_engines.sessions.onnxruntime_provider import (
    PROVIDERS,
    missing_provider,
    select_provider,
)
from zeroflaw_engines.sessions.onnxruntime_session import OnnxRuntimeSession
from zeroflaw_engines.sessions.options import OnnxRuntimeOptions

CUDA = PROVIDERS["onnxruntime-cuda"]
PROJECT = Path(__file__).parents[4] / "pyproject.toml"


@pytest.fixture(autouse=True)
def no_library_loaded() -> None:
    onnxruntime_provider._preload_once.cache_clear()


@pytest.fixture
def gpu_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime as `onnxruntime-gpu` brings it."""
    known = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: known)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)


def test_what_onnxruntime_prints_of_its_libraries_is_logged(
    gpu_wheel, monkeypatch, capsys, caplog
) -> None:
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcudnn.so.9"))
    with caplog.at_level(logging.WARNING):
        select_provider(onnxruntime.SessionOptions(), CUDA, OnnxRuntimeOptions())
    assert capsys.readouterr().out == ""
    assert "Failed to load libcudnn.so.9" in caplog.text


def test_threads_that_load_at_once_leave_standard_output_as_it_was(gpu_wheel, monkeypatch) -> None:
    loads = []

    def preload() -> None:
        loads.append(sys.stdout)
        time.sleep(0.05)

    monkeypatch.setattr(onnxruntime, "preload_dlls", preload)
    before = sys.stdout
    threads = [threading.Thread(target=onnxruntime_provider._preload_libraries) for _ in range(4)]
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    assert sys.stdout is before
    assert len(loads) == 1


@pytest.mark.parametrize(
    ("backend", "disabled"),
    [("onnxruntime", ["SkipLayerNormFusion"]), ("onnxruntime-cuda", None)],
)
def test_a_fusion_is_left_out_where_it_was_measured_to_be_slower(
    bundle: Bundle, gpu_wheel, monkeypatch, backend: str, disabled
) -> None:
    class AskedError(Exception):
        pass

    def session(path, settings, *, disabled_optimizers, providers):
        assert disabled_optimizers == disabled
        raise AskedError

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with pytest.raises(EngineError, match="cannot load") as caught:
        OnnxRuntimeSession(
            bundle.onnx_path("sam_decoder"),
            bundle.contract("sam_decoder"),
            provider=PROVIDERS[backend],
        )
    assert isinstance(caught.value.__cause__, AskedError)


@pytest.mark.parametrize(
    ("backend", "version", "minimum"),
    [
        ("onnxruntime-cuda", "1.24.4", "1.25"),
        ("onnxruntime-tensorrt", "1.24.4", "1.25"),
        ("onnxruntime-tensorrt-rtx", "1.29.1", "1.30"),
    ],
)
def test_a_version_that_lacks_what_a_gpu_takes_is_refused(
    monkeypatch, backend: str, version: str, minimum: str
) -> None:
    provider = PROVIDERS[backend]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [provider.name])
    assert missing_provider(provider) is None
    monkeypatch.setattr(onnxruntime, "__version__", version)
    missing = missing_provider(provider)
    assert missing == f"ONNX Runtime {version} is too old for {provider.name}: {minimum} is needed"
    with pytest.raises(BackendUnavailableError, match="too old"):
        select_provider(onnxruntime.SessionOptions(), provider, OnnxRuntimeOptions())
    monkeypatch.setattr(onnxruntime, "__version__", minimum + ".0")
    assert missing_provider(provider) is None


def test_the_extra_asks_for_the_version_that_the_provider_asks_for() -> None:
    extras = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]
    minimum = ".".join(map(str, CUDA.since))
    assert extras["gpu"] == [f"onnxruntime-gpu>={minimum}"]


def test_the_cpu_s_provider_takes_what_the_project_takes() -> None:
    assert missing_provider(onnxruntime_provider.CPU) is None
