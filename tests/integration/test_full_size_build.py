"""All three engines at full size, compiled ahead of time by TensorRT-RTX for three architectures.

They cannot be run here; that they compile to fused FP16 kernels in little time and memory can be
shown on any machine.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.exported_bundle import Exported
from support.measured_process import ZEROFLAW, run_measured
from zeroflaw_engines.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle_variants import added_variants
from zeroflaw_engines.engine_lookup import find_engine
from zeroflaw_export.graph_variants import FP16_ENGINES, write_fp16_variant

ARCHITECTURES = ("sm86", "sm89", "sm120")
# Transformer blocks of ViT-H and ViT-L.
BLOCKS = {"sam_encoder": 32, "clip_encoder": 24}
ENGINES = ("clip_encoder", "sam_encoder", "sam_decoder")


def exported(request: pytest.FixtureRequest) -> Path:
    """The bundle of this run, or one that was exported before (a development machine)."""
    given = os.environ.get("ZEROFLAW_FULL_SIZE_BUNDLE")
    if given:
        return Path(given)
    full_size: Exported = request.getfixturevalue("full_size")
    add_fp16_graphs_unchecked(open_bundle(full_size.path, verify_digests=False))
    return full_size.path


def add_fp16_graphs_unchecked(bundle: Bundle) -> None:
    """FP16 graphs without the parity checks of `add-fp16`: this test is of the build alone.

    On a CPU the checks take minutes at this size; they have not been run there yet.
    """
    with added_variants(bundle) as added:
        for engine in FP16_ENGINES:
            reference = bundle.manifest.engines[engine]
            added.variants[engine] = write_fp16_variant(
                bundle.path, engine, reference, added.directory
            )


@pytest.mark.full_size
def test_all_engines_build_within_2_minutes_and_8_gb(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    path = exported(request)
    gpus = [word for name in ARCHITECTURES for word in ("--gpu", name)]
    with capsys.disabled():
        cost = run_measured(ZEROFLAW, "build", path, "--force", *gpus)
    bundle = open_bundle(path, verify_digests=False)
    sidecars = {
        engine: find_engine(
            bundle, engine, backend="tensorrt-rtx", architecture="sm120", target="sm86-sm89-sm120"
        ).sidecar
        for engine in ENGINES
    }
    peaks = {name: sidecar.peak_memory_bytes or 0 for name, sidecar in sidecars.items()}
    with capsys.disabled():
        print(f"\nthree full-size engines for {', '.join(ARCHITECTURES)}: {cost.seconds:.0f} s")
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
