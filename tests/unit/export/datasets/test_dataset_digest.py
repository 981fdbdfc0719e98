"""What identifies a data set, and what reading one needs."""

import dataclasses
import shutil
import subprocess
import sys

import pytest

from support.datasets import mask, picture
from zeroflaw_export.datasets import (
    dataset_digest,
    read_dataset,
)


def test_digest_does_not_depend_on_the_place(mvtec, tmp_path):
    digest = dataset_digest(read_dataset(mvtec))
    assert len(digest) == 64
    shutil.copytree(mvtec, tmp_path / "copy")
    assert dataset_digest(read_dataset(tmp_path / "copy")) == digest
    # Nor on the order in which the file system lists it.
    again = tmp_path / "reversed"
    for path in sorted(mvtec.rglob("*"), reverse=True):
        target = again / path.relative_to(mvtec)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    assert dataset_digest(read_dataset(again)) == digest


def change_image(root):
    picture(root / "nut/test/good/000.png", 99)


def change_mask(root):
    mask(root / "nut/ground_truth/bent/000_mask.png", 1)


def rename_image(root):
    (root / "nut/test/good/000.png").rename(root / "nut/test/good/009.png")


def swap_images(root):
    good, other = root / "nut/test/good/000.png", root / "nut/test/good/001.PNG"
    first, second = good.read_bytes(), other.read_bytes()
    good.write_bytes(second)
    other.write_bytes(first)


@pytest.mark.parametrize("change", [change_image, change_mask, rename_image, swap_images])
def test_digest_tells_every_change(mvtec, change):
    before = dataset_digest(read_dataset(mvtec))
    change(mvtec)
    assert dataset_digest(read_dataset(mvtec)) != before


def test_digest_tells_what_was_taken_as_good(folder):
    dataset = read_dataset(folder)
    entry = dataset.classes[0]
    flipped = dataclasses.replace(entry.samples[0], anomalous=False)
    other = dataclasses.replace(
        dataset, classes=(dataclasses.replace(entry, samples=(flipped, *entry.samples[1:])),)
    )
    assert dataset_digest(other) != dataset_digest(dataset)


def test_datasets_need_no_torch():
    code = "import sys, zeroflaw_export.datasets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
