"""`zeroflaw inspect --truth`: what is right and what is wrong, as a user is told."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data
from sklearn.metrics import roc_auc_score

from support.command_line import zeroflaw
from zeroflaw import Inspector
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_export.datasets import mask_at_size

ACCEPT_ALL, REJECT_ALL = ("--set", "decision_threshold=1"), ("--set", "decision_threshold=0")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two good photos and one defective, with its mask, as MVTec-AD has them."""
    for place, start in (("good/000", 0), ("good/001", 7), ("pit/000", 20)):
        path = tmp_path / "photos" / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.coffee()[start : start + 200, :400]).save(path)
    mask = np.zeros((200, 400), np.uint8)
    mask[50:90, 100:180] = 255
    (tmp_path / "masks" / "pit").mkdir(parents=True)
    Image.fromarray(mask).save(tmp_path / "masks" / "pit" / "000_mask.png")
    return tmp_path / "photos"


def inspect(bundle: Bundle, photos: Path, *options: object):
    masks, out = photos.parent / "masks", photos.parent / "out"
    return zeroflaw(
        "inspect", bundle.path, photos, "-p", "object", "-o", out, "--truth", masks, *options
    )


def rows(photos: Path) -> dict[str, dict[str, str]]:
    with (photos.parent / "out" / "summary.csv").open(newline="") as file:
        return {row["output"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize(
    ("options", "verdicts", "said"),
    [
        (ACCEPT_ALL, ("right_accept", "missed"), "2 of 3 right, 1 missed, 0 false rejects"),
        (REJECT_ALL, ("false_reject", "right_reject"), "1 of 3 right, 0 missed, 2 false rejects"),
        ((*ACCEPT_ALL, "--set", "min_contrast=1"), ("hold", "hold"), "0 of 3 right"),
    ],
    ids=["all accepted", "all rejected", "all held"],
)
def test_page_and_summary_say_what_is_right(
    tiny_bundle: Bundle,
    photos: Path,
    options: tuple[str, ...],
    verdicts: tuple[str, str],
    said: str,
) -> None:
    done = inspect(tiny_bundle, photos, *options)
    assert done.returncode == (6 if "hold" in verdicts else 0), done.stderr
    assert f"against the truth {said}" in done.stdout
    assert "2 of 3 photos have no mask in" in done.stderr
    assert "belong to no photo" not in done.stderr
    found = rows(photos)
    assert {name: row["judgement"] for name, row in found.items()} == {
        "good/000": verdicts[0], "good/001": verdicts[0], "pit/000": verdicts[1],
    }  # fmt: skip
    assert [found[name]["truth"] for name in sorted(found)] == ["good", "good", "defective"]
    page = (photos.parent / "out" / "index.html").read_text("utf-8")
    assert f"<b>{said.split(maxsplit=1)[0]} of 3</b> decisions are right" in page
    assert "2 of 3 photos have no mask" in page
    assert "pit/000.truth.png" in page


def test_figures_are_of_the_map_and_the_mask_that_were_written(
    tiny_bundle: Bundle, photos: Path
) -> None:
    assert inspect(tiny_bundle, photos, *REJECT_ALL).returncode == 0
    out = photos.parent / "out"
    truth = np.asarray(Image.open(photos.parent / "masks/pit/000_mask.png")) > 0
    mask = np.asarray(Image.open(out / "pit/000.mask.png")) > 0
    row = rows(photos)["pit/000"]
    assert float(row["mask_iou"]) == pytest.approx(
        (mask & truth).sum() / (mask | truth).sum(), abs=5e-5
    )
    assert float(row["defect_found"]) == pytest.approx(mask[truth].mean(), abs=5e-5)
    with Inspector.load(tiny_bundle.path) as inspector:
        map_ = inspector.inspect(photos / "pit/000.png", product="object").anomaly_map
    auroc = roc_auc_score(mask_at_size(truth, len(map_)).ravel(), map_.ravel())
    assert float(row["map_auroc"]) == pytest.approx(auroc, abs=1e-3)
    assert rows(photos)["good/000"]["map_auroc"] == ""
    assert Image.open(out / "pit/000.truth.png").size == (400, 200)


def test_a_mask_that_cannot_be_used_costs_no_inspection(tiny_bundle: Bundle, photos: Path) -> None:
    masks = photos.parent / "masks"
    Image.fromarray(np.zeros((100, 400), np.uint8)).save(masks / "001.png")
    (masks / "pit" / "000_mask.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(masks / "stray.png")
    done = inspect(tiny_bundle, photos, *REJECT_ALL)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "001.png has 400x100 px, its photo" in done.stderr
    assert "000_mask.png" in done.stderr
    assert "1 masks in" in done.stderr
    assert "belong to no photo: stray.png" in done.stderr
    assert "3 of 3 inspected, 3 rejected" in done.stdout
    assert "against the truth 0 of 1 right" in done.stdout
    found = rows(photos)
    assert [found[name]["judgement"] for name in sorted(found)] == ["false_reject", "", ""]
    page = (photos.parent / "out" / "index.html").read_text("utf-8")
    assert page.count("No truth: ") == 2
    assert "stray.png" in page


def test_a_folder_that_tells_nothing_ends_the_command_before_it_begins(
    tiny_bundle: Bundle, photos: Path
) -> None:
    (photos.parent / "others").mkdir()
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(photos.parent / "others" / "nut.png")
    for folder, text in (
        ("nowhere", "does not exist"),
        ("photos", "every photo lies in"),
        ("others", "none of the 1 masks"),
    ):
        out = photos.parent / "out"
        done = zeroflaw(
            "inspect", tiny_bundle.path, photos, "-p", "object", "-o", out,
            "--truth", photos.parent / folder,
        )  # fmt: skip
        assert done.returncode == 1, folder
        assert text in done.stderr
        assert not out.exists()


def test_masks_among_the_photos_are_no_photos(tiny_bundle: Bundle, photos: Path) -> None:
    (photos.parent / "masks" / "pit" / "000_mask.png").rename(photos.parent / "masks" / "001.png")
    done = zeroflaw(
        "inspect", tiny_bundle.path, photos.parent, "-p", "object", "-o", photos.parent / "out",
        "--truth", photos.parent / "masks", *REJECT_ALL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "masks holds 1 truth masks" in done.stderr
    assert "3 of 3 inspected" in done.stdout
    assert "1 of 3 right, 0 missed, 2 false rejects" in done.stdout


def test_results_of_a_run_with_a_truth_go_as_a_whole(tiny_bundle: Bundle, photos: Path) -> None:
    out = photos.parent / "out"
    assert inspect(tiny_bundle, photos).returncode == 0
    assert len(list(out.rglob("*.truth.png"))) == 3
    again = zeroflaw("inspect", tiny_bundle.path, photos, "-p", "object", "-o", out)
    assert again.returncode == 0
    assert not list(out.rglob("*.truth.png"))
    assert "decisions are right" not in (out / "index.html").read_text("utf-8")
