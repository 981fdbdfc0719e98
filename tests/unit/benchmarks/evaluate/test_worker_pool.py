import os
import signal
from functools import partial

import pytest

from zeroflaw_benchmarks.evaluate.worker_pool import run_jobs
from zeroflaw_engines.errors import EvaluationError, ImageFileError


def work(state: int, job: int) -> tuple[int, int]:
    if job == -1:
        raise ImageFileError("the cause", "the remedy")
    if job == -2:
        os.kill(os.getpid(), signal.SIGKILL)
    return state + job, os.getpid()


def broken_set_up() -> int:
    raise EvaluationError("no state", "make one")


@pytest.mark.parametrize("processes", [1, 3])
def test_every_job_runs_once(processes):
    results = dict(run_jobs(work, list(range(20)), set_up=partial(int, 7), processes=processes))
    assert {index: value for index, (value, _) in results.items()} == {i: i + 7 for i in range(20)}
    pids = {pid for _, pid in results.values()}
    assert (os.getpid() in pids) == (processes == 1)
    assert len(pids) <= processes


@pytest.mark.parametrize("processes", [1, 2])
def test_errors_cross_with_cause_and_remedy(processes):
    with pytest.raises(ImageFileError) as caught:
        list(run_jobs(work, [1, -1, 2], set_up=partial(int, 0), processes=processes))
    assert (caught.value.cause, caught.value.remedy) == ("the cause", "the remedy")
    with pytest.raises(EvaluationError, match="no state"):
        list(run_jobs(work, [1, 2, 3], set_up=broken_set_up, processes=processes))


def test_a_killed_worker_is_said():
    with pytest.raises(EvaluationError, match="was killed") as caught:
        list(run_jobs(work, [1, -2, 2], set_up=partial(int, 0), processes=2))
    assert "--processes" in caught.value.remedy


def test_without_jobs_nothing_is_set_up():
    assert not list(run_jobs(work, [], set_up=broken_set_up, processes=2))
