"""What an evaluation writes and says: tables, sheets, skipped files, the command line."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.command_line import ZEROFLAW
from support.datasets import save
from support.evaluations import evaluated, evaluated_job
from zeroflaw_benchmarks.evaluate.report.contact_sheet import chosen_samples, write_contact_sheets
from zeroflaw_benchmarks.evaluate.report.tables import evaluation_json, markdown, table_csv
from zeroflaw_engines.errors import EvaluationError


def test_bad_files_are_skipped_said_and_counted(tiny_bundle, dataset_dir, tmp_path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(dataset_dir, folder)
    nut = folder / "metal_nut"
    (nut / "ground_truth" / "hole" / "000_mask.png").unlink()
    save(nut / "ground_truth" / "hole" / "001_mask.png", np.full((7, 9), 255, np.uint8))
    grey = np.arange(90 * 120, dtype=np.uint32).reshape(90, 120).astype(np.uint8)
    save(nut / "ground_truth" / "scratch" / "000_mask.png", grey)
    (nut / "test" / "good" / "000.png").write_bytes(b"no image")
    whole = (nut / "test" / "good" / "001.png").read_bytes()
    (nut / "test" / "good" / "001.png").write_bytes(whole[: len(whole) // 2])
    got = evaluated(tiny_bundle, folder, tmp_path / "cache")
    names = ["good/000.png", "good/001.png", "hole/000.png", "hole/001.png", "scratch/000.png"]
    where = {"/".join(skip.path.parts[-2:]): skip.reason for skip in got.skipped}
    assert len(got.skipped) == 5, got.skipped
    assert {name.split("/")[0] for name in where} <= {n.split("/")[0] for n in names}
    counts = {count.name: (count.good, count.defective) for count in got.classes}
    assert counts == {"metal_nut": (0, 1), "object": (2, 4)}
    # One class without good images: what is undefined stays out of the mean, and that is said.
    image_row = got.image_rows[0]
    assert math.isnan(image_row.classes["metal_nut"].auroc)
    assert image_row.mean.auroc == image_row.classes["object"].auroc
    assert "The class metal_nut has no good image." in got.notes
    assert any("auroc of the images, cls, for metal_nut" in note for note in got.notes)
    text = markdown(got)
    assert "## 5 files skipped" in text
    assert "n/a" in text
    again = evaluated(tiny_bundle, folder, tmp_path / "cache")
    assert evaluation_json(again) == evaluation_json(got)
    assert (
        json.loads(evaluation_json(got))["image_rows"][0]["classes"]["metal_nut"]["auroc"] is None
    )
    for path in folder.rglob("test/*/*.png"):
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(EvaluationError, match="no image of"):
        evaluated(tiny_bundle, folder, tmp_path / "cache")


def test_tables_and_sheets(tiny_bundle, dataset_dir, shared_cache, tmp_path) -> None:
    job, got = evaluated_job(
        tiny_bundle, dataset_dir, shared_cache, ablations=("kernel", "cascade")
    )
    text = markdown(got)
    for published in (
        "| Hou et al. | 89.5 | 48.8 | 46.4 | - | 94.8 | 36.5 | 28.0 | - |",
        "| ellipse | 25 | 89.5 | 48.8 | 46.4 |",
        "| points (M1) | 88.7 | 42.5 | 39.2 |",
    ):
        assert published in text
    assert "random weights (seed 7)" in text
    rows = list(csv.DictReader(table_csv(got).splitlines()))
    assert len(rows) == 3 * (4 + 9 + 3 + 2)
    fused = next(r for r in rows if (r["row"], r["class"]) == ("fused", "mean"))
    assert float(fused["auroc"]) == got.rows[0].mean.auroc
    line = next(line for line in text.splitlines() if "measured: fused" in line)
    cells = [cell.strip() for cell in line.split("|")]
    # Not under MVTec-AD and not under VisA: it was measured on neither.
    assert cells[2:10] == [""] * 8
    assert cells[10] == f"{100 * got.rows[0].mean.auroc:.1f}"
    page = write_contact_sheets(job, 3, tmp_path)
    sheets = sorted((tmp_path / "contact_sheets").glob("*.png"))
    assert [sheet.name for sheet in sheets] == ["00_metal_nut.png", "01_object.png"]
    assert all(f"contact_sheets/{sheet.name}" in page.read_text() for sheet in sheets)
    picture = np.asarray(Image.open(sheets[0]))
    assert picture.shape[0] > 3 * 220
    assert picture.shape[1] > 6 * 220
    chosen = chosen_samples(job.samples_of("object"), 3)
    assert len({s.sample.image for s in chosen}) == 3
    assert [s.sample.defect for s in chosen_samples(job.samples_of("object"), 4)].count("good") == 1
    assert len(chosen_samples(job.samples_of("object"), 99)) == 6


def command(*args: object, **options) -> list[str]:
    return [str(ZEROFLAW), "evaluate", *map(str, args)]


def test_command_line(tiny_bundle, dataset_dir, shared_cache, tmp_path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(dataset_dir, folder)
    arguments = [tiny_bundle.path, folder, "-o", tmp_path / "out", "--class", "object"]
    run = subprocess.run(
        command(*arguments, "--ablate", "cascade", "--set", "fusion_weight=0.4"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "measured: fused" in run.stdout
    assert "points (M1)" in run.stdout
    assert "MB more" in run.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"evaluation.md", "evaluation.csv", "evaluation.json", "evaluation.png",
                     "contact_sheet.html", "contact_sheets", "cache"}  # fmt: skip
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert record["parameters"]["fusion_weight"] == 0.4
    assert record["bundle_identity"] == tiny_bundle.identity
    assert record["size"] == 518
    (folder / "object" / "test" / "good" / "000.png").write_bytes(b"")
    run = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
    assert run.returncode == 3, run.stderr
    assert "1 files skipped" in run.stdout


def test_reference_photos_on_the_command_line(tiny_bundle, train_dataset, tmp_path) -> None:
    arguments = [tiny_bundle.path, train_dataset, "-o", tmp_path / "out", "--contact-sheet", "0"]
    run = subprocess.run(
        command(*arguments, "--shots", "2", "--seeds", "1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "| 2 | **measured: fused, after the cascade** | train |" in run.stdout
    for shots in ("0", "two"):
        run = subprocess.run(
            command(*arguments, "--shots", shots), capture_output=True, text=True, check=False
        )
        assert run.returncode == 1
        assert "error: --shots" in run.stderr
        assert "remedy: " in run.stderr


def test_a_killed_run_goes_on_and_leaves_no_process(tiny_bundle, dataset_dir, tmp_path) -> None:
    out = tmp_path / "out"
    arguments = command(tiny_bundle.path, dataset_dir, "-o", out, "--processes", 2)
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not list((out / "cache").rglob("encodings/*/*.npz")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        children = [
            int(pid)
            for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        ]
        os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.1)
    run = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "12 images evaluated" in run.stdout
