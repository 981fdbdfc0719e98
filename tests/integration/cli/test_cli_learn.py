"""`zeroflaw products learn`, `list` and `forget`, as a user types them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from support.command_line import ZEROFLAW
from support.small_bundle import left_overs
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.bundle.writer import copy_bundle


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ZEROFLAW, *map(str, command)], capture_output=True, text=True, check=False
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return copy_bundle(open_bundle("mini"), tmp_path / "station" / "bundle").path


@pytest.fixture
def good(tmp_path: Path) -> Path:
    folder = tmp_path / "good"
    folder.mkdir()
    for i in range(4):
        crop = data.gravel()[5 * i : 5 * i + 160, 10 * i : 10 * i + 200]
        Image.fromarray(np.stack([crop] * 3, axis=-1)).save(folder / f"{i:02d}.png")
    return folder


def test_a_product_is_learned_listed_calibrated_and_forgotten(
    bundle: Path, good: Path, tmp_path: Path
) -> None:
    done = run("products", "learn", bundle, "object", good, "--false-reject-rate", 0.2)
    assert done.returncode == 0, done.stderr
    assert "from 4 good images (just above the image score of rank 4)" in done.stdout
    assert "expected 0.2 or fewer" in done.stdout
    assert "95 %" not in done.stdout
    assert "reference bank: 4 photos, 3448 rows, 1.1 MB" in done.stdout
    assert "4 photos in the bank are few" in done.stderr
    listed = {
        line["product"]: line
        for line in map(json.loads, run("products", "list", bundle, "--json").stdout.splitlines())
    }
    assert listed["casting"]["reference"] is None
    reference = listed["object"]["reference"]
    assert reference["bank"] == open_bundle(bundle).reference_digest("object")
    (file,) = bundle.glob("reference-*.safetensors")
    assert reference["bank"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert reference["bank_bytes"] == file.stat().st_size
    assert (reference["rows"], reference["augmentations"]) == (3448, [])
    assert reference["photos"] == [
        {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in sorted(good.iterdir())
    ]
    assert reference["created"].endswith("+00:00")
    assert listed["object"]["calibration"]["scheme"] == "leave_one_out"
    (line,) = [
        line for line in run("products", "list", bundle).stdout.splitlines() if "object" in line
    ]
    assert "each left out of the bank" in line
    assert "from 4 photos" in line
    # Its own photos cannot calibrate it.
    refused = run("calibrate", bundle, good, "-p", "object")
    assert refused.returncode == 1
    assert "4 of the images are in the reference bank of 'object'" in refused.stderr
    assert "00.png" in refused.stderr
    other = copy_bundle(open_bundle(bundle), tmp_path / "other").path
    added = run("products", "add", other, "object")
    assert "and a reference bank, which does not hold" in added.stderr
    assert "run `zeroflaw products learn` again" in added.stderr
    assert open_bundle(other).manifest.products["object"].reference is None
    forgotten = run("products", "forget", bundle, "object")
    assert forgotten.returncode == 0, forgotten.stderr
    entry = open_bundle(bundle).manifest.products["object"]
    assert (entry.reference, entry.threshold) == (None, None)
    assert left_overs(bundle) == []
    again = run("products", "forget", bundle, "object")
    assert again.returncode == 1
    assert "no reference bank" in again.stderr


def test_the_json_of_a_learning_names_everything(bundle: Path, good: Path) -> None:
    shutil.copyfile(good / "00.png", good / "again.png")
    Image.fromarray(np.zeros((160, 200, 3), np.uint8)).save(good / "dark.png")
    done = run(
        "products", "learn", bundle, "a cup", good, "--json", "--shots", 3, "--seed", 7,
        "--augment", "flip_horizontal", "--augment", "rotate_180", "--budget-mb", 0.5,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    (line,) = done.stdout.splitlines()
    document = json.loads(line)
    assert document["product"] == "a cup"
    assert (document["scheme"], document["interval"]) == ("leave_one_out", None)
    assert (document["images"], len(document["photos"])) == (3, 3)
    assert document["rows"] == 3 * (500_000 // (2 * 152) // 3)
    assert document["copies"] == [(good / "again.png").as_posix()]
    assert document["failed"] == [(good / "dark.png").as_posix()]
    assert any("too few for a false-reject rate of 0.01" in text for text in document["warnings"])
    assert "dark.png cannot be learned from: it shows nothing" in done.stderr
    assert "1 of 6 files could not be learned from" in done.stderr
    assert document["bank"] == open_bundle(bundle).reference_digest("a cup")
    views = open_bundle(bundle).manifest.products["a cup"].reference.augmentations
    assert views == ("rotate_180", "flip_horizontal")


def test_a_new_product_takes_the_texts_of_another_without_the_text_extra(
    bundle: Path, good: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hidden = tmp_path / "hidden"
    for library in ("tokenizers", "ftfy"):
        (hidden / library).mkdir(parents=True)
        (hidden / library / "__init__.py").write_text(
            f"raise ImportError('hidden', name='{library}')"
        )
    monkeypatch.setenv("PYTHONPATH", f"{hidden}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    refused = run("products", "learn", bundle, "cup", good)
    assert refused.returncode == 1
    assert "zeroflaw[text]" in refused.stderr
    assert "--texts-of" in refused.stderr
    unknown = run("products", "learn", bundle, "cup", good, "--texts-of", "saucer")
    assert unknown.returncode == 1
    assert "saucer" in unknown.stderr
    for _ in range(2):  # a product that is there keeps its texts
        done = run("products", "learn", bundle, "cup", good, "--texts-of", "object")
        assert done.returncode == 0, done.stderr
    learned = open_bundle(bundle)
    entry = learned.manifest.products["cup"]
    assert entry.sentences == learned.manifest.products["object"].sentences
    assert len(entry.reference.photos) == 4
    assert np.array_equal(learned.text_embeddings("cup"), learned.text_embeddings("object"))
    assert learned.manifest.products["object"].reference is None


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (("--augment", "mirror"), 1, "mirror"),
        (("--shots", "0"), 2, "shots"),
        (("--calibration", "jackknife"), 2, "jackknife"),
        (("--budget-mb", "99"), 1, "this bundle takes banks of"),
        (("--false-reject-rate", "1"), 1, "not inside"),
    ],
)
def test_wrong_options_change_nothing(
    bundle: Path, good: Path, options: tuple[str, ...], code: int, text: str
) -> None:
    before = (bundle / "bundle.json").read_bytes()
    done = run("products", "learn", bundle, "object", good, *options)
    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert (bundle / "bundle.json").read_bytes() == before
    assert left_overs(bundle) == []
