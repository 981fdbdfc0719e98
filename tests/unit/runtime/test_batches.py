"""Frames in batches: what `inspect` says of each, whatever else is in the call."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from support.products.learned_product import bank_of, store
from zeroflaw import Inspector
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.errors import ArgumentError, EngineError, FrameError, ProductError

# Rounding of sums in another order moves maps by 1e-6, and a boundary by single pixels.
MAP, IOU = 1e-5, 0.999


def frames() -> list[np.ndarray]:
    """Four frames of sizes of their own."""
    photos = (data.coffee(), data.astronaut()[:300], data.chelsea()[:, :200], data.rocket())
    return [np.ascontiguousarray(photo) for photo in photos]


def require_same(one, other) -> None:
    assert one.status == other.status
    assert one.decision == other.decision
    assert one.frame_size == other.frame_size
    np.testing.assert_allclose(one.anomaly_map, other.anomaly_map, atol=MAP)
    assert one.image_score == pytest.approx(other.image_score, abs=MAP)
    union = np.count_nonzero(one.mask | other.mask)
    assert np.count_nonzero(one.mask & other.mask) >= IOU * union
    assert one.warnings == other.warnings
    assert (one.bundle, one.reference) == (other.bundle, other.reference)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("schedule", ["side_by_side", "clip_first"])
def test_a_batch_gives_what_single_frames_give(batch_bundle: Bundle, backend, schedule) -> None:
    with Inspector.load(batch_bundle.path, backend, encoder_schedule=schedule) as inspector:
        assert inspector.max_batch == 4
        want = [inspector.inspect(frame) for frame in frames()]
        assert {one.status for one in want} == {"ok"}
        for chosen in ([2], [3, 1], [0, 1, 2, 3]):
            got = inspector.inspect_batch([frames()[n] for n in chosen], trace=True)
            for number, one in zip(chosen, got, strict=True):
                require_same(one, want[number])
                assert one.trace is not None
                assert one.timings_ms.keys() == want[number].timings_ms.keys()
                assert one.timings_ms["total"] >= one.timings_ms["sam_encoder"] > 0
        assert len({one.id for one in got}) == 4


def test_only_frames_that_need_sam_are_encoded_by_it(batch_bundle: Bundle, monkeypatch) -> None:
    with Inspector.load(batch_bundle.path, encoder_schedule="clip_first") as inspector:
        highest = [inspector.inspect(frame).anomaly_map.max() for frame in frames()]
    threshold = float(np.mean(sorted(highest)[1:3]))
    parameters = batch_bundle.manifest.method_parameters.replace(extreme_threshold=threshold)
    with Inspector.load(
        batch_bundle.path, encoder_schedule="clip_first", parameters=parameters
    ) as inspector:
        encoder, counts = inspector.sessions.sam_encoder, []
        execute = encoder.execute

        def counted(inputs, **options):
            counts.append(len(inputs["image"]))
            return execute(inputs, **options)

        monkeypatch.setattr(encoder, "execute", counted)
        got = inspector.inspect_batch(frames())
        assert counts == [2]
        for one, frame in zip(got, frames(), strict=True):
            require_same(one, inspector.inspect(frame))


def test_products_with_a_reference_bank(batch_bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    shutil.copytree(batch_bundle.path, path)
    with Inspector.load(path) as inspector:
        store(path, "object", bank_of(inspector, frames()[:2], 16), threshold=0.5)
        inspector.reload()
        want = [inspector.inspect(frame) for frame in frames()]
        assert all("reference_matcher" in one.timings_ms for one in want)
        for one, other in zip(inspector.inspect_batch(frames()), want, strict=True):
            require_same(one, other)


def test_what_is_no_batch(batch_bundle: Bundle, tiny_bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(frames()[0]).save(path)
    with Inspector.load(batch_bundle.path) as inspector:
        require_same(*inspector.inspect_batch([path, frames()[0]]))
        for count in (0, 5):
            with pytest.raises(ArgumentError, match=f"images are {count}, .* take 1 to 4"):
                inspector.inspect_batch(frames()[:1] * count)
        with pytest.raises(FrameError):
            inspector.inspect_batch([frames()[0], np.zeros((5, 5, 2), np.uint8)])
        with pytest.raises(ProductError):
            inspector.inspect_batch(frames()[:2], product="nail")
    with pytest.raises(EngineError, match="closed"):
        inspector.inspect_batch(frames()[:2])
    with Inspector.load(tiny_bundle.path) as inspector:
        assert inspector.max_batch == 1
        require_same(
            inspector.inspect_batch(frames()[:1], product="object")[0],
            inspector.inspect(frames()[0], product="object"),
        )
        with pytest.raises(ArgumentError, match="take 1 to 1 in one call") as caught:
            inspector.inspect_batch(frames()[:2], product="object")
        assert "--max-batch" in caught.value.remedy
