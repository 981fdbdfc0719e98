"""Which stages are host code and which are engine calls: it depends on where frames are resized."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from zeroflaw import Inspector
from zeroflaw.sessions import load_sessions
from zeroflaw_benchmarks.bench.frames import bench_frame
from zeroflaw_benchmarks.bench.measure.latency import measure_latency
from zeroflaw_benchmarks.bench.measure.transfers import transfers_of
from zeroflaw_benchmarks.bench.report.report import Latency
from zeroflaw_engines.backends import choose_backend, load_session
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.contract import FRAME_RESIZER

LARGEST = 4096  # px that frame_resizer takes


@pytest.fixture(scope="module", params=[True, False], ids=["frame_resizer", "host"])
def inspector(request: pytest.FixtureRequest) -> Iterator[Inspector]:
    """One whose frames a frame_resizer resizes, on the CPU, and one whose frames the host does."""
    bundle = open_bundle("mini")
    sessions = load_sessions(bundle, choose_backend("onnxruntime"))
    if request.param:
        sessions = replace(sessions, frame_resizer=load_session(bundle, FRAME_RESIZER))
    parameters = bundle.manifest.method_parameters.replace(no_region="always_run")
    with Inspector(bundle, sessions, parameters=parameters) as loaded:
        yield loaded


def latency_of(inspector: Inspector, size: tuple[int, int], folder: Path) -> Latency:
    frame = bench_frame(size, folder)
    return measure_latency(inspector, frame, inspector.products[0], load_ms=1.0, runs=3)


@pytest.mark.parametrize("width", [320, LARGEST + 4])
def test_resizing_is_an_engine_call_where_an_engine_resizes(
    inspector: Inspector, tmp_path: Path, width: int
) -> None:
    there = inspector.sessions.frame_resizer is not None and width <= LARGEST
    found = latency_of(inspector, (240, width), tmp_path)
    kinds = {stage.stage: stage.kind for stage in found.stages}
    assert kinds["squash"] == kinds["fit"] == ("engine" if there else "host")
    assert kinds["frame"] == kinds["prompt_points"] == kinds["regions"] == "host"

    host = [s for s in found.stages if s.kind == "host" and s.stage != "decode"]
    work = [sum(samples) for samples in zip(*(s.samples_ms for s in host), strict=True)]
    assert (found.host_work_ms.least, found.host_work_ms.most) == pytest.approx(
        (min(work), max(work))
    )
    total = next(stage for stage in found.stages if stage.kind == "total")
    shares = [one / whole for one, whole in zip(work, total.samples_ms, strict=True)]
    assert (found.host_share.least, found.host_share.most) == pytest.approx(
        (min(shares), max(shares))
    )


def test_what_goes_up_is_what_is_resized_there(inspector: Inspector) -> None:
    """The frame, or what the host made of one that the engine does not take."""
    for width, there in ((LARGEST, inspector.sessions.frame_resizer is not None),
                         (LARGEST + 4, False)):  # fmt: skip
        found = {(one.engine, one.tensor) for one in transfers_of(inspector, None, (240, width))}
        assert (("frame_resizer", "frame") in found) is there
        assert (("clip_encoder", "image") in found) is not there
        assert (("sam_encoder", "image") in found) is not there
