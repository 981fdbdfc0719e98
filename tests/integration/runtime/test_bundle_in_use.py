"""A bundle that is inspected with while it changes, and thresholds under other settings."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from support.command_line import zeroflaw
from zeroflaw import Inspector, MethodParameters
from zeroflaw.pictures.images import write_image
from zeroflaw.station.calibration import calibrate_product
from zeroflaw.station.products.adding import add_products_by_name
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.bundle.shipped import bundle_path
from zeroflaw_engines.errors import BundleError, ProductError

TESTS = Path(__file__).parents[2]
ADDER = """
import itertools, sys
from support.small_bundle import ENTRY, rows
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.bundle.products.writer import add_products
for i in itertools.count():
    add_products(open_bundle(sys.argv[1], verify_digests=False), {f"p{i % 9}": rows(i)},
                 {f"p{i % 9}": ENTRY})
"""


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_path("mini"), tmp_path / "b"))


@pytest.fixture
def good(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "good" / f"{i}.png" for i in range(12)]
    paths[0].parent.mkdir()
    for i, path in enumerate(paths):
        write_image(path, np.ascontiguousarray(data.coffee()[9 * i : 9 * i + 200, :300]))
    return paths


def test_inspectors_are_loaded_while_products_are_added(copied: Path) -> None:
    paths = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    adder = subprocess.Popen(
        [sys.executable, "-c", ADDER, str(copied)], env={**os.environ, "PYTHONPATH": paths}
    )
    try:
        before = (copied / "bundle.json").read_bytes()
        while (copied / "bundle.json").read_bytes() == before:
            assert adder.poll() is None
            time.sleep(0.01)
        frame = data.coffee()[:64, :64]
        for _ in range(8):
            with Inspector.load(copied) as inspector:
                assert inspector.inspect(frame, product="object").product == "object"
        assert adder.poll() is None
    finally:
        adder.kill()
        adder.wait()


def test_a_calibration_records_what_it_was_made_with(copied: Path, good: list[Path]) -> None:
    done = calibrate_product(open_bundle(copied), "object", good, false_reject_rate=0.1)
    calibration = open_bundle(copied).manifest.products["object"].calibration
    assert calibration == done.bundle.manifest.products["object"].calibration
    frame = data.coffee()[:64, :64]
    with Inspector.load(copied) as inspector:
        inspection = inspector.inspect(frame, product="object")
        assert calibration.backend == inspector.sessions.clip_encoder.backend
        assert calibration.precision == "fp32"
        assert calibration.parameters_digest == inspection.parameters
        assert MethodParameters.from_mapping(calibration.parameters) == inspector.parameters
        assert not any("calibrated with other" in text for text in inspection.warnings)
        assert inspection.threshold == done.fit.threshold
    with Inspector.load(copied, "openvino") as inspector:
        warnings = inspector.inspect(frame, product="object").warnings
        assert any("openvino" in text and calibration.backend in text for text in warnings)
    changed = MethodParameters.from_mapping(calibration.parameters).replace(fusion_weight=0.9)
    with Inspector.load(copied, parameters=changed) as inspector:
        warnings = inspector.inspect(frame, product="object").warnings
        assert any("fusion_weight=0.5, now 0.9" in text for text in warnings)


@pytest.mark.parametrize("given", [0.97, 0.25], ids=["the bundle's own", "another"])
def test_a_threshold_that_is_set_is_applied_and_recorded(
    copied: Path, good: list[Path], tmp_path: Path, given: float
) -> None:
    calibrate_product(open_bundle(copied), "object", good, false_reject_rate=0.1)
    assert open_bundle(copied).manifest.method_parameters.decision_threshold == 0.97
    (tmp_path / "p.toml").write_text(f"decision_threshold = {given}\n")
    for i, option in enumerate((["--set", f"decision_threshold={given}"],
                                ["--parameters", str(tmp_path / "p.toml")])):  # fmt: skip
        out = tmp_path / f"out{i}"
        done = zeroflaw("inspect", copied, good[0], "-p", "object", "-o", out, *option)
        assert done.returncode in {0, 6}, done.stderr
        with (out / "summary.csv").open(newline="") as file:
            (row,) = csv.DictReader(file)
        assert float(row["threshold"]) == given
        record = next(path for path in out.glob("*.json")).read_text()
        assert f"decision_threshold={given} was given and replaces the calibrated" in record
    parameters = MethodParameters(decision_threshold=0.25)
    with Inspector.load(copied, parameters=parameters) as inspector:
        assert inspector.decision_threshold("object")[0] == 0.25
    with Inspector.load(copied, decision_threshold=0.5) as inspector:
        assert inspector.decision_threshold("object")[0] == 0.5
        assert inspector.inspect(data.coffee()[:64, :64], product="object").threshold == 0.5


def test_remedies_for_an_unknown_product_can_be_followed(copied: Path) -> None:
    name = "neue Schraube"
    with Inspector.load("mini") as inspector, pytest.raises(ProductError) as caught:
        inspector.inspect(data.coffee()[:64, :64], product=name)
    assert "zeroflaw bundle copy mini my_bundle" in caught.value.remedy
    assert f"zeroflaw products add my_bundle '{name}'" in caught.value.remedy
    with pytest.raises(BundleError) as caught:
        add_products_by_name(open_bundle("mini"), [name])
    assert "zeroflaw bundle copy mini DIR" in caught.value.remedy
    bundle = open_bundle(copied)
    with pytest.raises(ProductError) as caught:
        bundle.text_embeddings(name)
    assert f"zeroflaw products add {copied} '{name}'" in caught.value.remedy
    changed = add_products_by_name(bundle, [name])
    assert changed.text_embeddings(name).shape == (2, 96)


def test_a_product_is_found_by_both_spellings_of_its_name(copied: Path) -> None:
    changed = add_products_by_name(open_bundle(copied), ["cafe\u0301"])
    assert "caf\u00e9" in changed.manifest.products
    with Inspector.load(copied) as inspector:
        inspection = inspector.inspect(data.coffee()[:64, :64], product="cafe\u0301")
    assert inspection.product == "caf\u00e9"


def test_a_manifest_edited_by_hand_says_what_to_do(copied: Path) -> None:
    path = copied / "bundle.json"
    path.write_text(path.read_text().replace('"spacing_pixels": 299', '"spacing_pixels": 400'))
    done = zeroflaw("bundle", "verify", copied)
    assert done.returncode == 1
    assert "its digest is not that of its text" in done.stderr
    assert "--set" in done.stderr
