"""Host code alone: what the replayed engines of both paths let an Inspector do."""

import numpy as np
import pytest

from zeroflaw.pipeline.encoding import clip
from zeroflaw.pipeline.encoding import frame as both
from zeroflaw_benchmarks.bench.measure.host import measure_host
from zeroflaw_benchmarks.bench.measure.replayed_engines import replaying_inspector

FRAME = (300, 400)


def inspected(directory, **options):
    image = np.random.default_rng(0).integers(0, 256, (*FRAME, 3), dtype=np.uint8)
    with replaying_inspector(FRAME, directory, **options) as inspector:
        return inspector.inspect(image)


@pytest.mark.parametrize("shows", ["defect", "specks"])
def test_both_paths_come_to_one_result(tmp_path, shows):
    cpu, gpu = (inspected(tmp_path, path=path, shows=shows) for path in ("cpu", "gpu"))
    np.testing.assert_array_equal(cpu.mask, gpu.mask)
    assert cpu.regions == gpu.regions


@pytest.mark.parametrize("frame", [FRAME, (400, 200)])
def test_on_the_gpu_path_the_host_resizes_nothing(tmp_path, monkeypatch, caplog, frame):
    """Nor is the replayed engine found to be wrong."""
    image = np.random.default_rng(0).integers(0, 256, (*frame, 3), dtype=np.uint8)
    with replaying_inspector(frame, tmp_path, path="gpu") as inspector:
        inspector.inspect(image)
        for module, name in ((clip, "squash"), (both, "squash"), (both, "fit")):
            monkeypatch.setattr(module, name, None)
        inspector.inspect(image)
    assert not caplog.records


def test_masks_show_what_they_say(tmp_path):
    assert len(inspected(tmp_path, path="gpu", shows="defect").regions) == 1
    assert len(inspected(tmp_path, path="gpu", shows="specks").regions) > 100


def test_report_says_which_path_and_mask():
    found = measure_host(FRAME, 2, path="gpu", mask="specks")
    assert (found.path, found.mask, found.runs) == ("gpu", "specks", 2)
    assert (found.frame_height, found.frame_width) == FRAME
    parts = {part: value.middle for part, value in found.parts_ms.items()}
    assert all(value > 0 for value in parts.values())
    assert parts["total"] > parts["regions"]
