"""Jobs shared by worker processes, each with a state of its own, such as loaded engines."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, TypeVar

import cv2
from threadpoolctl import threadpool_limits

from zeroflaw_engines.errors import EvaluationError

State = TypeVar("State")
Job = TypeVar("Job")
Result = TypeVar("Result")

_set_up: Callable[[], Any] | None = None
_state: Any = None


def run_jobs(
    work: Callable[[State, Job], Result],
    jobs: Sequence[Job],
    *,
    set_up: Callable[[], State],
    processes: int,
) -> Iterator[tuple[int, Result]]:
    """Run every job once, in any order; in this process if one is enough.

    Linear algebra runs on one thread everywhere, so that results do not depend on how many
    processes there are. When the caller stops early, jobs that have not begun are dropped.

    Args:
        work: A module-level function of the state and one job.
        jobs: What to do; each crosses to a worker by pickling.
        set_up: Makes the state, once a process; picklable.
        processes: Most processes.

    Yields:
        The index of a job and its result, as they come.

    Raises:
        EvaluationError: A worker process died.
    """
    processes = min(processes, len(jobs))
    if processes <= 1:
        with threadpool_limits(1):
            state = set_up() if jobs else None
            for index, job in enumerate(jobs):
                yield index, work(state, job)  # type: ignore[arg-type]
        return
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(
        processes, mp_context=context, initializer=_begin, initargs=(set_up,)
    )
    waiting = enumerate(jobs)
    running: dict[Future[Result], int] = {}
    try:
        while True:
            # A few jobs ahead of the workers and no more: jobs can be megabytes.
            while len(running) < 2 * processes:
                following = next(waiting, None)
                if following is None:
                    break
                index, job = following
                running[executor.submit(partial(_call, work), job)] = index
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield running.pop(future), future.result()
    except BrokenProcessPool as error:
        raise EvaluationError(
            "a worker process was killed, most likely for want of memory",
            "run the same command again with fewer --processes: what is in the cache is kept",
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _begin(set_up: Callable[[], Any]) -> None:
    global _set_up  # noqa: PLW0603 - a worker process has nowhere else to keep it
    _set_up = set_up
    cv2.setNumThreads(1)
    threadpool_limits(1)
    # Ctrl-C reaches every process of a terminal; the parent alone answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A parent that is killed cannot stop its workers, and theirs are the gigabytes.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(work: Callable[[Any, Any], Result], job: object) -> Result:
    # Set up here and not in the initializer: there, an error would only break the pool.
    global _state  # noqa: PLW0603
    if _state is None and _set_up is not None:
        _state = _set_up()
    return work(_state, job)
