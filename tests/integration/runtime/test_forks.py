"""Inspectors and streams in forks of the process that made them: errors, and nothing that hangs."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys

import pytest

SETUP = """
import os, pickle, sys, threading, time, signal, numpy as np
from zeroflaw import Inspector, InspectionStream, ZeroflawError
FRAME = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
inspector = Inspector.load("mini", sys.argv[1], threads=2)
inspector.inspect(FRAME, product="object")
encoded = inspector.encode_frame(FRAME, product="object")
stream = InspectionStream(inspector)
stream.submit(FRAME, product="object")

def in_a_child(work):
    '''Runs it in a fork; gives its exit code, or -1 after ten seconds.'''
    child = os.fork()
    if child == 0:
        work()
        sys.exit(0)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    return -1

def refused(call):
    def work():
        try:
            call()
        except ZeroflawError as error:
            assert error.code == "process", error
            assert "fork" in error.cause and "spawn" in error.remedy, error
            sys.exit(7)
    return work
"""
REFUSED = {
    "inspect": "inspector.inspect(FRAME, product='object')",
    "encode_frame": "inspector.encode_frame(FRAME, product='object')",
    "decode_frame": "inspector.decode_frame(encoded)",
    "warm_up": "inspector.warm_up()",
    "reload": "inspector.reload()",
    "submit": "stream.submit(FRAME, product='object')",
    "submit with a deadline": "stream.submit(FRAME, product='object', deadline_ms=5)",
    "poll": "stream.poll()",
    "drain": "list(stream.drain())",
    "health": "stream.health()",
    "session.prepare": "inspector.sessions.clip_encoder.prepare()",
    "session.capture": "inspector.sessions.clip_encoder.prepare()",
    "stream on the parent's": "InspectionStream(inspector).submit(FRAME) and stream.poll()",
}


def run(code: str, backend: str = "onnxruntime") -> str:
    done = subprocess.run(
        [sys.executable, "-c", SETUP + code, backend],
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_every_call_in_a_fork_says_what_to_do_and_closing_does_nothing(backend: str) -> None:
    calls = {name: f"lambda: {call}" for name, call in REFUSED.items()}
    table = ", ".join(f"{name!r}: {call}" for name, call in calls.items())
    out = run(
        f"""
calls = {{{table}}}
for name, call in calls.items():
    print(name, in_a_child(refused(call)), sep=": ")
def leave():
    with inspector, stream:
        pass
print("with", in_a_child(leave), sep=": ")
print("close", in_a_child(lambda: (stream.close(), inspector.close())), sep=": ")
print("session.close", in_a_child(inspector.sessions.sam_encoder.close), sep=": ")
print("end", in_a_child(lambda: None), sep=": ")
def forget():
    global inspector, stream
    del inspector, stream
    import gc
    gc.collect()
print("forget", in_a_child(forget), sep=": ")
# The parent goes on as if nothing had been.
assert stream.poll().decision is not None
inspector.inspect(FRAME, product="object")
stream.close()
inspector.close()
""",
        backend,
    )
    wanted = dict.fromkeys(REFUSED, "7")
    wanted |= dict.fromkeys(("with", "close", "session.close", "end", "forget"), "0")
    assert dict(line.split(": ") for line in out.splitlines()) == wanted


def test_a_fork_while_another_thread_holds_the_locks() -> None:
    out = run("""
lifetime, changed = inspector._lifetime, stream._changed
with_locks = threading.Event()
def hold():
    with lifetime._calls.changed, changed:
        with_locks.set()
        time.sleep(2)
holder = threading.Thread(target=hold)
holder.start()
with_locks.wait()
for call in (lambda: inspector.inspect(FRAME, product="object"), stream.health):
    print(in_a_child(refused(call)))
print(in_a_child(lambda: (stream.close(), inspector.close())))
holder.join()
stream.close()
""")
    assert out.split() == ["7", "7", "0"]


@pytest.mark.long
def test_forks_while_other_threads_inspect() -> None:
    """Without the gate, OpenBLAS hangs in one of the forks sooner or later."""
    out = run("""
frame = np.zeros((256, 256, 3), np.uint8)
frame[60:200, 40:180] = FRAME.repeat(3, 0).repeat(3, 1)[:140, :140]
always = inspector.parameters.replace(no_region="always_run")
other = Inspector(inspector.bundle, inspector.sessions, parameters=always)
ended = threading.Event()
decisions = []
def inspect():
    while not ended.is_set():
        decisions.append(other.inspect(frame, product="object").decision)
threads = [threading.Thread(target=inspect) for _ in range(2)]
for thread in threads:
    thread.start()
codes = [in_a_child(refused(lambda: other.inspect(FRAME, product="object"))) for _ in range(12)]
seen = len(decisions)
while len(decisions) < seen + 4:
    time.sleep(0.01)
ended.set()
for thread in threads:
    thread.join()
print(set(codes))
""")
    assert out == "{7}\n"


def test_a_child_loads_an_inspector_of_its_own() -> None:
    out = run("""
import zeroflaw
want = inspector.inspect(FRAME, product="object").image_score
def work():
    with Inspector.load("mini", threads=1) as own:
        assert abs(own.inspect(FRAME, product="object").image_score - want) < 1e-4
print(in_a_child(work))
""")
    assert out == "0\n"


def test_multiprocessing_by_fork_gets_the_error_as_an_exception() -> None:
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system has no fork")
    out = run("""
import multiprocessing
def work(_):
    return inspector.inspect(FRAME, product="object")
with multiprocessing.get_context("fork").Pool(1) as pool:
    try:
        pool.map(work, [0])
    except ZeroflawError as error:
        print(type(error).__name__, error.code)
""")
    assert out == "ProcessError process\n"
