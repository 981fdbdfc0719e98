"""Calls are counted by thread, and forgotten by a fork."""

from __future__ import annotations

import threading

import pytest

from zeroflaw_engines.process.calls_under_way import CallsUnderWay


def admit() -> None:
    pass


def test_a_call_within_a_call_is_part_of_it() -> None:
    calls = CallsUnderWay()
    asked, ended = [], []
    with calls.call(lambda: asked.append(1)):
        with calls.call(lambda: asked.append(2), lambda: ended.append(calls.any)):
            assert (calls.any, calls.own, calls.of_others) == (True, True, False)
        assert calls.own
    assert asked == [1]
    assert ended == [True]
    assert (calls.any, calls.own, calls.of_others) == (False, False, False)


def test_another_thread_sees_it_as_another_s() -> None:
    calls = CallsUnderWay()
    seen = []
    with calls.call(admit):
        thread = threading.Thread(target=lambda: seen.append((calls.own, calls.of_others)))
        thread.start()
        thread.join()
    assert seen == [(False, True)]


def test_a_call_that_is_not_admitted_is_not_counted() -> None:
    calls = CallsUnderWay()

    def refuse() -> None:
        raise ValueError("closed")

    with pytest.raises(ValueError, match="closed"), calls.call(refuse):
        pass
    assert not calls.any


def test_a_call_whose_beginning_was_forgotten_ends() -> None:
    """In a fork that was made within a call."""
    calls = CallsUnderWay()
    with calls.call(admit):
        calls.forget()
        assert not calls.any
    assert not calls.any
