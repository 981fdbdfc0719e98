"""The GPU's peers on the CPU: the same networks and processes, where eager PyTorch runs as well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from zeroflaw_benchmarks.bench.frames import bench_frame
from zeroflaw_benchmarks.bench.measure.gpu_peers import gpu_peer_rows
from zeroflaw_benchmarks.bench.measure.race import PeerTask, Race
from zeroflaw_benchmarks.bench.process.run_on import RunOn
from zeroflaw_benchmarks.bench.process.torch_device import CpuDevice
from zeroflaw_benchmarks.bench.process.torch_pipeline import encoders_on
from zeroflaw_benchmarks.bench.process.torch_run import TorchTask, run_torch
from zeroflaw_benchmarks.reference.reference_models import reference_clip, reference_sam
from zeroflaw_benchmarks.reference.reference_pipeline import reference_inspection
from zeroflaw_engines.bundle.bundle import Bundle

PARTS = ("inspection", "clip_encoder", "sam_encoder", "sam_decoder")


@pytest.mark.long
def test_every_part_does_the_work_of_ours(tiny_bundle: Bundle, tmp_path: Path) -> None:
    frame = bench_frame((192, 256), tmp_path)
    task = PeerTask(
        str(tiny_bundle.path), RunOn(threads=1), "object", str(frame.path), runs=2, warm_ups=1,
        torch_device="cpu",
    )  # fmt: skip
    names = ("torch-eager-bf16", "torch-cuda-graph-bf16")
    rows = list(gpu_peer_rows(Race(task, names, 1, tmp_path, lambda _: None)))
    eager, graph = ({row.part: row for row in rows if row.name.startswith(name)} for name in names)
    assert tuple(eager) == tuple(graph) == PARTS
    for part, row in eager.items():
        assert row.why_not == ""
        assert row.device == "cpu"
        assert row.times_faster.middle == pytest.approx(row.seconds.middle / row.ours.middle)
        assert row.events is None, "a CPU has none"
        assert float(row.agreement.split()[-1]) > (0.99 if part == "inspection" else 0.999)
    for row in graph.values():
        assert "a CPU has no CUDA graphs" in row.why_not


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_networks_are_those_of_the_reference(
    tiny_bundle: Bundle, tmp_path: Path, precision: str
) -> None:
    """In FP32 the same map, mask and points as the plain reference, in FP16 nearly so."""
    pixels = bench_frame((192, 256), tmp_path).pixels
    embeddings = tiny_bundle.text_embeddings("object")
    want = reference_inspection(
        reference_clip(tiny_bundle), reference_sam(tiny_bundle), pixels, embeddings
    )
    clip, sam = reference_clip(tiny_bundle), reference_sam(tiny_bundle)
    map_of = encoders_on(clip, sam, CpuDevice(), "eager", precision)
    for _ in range(2):
        got = reference_inspection(clip, sam, pixels, embeddings, map_of=map_of)
    atol = 1e-5 if precision == "fp32" else 2e-2
    np.testing.assert_allclose(got.anomaly_map, want.anomaly_map, rtol=0, atol=atol)
    scale = np.abs(want.features).max()
    np.testing.assert_allclose(got.features, want.features, rtol=0, atol=atol * scale)
    if precision == "fp32":
        assert (got.mask == want.mask).mean() > 0.999


def test_an_output_is_that_of_the_frame_and_no_older_one(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    """Staged memory is copied: two tasks of different frames leave different features."""
    found = []
    for size in ((192, 256), (64, 64)):
        frame = bench_frame(size, tmp_path)
        output = tmp_path / f"{size[0]}.npy"
        task = TorchTask(
            str(tiny_bundle.path), "sam_encoder", "object", str(frame.path), "cpu", "eager",
            "fp32", 1, 0, str(output), 1,
        )  # fmt: skip
        assert len(run_torch(task).seconds) == 1
        found.append(np.load(output))
    assert found[0].shape == found[1].shape
    assert not np.array_equal(*found)
