from __future__ import annotations

import dataclasses
import math
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from support.datasets import write_dataset
from zeroflaw_benchmarks.evaluate.cache import open_cache
from zeroflaw_benchmarks.evaluate.metrics.metrics import ImageMetrics
from zeroflaw_benchmarks.evaluate.report.published_shots import PUBLISHED_SHOTS
from zeroflaw_benchmarks.evaluate.result import spread_of
from zeroflaw_benchmarks.evaluate.shots.drawing import (
    ShotBank,
    drawn_photos,
    parsed_shots,
    photo_files,
    shot_banks,
)
from zeroflaw_engines.contract import ReferenceSizes
from zeroflaw_engines.errors import DatasetError, EvaluationError, ReferenceBankError
from zeroflaw_export.datasets import read_dataset

SIZES = ReferenceSizes(blocks=2, tokens=16, width=8, rows=20)


@pytest.mark.parametrize(
    ("text", "shots"), [("1,2,4,8", (1, 2, 4, 8)), ("4", (4,)), (" 8, 2,8", (2, 8))]
)
def test_numbers_of_photos_are_read_in_order(text, shots):
    assert parsed_shots(text) == shots


@pytest.mark.parametrize("text", ["0", "1,0", "", "1,,2", "one", "1.5", "-1", "²"])
def test_what_is_no_number_of_photos_is_refused(text):
    with pytest.raises(EvaluationError, match="--shots") as caught:
        parsed_shots(text)
    assert caught.value.remedy


def test_a_draw_can_be_repeated_with_numpy_alone():
    generator = np.random.default_rng((3, 4, zlib.crc32(b"screw")))
    want = sorted(generator.choice(50, 4, replace=False).tolist())
    assert drawn_photos(50, 4, 3, "screw") == want
    others = [drawn_photos(50, 4, 2, "screw"), drawn_photos(50, 4, 3, "tile")]
    assert want not in others


def bundle(reference: ReferenceSizes | None = SIZES, *engines: str) -> SimpleNamespace:
    names = engines or ("clip_encoder", "reference_matcher")
    manifest = SimpleNamespace(sizes=SimpleNamespace(reference=reference), engines=names)
    return SimpleNamespace(path="b", manifest=manifest)


def banks(root: Path, shots=(1, 2), seeds=3, of=None, **options) -> tuple[ShotBank, ...]:
    cache = open_cache(root / "cache", "identity")
    dataset = read_dataset(root / "data", **options)
    return shot_banks(of or bundle(), dataset, shots, seeds, cache=cache, backend="ort 1")


def test_every_class_has_a_bank_for_each_draw(tmp_path):
    write_dataset(tmp_path / "data", train=4)
    found = banks(tmp_path)
    assert [(b.class_name, b.shots, b.seed) for b in found] == [
        (name, shots, seed)
        for name in ("metal_nut", "object")
        for shots in (1, 2)
        for seed in range(3)
    ]
    for bank in found:
        folder = tmp_path / "data" / bank.class_name / "train" / "good"
        listed = sorted(folder.iterdir())
        want = [listed[n] for n in drawn_photos(4, bank.shots, bank.seed, bank.class_name)]
        assert [photo.image for photo in bank.photos] == want
        assert bank.source.rows == 20 // bank.shots
    # A photo that several draws share is encoded once.
    distinct = {photo.image for bank in found for photo in bank.photos}
    assert sorted(photo.image for photo in photo_files(found).values()) == sorted(distinct)
    assert banks(tmp_path) == found


def test_another_photo_or_backend_is_another_bank(tmp_path):
    write_dataset(tmp_path / "data", classes=("object",), train=2)
    (before,) = banks(tmp_path, (2,), 1)
    (tmp_path / "data" / "object" / "train" / "good" / "000.png").write_bytes(
        (tmp_path / "data" / "object" / "test" / "good" / "000.png").read_bytes()
    )
    (after,) = banks(tmp_path, (2,), 1)
    assert before.source.key != after.source.key
    cache, dataset = open_cache(tmp_path / "cache", "identity"), read_dataset(tmp_path / "data")
    (other,) = shot_banks(bundle(), dataset, (2,), 1, cache=cache, backend="ort 2")
    assert other.source.key != after.source.key
    assert not set(other.source.photos) & set(after.source.photos)


def test_more_photos_than_there_are_is_an_error_that_names_the_class(tmp_path):
    write_dataset(tmp_path / "data", train=4)
    (tmp_path / "data" / "object" / "train" / "good" / "003.png").unlink()
    with pytest.raises(EvaluationError, match=r"'object' has 3 good images .* asks for 4"):
        banks(tmp_path, (4,))


def test_more_photos_than_a_bank_has_rows(tmp_path):
    write_dataset(tmp_path / "data", train=4)
    with pytest.raises(ReferenceBankError, match=r"3 photos .* 2 rows"):
        banks(tmp_path, (3,), of=bundle(dataclasses.replace(SIZES, rows=2)))


@pytest.mark.parametrize("of", [bundle(None), bundle(SIZES, "clip_encoder")])
def test_a_bundle_without_the_matcher_is_refused(tmp_path, of):
    write_dataset(tmp_path / "data", train=1)
    with pytest.raises(EvaluationError, match="no reference_matcher"):
        banks(tmp_path, of=of)


def test_a_dataset_without_a_train_split_is_refused(tmp_path):
    write_dataset(tmp_path / "data", train=0)
    with pytest.raises(DatasetError, match="no usable image in its train split"):
        banks(tmp_path)
    write_dataset(tmp_path / "data", train=1)
    with pytest.raises(EvaluationError, match="evaluated as its train split"):
        banks(tmp_path, split="train")
    for folder, kind in (("images", "test/good"), ("masks", "ground_truth/hole")):
        (tmp_path / "plain" / "data" / folder).mkdir(parents=True)
        source = next((tmp_path / "data" / "object" / kind).iterdir())
        target = tmp_path / "plain" / "data" / folder / "000.png"
        target.write_bytes(source.read_bytes())
    with pytest.raises(EvaluationError, match="evaluated as a plain folder") as caught:
        banks(tmp_path / "plain")
    assert "photos_as_reference" in caught.value.remedy


def test_mean_and_deviation_over_draws(rng):
    values = rng.random((5, 3))
    mean, deviation = spread_of(ImageMetrics, [ImageMetrics(*row) for row in values])
    assert dataclasses.astuple(mean) == pytest.approx(values.mean(axis=0), abs=1e-12)
    assert dataclasses.astuple(deviation) == pytest.approx(np.std(values, axis=0, ddof=1))
    mean, deviation = spread_of(ImageMetrics, [ImageMetrics(0.5, 0.25, math.nan)])
    assert (mean.auroc, mean.average_precision) == (0.5, 0.25)
    assert math.isnan(mean.f1_max)
    assert math.isnan(deviation.auroc)


def test_published_rows_are_of_one_form_and_grow_with_the_photos():
    assert len({(row.dataset, row.shots, row.method) for row in PUBLISHED_SHOTS}) == 22
    best: dict[tuple[str, str], float] = {}
    for row in sorted(PUBLISHED_SHOTS, key=lambda row: row.shots):
        figures = dataclasses.astuple(row)[3:]
        for figure in figures:
            mean, deviation = map(float, (figure or "50±0").split("±"))
            assert 0 < mean < 100
            assert deviation < 5
        auroc = float(figures[0].split("±")[0])
        assert auroc >= best.get((row.dataset, row.method), 0)
        best[row.dataset, row.method] = auroc
