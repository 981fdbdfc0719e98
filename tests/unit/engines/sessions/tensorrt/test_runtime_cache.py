"""Kernels that TensorRT-RTX compiled here: saved as soon as there are more of them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from filelock import FileLock

from support.gpu.engine_calls import decoder_inputs, load
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.files import temporary_pattern
from zeroflaw_engines.sessions.tensorrt import runtime_cache


def cache_file(bundle: Bundle) -> Path:
    [plan] = bundle.path.rglob("sam_decoder.engine")
    return plan.with_suffix(".runtime_cache")


def test_a_station_that_is_killed_has_what_it_compiled(bundle: Bundle, gpu) -> None:
    session = load(bundle, "sam_decoder")
    session.prepare()
    assert cache_file(bundle).read_bytes() == gpu.compiled
    gpu.compiled = b"kernels of this GPU, and of the graph"
    session.capture()
    assert cache_file(bundle).read_bytes() == gpu.compiled
    gpu.compiled = b"kernels of this GPU, of the graph, and of three prompts"
    session.execute(decoder_inputs(bundle, 3))
    assert cache_file(bundle).read_bytes() == gpu.compiled
    gpu.compiled = b"kernels that came later"
    session.close()
    assert cache_file(bundle).read_bytes() == gpu.compiled
    assert not list(bundle.path.rglob(temporary_pattern(cache_file(bundle).name)))


def test_calls_of_known_shapes_write_nothing(bundle: Bundle, gpu) -> None:
    session = load(bundle, "sam_decoder")
    for batch in (1, 2, 3):
        session.execute(decoder_inputs(bundle, batch))
    gpu.compiled = b"the same kernels, written in another order"
    before = cache_file(bundle).stat().st_mtime_ns
    for batch in (1, 2, 3, 2, 1):
        session.execute(decoder_inputs(bundle, batch))
    assert cache_file(bundle).stat().st_mtime_ns == before


def test_a_cache_that_cannot_be_had_is_no_error(bundle: Bundle, gpu, caplog) -> None:
    gpu.compiled, gpu.take_cache = None, False
    session = load(bundle, "sam_decoder")
    session.prepare()
    session.close()
    assert "takes no runtime cache" in caplog.text
    assert "gives no runtime cache" in caplog.text
    assert not cache_file(bundle).exists()


def test_a_cache_of_another_gpu_is_replaced(bundle: Bundle, gpu) -> None:
    cache_file(bundle).write_bytes(gpu.compiled)
    gpu.refuse_cache = True
    before = cache_file(bundle).stat().st_ino
    session = load(bundle, "sam_decoder")
    session.prepare()
    assert cache_file(bundle).read_bytes() == gpu.compiled
    assert cache_file(bundle).stat().st_ino != before


def test_two_processes_take_turns(
    bundle: Bundle, gpu, caplog, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = cache_file(bundle)
    session = load(bundle, "sam_decoder")
    with FileLock(file.with_name(f".{file.name}.lock")):
        saving = threading.Thread(target=session.prepare)
        saving.start()
        saving.join(0.3)
        assert saving.is_alive()
        assert not file.exists()
    saving.join(60)
    assert file.read_bytes() == gpu.compiled
    monkeypatch.setattr(runtime_cache, "_LOCK_SECONDS", 0.05)
    gpu.compiled = b"more kernels"
    with FileLock(file.with_name(f".{file.name}.lock")):
        session.close()
    assert "written by another process" in caplog.text
    assert file.read_bytes() != gpu.compiled


def test_clones_share_one_cache(bundle: Bundle, gpu) -> None:
    session = load(bundle, "sam_decoder")
    clone = session.clone()
    for one in (session, clone):
        one.prepare()
    caches = {id(config.set_runtime_cache.call_args.args[0]) for config in gpu.configs}
    assert len(gpu.configs) == 2
    assert len(caches) == 1
