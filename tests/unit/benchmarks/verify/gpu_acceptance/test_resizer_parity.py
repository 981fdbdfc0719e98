"""What the acceptance says of a frame_resizer that is right, wrong, was wrong, or is not there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.gpu.wrong_resizer import WrongResizer
from zeroflaw.inspector import Inspector
from zeroflaw.pictures.images import read_image
from zeroflaw.pipeline.resizing.on_device import DeviceResizer
from zeroflaw_benchmarks.verify.gpu_acceptance.resizer_parity import resizer_parity
from zeroflaw_engines.backends import load_session
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.contract import FRAME_RESIZER, MAX_FRAME_EXTENT
from zeroflaw_engines.sessions.session import Session

FRAME = read_image(next((Path(__file__).parents[5] / "examples" / "frames").glob("*dent.jpg")))
SIZES = open_bundle("mini").manifest.sizes


@pytest.fixture(scope="module")
def host() -> Iterator[Inspector]:
    with Inspector.load("mini") as inspector:
        yield inspector


@pytest.fixture(scope="module")
def session(host: Inspector) -> Iterator[Session]:
    """The graph of frame_resizer on ONNX Runtime, as onnxruntime-cuda runs it on a GPU."""
    one = load_session(host.bundle, FRAME_RESIZER)
    yield one
    one.close()


def inspector(host: Inspector, resizer: Session | WrongResizer | None) -> Inspector:
    return Inspector(host.bundle, replace(host.sessions, frame_resizer=resizer))


def test_one_that_gives_the_bits_of_the_host_passes(host: Inspector, session: Session) -> None:
    check = resizer_parity(inspector(host, session), [FRAME], on_gpu=True)
    assert check.outcome == "passed", check
    assert check.figures == {
        "pictures put on the device": 3,
        "pictures left to the host": 0,
        "values that differ": 0,
    }


@pytest.mark.parametrize(
    ("side", "named"),
    [
        (SIZES.clip_image_size, "picture 1 for CLIP"),
        (SIZES.sam_image_size, "picture 1 for SAM"),
        (48, "image, on fixed inputs,"),
    ],
    ids=["CLIP", "SAM", "fixed inputs"],
)
def test_one_value_that_differs_fails(host, session, side: int, named: str) -> None:
    check = resizer_parity(inspector(host, WrongResizer(session, side)), [FRAME], on_gpu=True)
    assert check.outcome == "failed"
    assert f"1 values of {named} differ" in check.detail


def test_a_frame_that_is_not_resized_hides_nothing(host: Inspector, session: Session) -> None:
    """SAM takes it as it is; noise of other sizes is resized beside it."""
    side = SIZES.sam_image_size
    wrong = inspector(host, WrongResizer(session, side))
    check = resizer_parity(wrong, [np.zeros((side, side, 3), np.uint8)], on_gpu=True)
    assert check.detail.startswith("1 values of picture 2 for SAM differ; 1 values of picture 3")


def test_one_that_was_wrong_in_an_inspection_fails(host: Inspector, session: Session) -> None:
    wrong = WrongResizer(session, SIZES.clip_image_size)
    candidate = inspector(host, wrong)
    candidate.inspect(FRAME, product="object")
    wrong.wrong = False
    check = resizer_parity(candidate, [FRAME], on_gpu=True)
    assert check.outcome == "failed"
    assert check.figures["values that differ"] == 0
    assert check.detail.startswith("an inspection found other values than Pillow's")


def test_frames_that_are_the_hosts_are_counted(host: Inspector, session: Session) -> None:
    wide = np.zeros((9, MAX_FRAME_EXTENT + 1, 3), np.uint8)
    check = resizer_parity(inspector(host, session), [wide], on_gpu=True)
    assert check.outcome == "passed"
    assert check.figures["pictures left to the host"] == 1
    assert check.detail.endswith("1 are of a size that the host resizes")


def test_one_that_resizes_no_picture_fails(host, session, monkeypatch) -> None:
    monkeypatch.setattr(DeviceResizer, "upload", lambda *_: None)
    check = resizer_parity(inspector(host, session), [FRAME], on_gpu=True)
    assert (check.outcome, check.detail) == ("failed", "all 3 pictures were left to the host")


def test_one_that_was_not_loaded_fails_where_there_should_be_one(host: Inspector) -> None:
    assert resizer_parity(host, [FRAME], on_gpu=False).outcome == "not applicable"
    check = resizer_parity(host, [FRAME], on_gpu=True)
    assert check.outcome == "failed"
    assert "frame_resizer was not loaded" in check.detail
