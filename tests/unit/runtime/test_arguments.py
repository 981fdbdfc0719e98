"""Wrong argument values: each is refused by name, with its value and what it may be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zeroflaw import InspectionStream, Inspector, ZeroflawError

FRAME = np.full((8, 8, 3), 90, np.uint8)
NAN = float("nan")


@pytest.fixture(scope="module")
def inspector() -> Iterator[Inspector]:
    with Inspector.load("mini", threads=1) as loaded:
        yield loaded


LOAD: list[dict[str, Any]] = [
    {"encoder_schedule": "side-by-side"}, {"encoder_schedule": None}, {"threads": -1},
    {"threads": "2"}, {"threads": 1.5}, {"threads": True}, {"threads": 2000}, {"threads": NAN},
    {"max_frame_pixels": 0}, {"max_frame_pixels": -1}, {"max_frame_pixels": "x"},
    {"max_frame_pixels": NAN}, {"channel_order": None}, {"channel_order": "RGB"},
    {"channel_order": []}, {"white_level": 0}, {"white_level": "4095"}, {"white_level": NAN},
    {"precision": 16}, {"precision": []}, {"precision": "fp8"},
    {"parameters": {}}, {"parameters": "x"}, {"bundle": None}, {"bundle": b"x"}, {"bundle": ""},
    {"bundle": Path()}, {"bundle": 3}, {"backend": None}, {"backend": ["onnxruntime"]},
    {"model_cache": 3}, {"model_cache": Path(__file__)}, {"model_cache": __file__},
]  # fmt: skip
INSPECT: list[dict[str, Any]] = [
    {"product": 3}, {"product": ["object"]}, {"product": b"object"}, {"product": ""},
    {"channel_order": None}, {"channel_order": "RGB"}, {"channel_order": ["rgb"]},
    {"white_level": "4095"}, {"white_level": 0}, {"white_level": -1}, {"white_level": NAN},
    {"white_level": float("inf")}, {"white_level": True}, {"white_level": 1e-320},
    {"trace": "no"}, {"trace": None}, {"trace": 1}, {"frame_id": 3}, {"part_id": b"x"},
]  # fmt: skip
IMAGES: dict[str, Any] = {
    "list": FRAME.tolist(), "None": None, "object": FRAME.astype(object), "bool": FRAME > 0,
    "complex": FRAME.astype(complex), "masked": np.ma.masked_equal(FRAME, 3),
    "text": np.array([["a"]]), "int64": FRAME.astype(np.int64), "NaN": FRAME * NAN,
    "dates": FRAME[..., 0].astype("datetime64[s]"), "fields": np.zeros((4, 4), "u1,u1"),
}  # fmt: skip
SUBMIT: list[dict[str, Any]] = [
    {"deadline_ms": "5"}, {"deadline_ms": NAN}, {"deadline_ms": 0}, {"deadline_ms": True},
    {"deadline_ms": float("inf")}, {"timeout": -1}, {"timeout": NAN}, {"timeout": "1"},
    {"copy": "no"}, {"trace": "no"}, {"frame_id": 3}, {"part_id": 3},
]  # fmt: skip
STREAM: list[dict[str, Any]] = [
    {"capacity": 2.5}, {"capacity": 0}, {"capacity": "8"}, {"capacity": True},
    {"when_full": None}, {"when_full": "drop"}, {"when_full": []}, {"pipelined": "no"},
    {"channel_order": None}, {"channel_order": "BGR"}, {"white_level": 0}, {"white_level": True},
]  # fmt: skip


def names(cases: list[dict[str, Any]]) -> list[str]:
    return [" ".join(f"{name}={value!r}"[:40] for name, value in case.items()) for case in cases]


def refused(error: ZeroflawError, case: dict[str, Any]) -> None:
    (name,) = case
    said = error.cause.replace("no precision", "precision").replace("_", " ")
    assert name.replace("_", " ") in said or name == "bundle", error
    assert error.remedy
    assert "Traceback" not in str(error)


@pytest.mark.parametrize("case", LOAD, ids=names(LOAD))
def test_of_load(case: dict[str, Any]) -> None:
    with pytest.raises(ZeroflawError) as caught:
        Inspector.load(**{"bundle": "mini", **case})
    refused(caught.value, case)


@pytest.mark.parametrize("case", INSPECT, ids=names(INSPECT))
def test_of_inspect(inspector: Inspector, case: dict[str, Any]) -> None:
    with pytest.raises(ZeroflawError) as caught:
        inspector.inspect(FRAME, **{"product": "object", **case})
    refused(caught.value, case)


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_what_is_no_frame(inspector: Inspector, image: Any) -> None:
    with pytest.raises(ZeroflawError) as caught:
        inspector.inspect(image, product="object")
    assert caught.value.code == "frame"
    with InspectionStream(inspector) as stream:
        stream.submit(image, product="object")
        result = stream.poll()
    assert result.error.code == "frame"
    assert result.decision != "accept"


@pytest.mark.parametrize("case", STREAM, ids=names(STREAM))
def test_of_a_stream(inspector: Inspector, case: dict[str, Any]) -> None:
    with pytest.raises(ZeroflawError) as caught:
        InspectionStream(inspector, **case)
    refused(caught.value, case)


@pytest.mark.parametrize("thing", [None, "mini", Path("mini")])
def test_a_stream_of_no_inspector(thing: Any) -> None:
    with pytest.raises(ZeroflawError, match="has no encode_frame"):
        InspectionStream(thing)


@pytest.mark.parametrize("case", SUBMIT, ids=names(SUBMIT))
def test_of_submit_and_poll(inspector: Inspector, case: dict[str, Any]) -> None:
    with InspectionStream(inspector) as stream:
        with pytest.raises(ZeroflawError) as caught:
            stream.submit(FRAME, product="object", **case)
        refused(caught.value, case)
        if "timeout" in case:
            with pytest.raises(ZeroflawError):
                stream.poll(**case)
        assert stream.health().submitted == 0


@pytest.mark.parametrize("runs", [0, -1, "1", 1.5, None, True])
def test_of_warm_up(inspector: Inspector, runs: Any) -> None:
    with pytest.raises(ZeroflawError, match="runs is"):
        inspector.warm_up(runs)


@pytest.mark.parametrize(
    "size", [(0, 9), (9, 0), (9,), [9, 9], 9, (9, 9.5), (20_000, 20_000), (1, 10**9)]
)
def test_of_the_size_of_frames_to_come(inspector: Inspector, size: Any) -> None:
    with pytest.raises(ZeroflawError, match="frame_size"):
        inspector.warm_up(frame_size=size)


def test_numbers_of_numpy_are_numbers(inspector: Inspector) -> None:
    got = inspector.inspect(FRAME[::-1, ::-1], product="object", white_level=np.float32(255),
                            trace=np.bool_(False))  # fmt: skip
    assert got.frame_size == (8, 8)
    with InspectionStream(inspector, capacity=np.int64(2)) as stream:
        stream.submit(FRAME, product="object", deadline_ms=np.float64(60_000), timeout=1e12)
        assert stream.poll(np.int32(60)).inspection is not None
