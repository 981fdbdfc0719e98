"""Garbage that must not be collected inside native calls."""

from __future__ import annotations

import gc
import threading
import weakref

from zeroflaw_engines.process.collection import collection_postponed, release_locals


def test_nothing_is_collected_until_the_last_block_ends() -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with collection_postponed():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with collection_postponed():
        thread.start()
        assert inside.wait(10)
        assert not gc.isenabled()
    assert not gc.isenabled()
    leave.set()
    thread.join()
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with collection_postponed():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_an_error_lets_go_of_what_its_functions_held() -> None:
    class Native:
        pass

    held: list[weakref.ref[Native]] = []

    def work() -> None:
        native = Native()
        held.append(weakref.ref(native))
        raise KeyError("deep")

    def wrap() -> None:
        native = Native()
        held.append(weakref.ref(native))
        try:
            work()
        except KeyError as error:
            raise ValueError("outer") from error

    kept = None
    try:
        wrap()
    except ValueError as error:
        release_locals(error)
        kept = error
    assert kept is not None
    assert len(held) == 2
    assert [one() for one in held] == [None, None]
