"""libzeroflaw under many threads, and when the process ends under it."""

from __future__ import annotations

import json
import signal
import subprocess
import time

import pytest

from support.embedded_library import EmbeddedLibrary
from zeroflaw_engines.bundle import Bundle

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
