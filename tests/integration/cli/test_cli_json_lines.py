"""`--json`: one object a line on standard output, and all else on the other stream."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from PIL import Image

from support.command_line import ZEROFLAW, zeroflaw
from zeroflaw_engines.bundle.bundle import open_bundle

ROOT = Path(__file__).parents[3]
FRAMES = ROOT / "examples" / "frames"
SCHEMA = json.loads((ROOT / "docs" / "inspection.schema.json").read_text())


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "bundle"
    assert zeroflaw("bundle", "copy", "mini", path).returncode == 0
    return path


def test_inspect_prints_the_records(tmp_path: Path) -> None:
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    for name in ("casting_good.jpg", "casting_dent.jpg"):
        shutil.copy(FRAMES / name, pictures)
    (pictures / "cut.jpg").write_bytes((FRAMES / "casting_good.jpg").read_bytes()[:9000])
    (pictures / "hidden").write_bytes((FRAMES / "casting_good.jpg").read_bytes())
    done = zeroflaw("inspect", "mini", pictures, "-p", "object", "-o", out, "--json")
    assert done.returncode == 3, done.stderr
    records = lines(done)
    for record in records:
        jsonschema.validate(record, SCHEMA)
        name = Path(record["frame_id"]).stem
        assert record == json.loads((out / f"{name}.json").read_bytes())
    assert [Path(record["frame_id"]).name for record in records] == [
        "casting_dent.jpg", "casting_good.jpg", "cut.jpg",
    ]  # fmt: skip
    assert [record["decision"] for record in records][1:] == ["accept", "hold"]
    assert records[2]["reason"]["code"] == "failed"
    assert "2 of 3 inspected" in done.stderr
    assert "left out, and may be a picture" in done.stderr
    quiet = zeroflaw("inspect", "mini", pictures, "-p", "object", "-o", out)
    assert quiet.returncode == 3
    assert "2 of 3 inspected" in quiet.stdout


def test_results_stay_where_no_record_can_be_printed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [ZEROFLAW, "inspect", "mini", FRAMES, "-p", "object", "-o", out, "--json"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr.count(b"standard output cannot be written: No space left") == 1
    assert b"Traceback" not in done.stderr
    assert "interrupted" not in (out / "index.html").read_text()
    pictures = {path.stem for path in FRAMES.iterdir() if path.suffix == ".jpg"}
    assert pictures == {path.stem for path in out.glob("*.json")}


def test_calibrate_prints_what_it_found(bundle: Path, tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.mkdir()
    picture = Image.open(FRAMES / "casting_good.jpg")
    for i in range(6):
        picture.crop((5 * i, 5 * i, 200 + 5 * i, 200 + 5 * i)).save(good / f"{i}.png")
    shutil.copy(good / "0.png", good / "same.png")
    bad = os.fsencode(good) + b"/cut_\xff.png"
    Path(os.fsdecode(bad)).write_bytes((good / "1.png").read_bytes()[:500])
    done = zeroflaw("calibrate", bundle, good, "-p", "object", "--json")
    assert done.returncode == 3, done.stderr
    (found,) = lines(done)
    entry = open_bundle(bundle).manifest.products["object"]
    assert found["product"] == "object"
    assert found["threshold"] == entry.threshold
    kept = entry.calibration
    assert found["interval"] == list(kept.interval)
    for name in ("images", "rank", "false_reject_rate", "observed_rate"):
        assert found[name] == getattr(kept, name)
    assert (found["images"], found["rank"], found["confidence"]) == (6, 6, 0.95)
    assert found["expected_rate"] == pytest.approx(1 / 7)
    assert found["copies"] == [f"{good}/same.png"]
    assert found["failed"] == [f"{good}/cut_\\xff.png"]
    assert any("too few" in text for text in found["warnings"])
    assert "1 of 8 files could not be read" in done.stderr


def test_products_have_a_line_each(bundle: Path) -> None:
    manifest = open_bundle(bundle).manifest
    found = lines(zeroflaw("products", "list", bundle, "--json"))
    assert [one["product"] for one in found] == sorted(manifest.products)
    for one in found:
        assert one == {
            "product": one["product"], "threshold": manifest.method_parameters.decision_threshold,
            "source": "default", "calibration": None, "reference": None,
            "settings": None, "settings_digest": None, "view": None,
        }  # fmt: skip


def test_a_calibrated_product_says_so(bundle: Path) -> None:
    files = [FRAMES / "casting_good.jpg", FRAMES / "casting_dent.jpg"]
    assert zeroflaw("calibrate", bundle, *files, "-p", "object").returncode == 0
    found = {one["product"]: one for one in lines(zeroflaw("products", "list", bundle, "--json"))}
    entry = open_bundle(bundle).manifest.products["object"]
    assert found["object"]["source"] == "calibrated"
    assert found["object"]["threshold"] == entry.threshold
    assert found["object"]["calibration"]["images"] == 2
    assert found["casting"]["source"] == "default"


def test_verify_says_what_it_checked(bundle: Path) -> None:
    manifest = open_bundle(bundle).manifest
    done = zeroflaw("bundle", "verify", bundle, "--json")
    assert done.returncode == 0
    (whole,) = lines(done)
    assert whole == {
        "bundle": str(bundle), "ok": True, "schema_version": manifest.schema_version,
        "identity": open_bundle(bundle).identity, "problems": [],
        "files": {name: {"sha256": e.sha256, "bytes": e.bytes}
                  for name, e in manifest.files.items()},
    }  # fmt: skip


def test_verify_says_what_is_wrong(bundle: Path) -> None:
    file = min(bundle.glob("*.data"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    plain = zeroflaw("bundle", "verify", bundle)
    done = zeroflaw("bundle", "verify", bundle, "--json")
    assert done.returncode == plain.returncode == 1
    assert done.stderr == plain.stderr
    (damaged,) = lines(done)
    assert (damaged["ok"], damaged["identity"], damaged["files"]) == (False, None, None)
    (problem,) = damaged["problems"]
    assert problem["code"] == "bundle_damaged"
    assert file.name in problem["cause"]
