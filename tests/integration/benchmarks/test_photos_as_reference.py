"""Clean photos as reference, without a dataset's layout: against inspections with the same bank."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import precision_recall_curve, roc_auc_score
from typer.testing import CliRunner

from support.datasets import mask, picture, write_defect_pictures
from support.products.learned_product import bank_of, store
from zeroflaw import Inspector
from zeroflaw_benchmarks.evaluate.photos_as_reference import figures_of_draws, load_engines, main
from zeroflaw_benchmarks.evaluate.shots.drawing import drawn_photos
from zeroflaw_benchmarks.evaluate.within_image import masked_photos, photos_in
from zeroflaw_engines.errors import DatasetError, EvaluationError
from zeroflaw_export.datasets import Sample, mask_at_size


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    root = tmp_path_factory.mktemp("photos")
    data = write_defect_pictures(root / "data", classes=("bolt",), count=5) / "bolt"
    masks = root / "masks"
    masks.mkdir()
    for path in (data / "ground_truth" / "scratch").iterdir():
        shutil.copyfile(path, masks / path.name.replace("_mask", ""))
    return data / "test" / "scratch", masks, data / "test" / "good"


def clean_samples(folder: Path) -> list[Sample]:
    return [Sample(path, None, anomalous=False, defect="good") for path in photos_in(folder)]


@pytest.mark.long
def test_figures_are_those_of_inspections_with_the_same_bank(
    tiny_bundle, folders, tmp_path
) -> None:
    defective, masks, clean = folders
    bad, good = masked_photos(defective, masks), clean_samples(clean)
    engines = load_engines(str(tiny_bundle.path), "object")
    got = list(figures_of_draws(engines, bad, good, product="object", shots=2, seeds=2))
    assert got[0] != got[1]
    bundle = Path(shutil.copytree(tiny_bundle.path, tmp_path / "bundle"))
    for seed, figures in enumerate(got):
        drawn = drawn_photos(5, 2, seed, "good")
        references = [np.asarray(Image.open(good[n].image)) for n in drawn]
        with Inspector.load(bundle) as inspector:
            rows = tiny_bundle.manifest.sizes.reference.rows // 2
            store(bundle, "object", bank_of(inspector, references, rows))
        rest = [sample for n, sample in enumerate(good) if n not in drawn]
        aurocs, scores, pixels = [], [], []
        with Inspector.load(bundle) as inspector:
            for sample in (*bad, *rest):
                frame = np.asarray(Image.open(sample.image))
                found = inspector.inspect(frame, product="object", trace=True)
                zero_shot, reference = found.trace.zero_shot_map, found.trace.reference_map
                peak = float(reference.max())
                texts = 2 * found.image_score - peak
                scores.append((texts, peak, found.image_score))
                truth = np.zeros(518 * 518, np.bool_)
                if sample.mask is not None:
                    truth = mask_at_size(np.asarray(Image.open(sample.mask)) > 0, 518).ravel()
                weight = inspector.parameters.fusion_weight
                below = np.float32(1 - weight) * found.anomaly_map
                inside = (found.score_map - below > 1e-6).astype(np.float32)
                of_kinds = (found.anomaly_map, inside, found.score_map)
                pixels.append((truth, *(cv2.resize(one, (518, 518)).ravel() for one in of_kinds)))
                if sample.mask is None:
                    continue
                maps = (zero_shot, reference, found.anomaly_map, found.score_map)
                aurocs.append(
                    [roc_auc_score(truth, cv2.resize(one, (518, 518)).ravel()) for one in maps]
                )
        labels = [True] * len(bad) + [False] * len(rest)
        want = [
            *np.mean(aurocs, axis=0),
            *(roc_auc_score(labels, one) for one in np.transpose(scores)),
        ]
        truths, *of_kinds = (np.concatenate(part) for part in zip(*pixels, strict=True))
        want += [_f1_max(truths, one) for one in of_kinds]
        assert dataclasses.astuple(figures) == pytest.approx(want, abs=1e-5)


def _f1_max(truth: np.ndarray, score: np.ndarray) -> float:
    precision, recall, _ = precision_recall_curve(truth, score)
    return float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)))


def test_the_command_prints_means_and_deviations(tiny_bundle, folders) -> None:
    import typer

    app = typer.Typer()
    app.command()(main)
    words = [tiny_bundle.path, *folders, "--shots", "4", "--seeds", "2"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert "5 defective and 5 clean photos, 4 of which are reference" in lines[0]
    assert len(lines) == 11
    assert all(" (0." in line for line in lines[1:])


@pytest.mark.parametrize("shots", [0, -1, 5, 9])
def test_at_least_one_clean_photo_is_left_to_inspect(tiny_bundle, folders, shots) -> None:
    defective, masks, clean = folders
    bad, good = masked_photos(defective, masks), clean_samples(clean)
    engines = load_engines(str(tiny_bundle.path), "object")
    with pytest.raises(EvaluationError, match="--shots") as caught:
        list(figures_of_draws(engines, bad, good, product="object", shots=shots, seeds=1))
    assert "1 to 4" in caught.value.remedy


def test_photos_without_masks_and_empty_folders_are_named(tmp_path) -> None:
    picture(tmp_path / "photos" / "a.png")
    picture(tmp_path / "photos" / "b.png")
    mask(tmp_path / "masks" / "a.png")
    with pytest.raises(DatasetError, match=r"b\.png has no mask"):
        masked_photos(tmp_path / "photos", tmp_path / "masks")
    with pytest.raises(DatasetError, match="no image in"):
        photos_in(tmp_path / "nothing")
