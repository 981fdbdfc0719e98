"""FP16 at full size: what rounding does, and all engines compiled by TensorRT-RTX.

The engines cannot be run here; that they compile to fused FP16 kernels in little time and memory
can be shown on any machine.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.command_line import ZEROFLAW, run_measured
from support.exported_bundle import Exported
from zeroflaw_benchmarks.verify.fp16.logits import compare_logits
from zeroflaw_engines.built_engines.lookup import find_engine
from zeroflaw_engines.bundle.bundle import open_bundle

ARCHITECTURES = ("sm86", "sm89", "sm120")
# Transformer blocks of ViT-H and ViT-L.
BLOCKS = {"sam_encoder": 32, "clip_encoder": 24}
ENGINES = ("clip_encoder", "sam_encoder", "sam_decoder", "reference_matcher")


@pytest.fixture(scope="module")
def bundle_path(request: pytest.FixtureRequest) -> Path:
    """The bundle of this run with FP16 graphs, checked as `add-fp16` checks them.

    Or one that was exported before (a development machine).
    """
    given = os.environ.get("ZEROFLAW_FULL_SIZE_BUNDLE")
    if given:
        return Path(given)
    full_size: Exported = request.getfixturevalue("full_size")
    run_measured(ZEROFLAW, "add-fp16", full_size.path)
    return full_size.path


@pytest.mark.full_size
def test_low_res_logits_survive_fp16_storage(
    bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = compare_logits(open_bundle(bundle_path, verify_digests=False), ["real"])
    with capsys.disabled():
        print(f"\n{report.agreements}")
    assert report.accepted
    # Not a comparison of something with itself.
    assert report.agreements[0].largest_difference > 1e-6


@pytest.mark.full_size
def test_all_engines_build_within_2_minutes_and_8_gb(
    bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpus = [word for name in ARCHITECTURES for word in ("--gpu", name)]
    with capsys.disabled():
        cost = run_measured(ZEROFLAW, "build", bundle_path, "--force", *gpus)
    bundle = open_bundle(bundle_path, verify_digests=False)
    sidecars = {
        engine: find_engine(
            bundle, engine, backend="tensorrt-rtx", architecture="sm120", target="sm86-sm89-sm120"
        ).sidecar
        for engine in ENGINES
    }
    peaks = {name: sidecar.peak_memory_bytes or 0 for name, sidecar in sidecars.items()}
    with capsys.disabled():
        print(
            f"\n{len(ENGINES)} full-size engines for {', '.join(ARCHITECTURES)}:"
            f" {cost.seconds:.0f} s"
        )
        for name, one in sidecars.items():
            print(
                f"  {name}: {one.engine_bytes / 1e6:.0f} MB in {one.build_seconds:.0f} s,"
                f" peak {peaks[name] / 1e9:.1f} GB\n    {one.census}"
            )
    assert cost.seconds <= 120
    assert max(peaks.values()) <= 8e9
    for name, count in BLOCKS.items():
        census = sidecars[name].census
        assert census.source == "plan"
        assert census.count("attention", "float16") == count, "one fused kernel for each block"
        assert census.unfused_attention == 0
        assert census.half_share > 0.75
    for one in sidecars.values():
        assert one.parts.precision == "fp16"
