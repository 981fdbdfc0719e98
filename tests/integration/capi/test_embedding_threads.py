"""libzeroflaw under many threads, in forks, and when the process ends under it."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter

import pytest

from support.embedded_library import EmbeddedLibrary
from zeroflaw.capi.abi import Status
from zeroflaw_engines.bundle.bundle import Bundle

THREADS = 4


def test_four_threads_get_the_same_result_every_time(
    library: EmbeddedLibrary, tiny_bundle: Bundle
) -> None:
    """docs/embedding.md has the figures of 2,000 calls; this is the same with fewer."""
    ended = library.run(library.drivers / "soak", tiny_bundle.path, "object", THREADS, 40)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["calls"] == THREADS * 40
    assert found["wrong"] == found["failed"] == 0
    # The shared inspector's own calls: one before the threads, 7 of 8 in half of the threads.
    assert found["heartbeat"] == 1 + THREADS // 2 * 35


@pytest.mark.parametrize("delay", [0, 0.2])
@pytest.mark.parametrize("exiting_thread", ["main", "other"])
def test_exit_during_calls_is_clean(
    library: EmbeddedLibrary, tiny_bundle: Bundle, exiting_thread: str, delay: float
) -> None:
    process = subprocess.Popen(
        [library.drivers / "soak", tiny_bundle.path, "object", str(THREADS), exiting_thread],
        env=library.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    # 130 is what the program exits with; a crash would be a negative code.
    assert process.returncode == 130, errors
    assert errors == ""


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_calls_in_a_fork_are_refused_and_its_exit_is_clean(
    library: EmbeddedLibrary, tiny_bundle: Bundle, backend: str
) -> None:
    ended = library.run(
        library.drivers / "forked", tiny_bundle.path, "object", backend, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    lines = [line.split("\t") for line in ended.stdout.splitlines()]
    # A child that hangs is ended by SIGALRM, and its code is -14.
    children = [(name, code) for name, code, _ in lines if "child" in name and " in a " not in name]
    assert len(children) == 11
    assert {code for _, code in children} == {"7"}, children
    assert [code for name, code, _ in lines if " in a fresh child" in name] == ["0"] * 3
    assert {code for name, code, _ in lines if "parent" in name or "again" in name} == {"0"}
    calls = [line for line in lines if " " not in line[0] and line[0] not in ("child", "version")]
    counts = Counter(name for name, _, _ in calls)
    assert len(counts) == 15
    assert set(counts.values()) == {8}
    for name, status, text in calls:
        assert int(status) == Status.ENVIRONMENT, name
        assert "this process is a fork of the one that runs Python" in text
        assert " -- fork first and call zeroflaw_create in the child" in text
