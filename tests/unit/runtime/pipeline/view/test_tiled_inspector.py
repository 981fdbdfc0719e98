"""Inspectors of products with tiles: what is the same as without, on engines that are shipped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from zeroflaw import InspectionStream, Inspector
from zeroflaw.inspection import Inspection
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.products.settings import ProductSettings, Tiles
from zeroflaw_engines.bundle.products.writer import set_settings

HEIGHT, WIDTH = 500, 700
PRODUCT = "casting"


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    """Three frames; the second has a defect."""
    found = []
    for seed in range(3):
        noise = np.random.default_rng(seed).integers(60, 160, (HEIGHT, WIDTH, 3), np.uint8)
        found.append(np.asarray(cv2.GaussianBlur(noise, (0, 0), 3)))
    cv2.ellipse(found[1], (350, 240), (40, 9), 30, 0, 360, (250, 250, 250), -1)
    return found


def with_tiles(source: Path, target: Path, product: str, tiles: Tiles | None) -> Bundle:
    shutil.copytree(source, target)
    settings = ProductSettings(frame_width=WIDTH, frame_height=HEIGHT, tiles=tiles)
    return set_settings(open_bundle(target), product, settings)


@pytest.fixture(scope="module")
def inspector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inspector]:
    """Of mini with 2 x 2 tiles."""
    target = tmp_path_factory.mktemp("tiles") / "mini"
    mini = open_bundle("mini", verify_digests=False).path
    with Inspector.load(with_tiles(mini, target, PRODUCT, Tiles(rows=2, columns=2)).path) as loaded:
        yield loaded


def require_same(one: Inspection, other: Inspection) -> None:
    """To the last bit, but for what names the frame, the bundle and the time."""
    for name in ("mask", "anomaly_map", "score_map"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in ("decision", "status", "image_score", "threshold", "frame_size", "warnings"):
        assert getattr(one, name) == getattr(other, name)
    assert [region.polygon for region in one.regions] == [r.polygon for r in other.regions]
    assert [region.peak_score for region in one.regions] == [r.peak_score for r in other.regions]


@pytest.mark.parametrize("tiles", [None, Tiles(rows=1, columns=1)])
def test_one_tile_is_the_frame_as_a_whole_to_the_last_bit(frames, tmp_path, tiles) -> None:
    mini = open_bundle("mini", verify_digests=False)
    with (
        Inspector.load(mini.path) as plain,
        Inspector.load(with_tiles(mini.path, tmp_path / "one", "object", tiles).path) as one,
    ):
        for frame in frames[:2]:
            require_same(
                one.inspect(frame, product="object"), plain.inspect(frame, product="object")
            )


def test_streams_and_clones_give_what_inspect_gives(inspector: Inspector, frames) -> None:
    want = [inspector.inspect(frame, product=PRODUCT, trace=True) for frame in frames]
    assert want[1].regions  # the defect is found, or there is little to compare
    assert want[0].anomaly_map.shape == (HEIGHT // 2, WIDTH // 2)
    with (
        inspector.clone() as clone,
        InspectionStream(inspector, capacity=3) as stream,
        InspectionStream(clone, capacity=3, pipelined=False) as other,
    ):
        for one in (stream, other):
            for frame in frames:
                one.submit(frame, product=PRODUCT)
        for one in (stream, other):
            for result, expected in zip(one.drain(), want, strict=True):
                require_same(result.inspection, expected)


def test_inspect_batch_takes_frames_with_tiles(inspector: Inspector, frames) -> None:
    require_same(
        inspector.inspect_batch([frames[1]], product=PRODUCT)[0],
        inspector.inspect(frames[1], product=PRODUCT),
    )


def test_a_frame_with_tiles_can_be_recorded(inspector: Inspector, frames) -> None:
    found = inspector.inspect(frames[1], product=PRODUCT, trace=True)
    record = found.record()
    assert len(record.regions) == len(found.regions)
    assert len(record.trace.stages) == len(found.trace.stages) > 0
    assert record.trace.kept_stage == found.trace.kept_stage


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], list[int]]:
    """Counts the images of each call of a session."""

    def count(session) -> list[int]:
        images: list[int] = []
        run = session._run

        def counting(inputs, keep, shapes):
            images.append(len(inputs["image"]))
            return run(inputs, keep, shapes)

        monkeypatch.setattr(session, "_run", counting)
        return images

    return count


def test_tiles_that_an_engine_takes_in_one_call_are_given_so(
    tiny_bundle: Bundle, batch_bundle: Bundle, frames, tmp_path, counted
) -> None:
    tiles = Tiles(rows=2, columns=3)
    found = []
    for source, most in ((tiny_bundle, 1), (batch_bundle, 4)):
        path = with_tiles(source.path, tmp_path / str(most), "object", tiles).path
        parameters = source.manifest.method_parameters.replace(extreme_threshold=0.3)
        with Inspector.load(path, "onnxruntime", parameters=parameters) as loaded:
            clip = counted(loaded.sessions.clip_encoder)
            sam = counted(loaded.sessions.sam_encoder)
            found.append(loaded.inspect(frames[1], product="object"))
            assert clip == ([1] * 6 if most == 1 else [4, 2])
            assert sum(sam) > 0
            assert max(sam) == min(most, sum(sam))
    one, together = found
    assert together.image_score == pytest.approx(one.image_score, abs=1e-4)
    np.testing.assert_allclose(together.anomaly_map, one.anomaly_map, atol=1e-4)
    assert (together.mask != one.mask).mean() < 1e-3
