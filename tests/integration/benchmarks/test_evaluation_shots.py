"""Reference photos in an evaluation: against NumPy, the pipeline's own path, and the cache."""

from __future__ import annotations

import math
import shutil
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score
from threadpoolctl import threadpool_limits

from support.evaluations import MAP_SIZE, evaluated, evaluated_job
from support.products.learned_product import bank_of, store
from zeroflaw import Inspector
from zeroflaw.pipeline.encoding.frame import encode
from zeroflaw.pipeline.geometry import geometry_of, squash
from zeroflaw.pipeline.reference import load_bank
from zeroflaw.pipeline.refining.decoding import decode
from zeroflaw.pipeline.scoring import score_map
from zeroflaw_benchmarks.evaluate.passes.measuring_pass import CachedSample, cached_score
from zeroflaw_benchmarks.evaluate.report.tables import evaluation_json, markdown, table_csv
from zeroflaw_engines.backends import load_session
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.reference_bank import ReferenceBank
from zeroflaw_engines.errors import EvaluationError, ReferenceBankError

# Nine photos share a bank that holds all tokens of eight.
SHOTS = {"shots": (1, 9), "seeds": 2}


def image(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def clip(bundle: Bundle, path: Path, session) -> dict[str, np.ndarray]:
    pixels = squash(image(path), bundle.manifest.sizes.clip_image_size)
    texts = bundle.text_embeddings("object")
    return session.execute({"image": pixels[None], "text_embeddings": texts})


def plain_coreset(tokens: np.ndarray, rows: int) -> np.ndarray:
    """Farthest points by distance, one after the other; the first is nearest to the mean."""
    tokens = tokens.astype(np.float64)
    mean = tokens.mean(axis=0)
    chosen = [int(np.argmin(np.linalg.norm(tokens - mean, axis=1)))]
    nearest = np.full(len(tokens), np.inf)
    while len(chosen) < min(rows, len(tokens)):
        nearest = np.minimum(nearest, np.linalg.norm(tokens - tokens[chosen[-1]], axis=1))
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
    return tokens[chosen]


def numpy_reference_map(bundle: Bundle, tokens: np.ndarray, banks: list[np.ndarray]) -> np.ndarray:
    blocks = [
        1 - (t.astype(np.float64) @ b.T).max(axis=1) for t, b in zip(tokens, banks, strict=True)
    ]
    side = math.isqrt(tokens.shape[1])
    grid = torch.from_numpy(np.mean(blocks, axis=0).reshape(1, 1, side, side))
    size = bundle.manifest.sizes.clip_image_size
    return torch.nn.functional.interpolate(
        grid, (size, size), mode="bilinear", align_corners=True
    ).numpy()[0, 0]


def drawn(folder: Path, shots: int, seed: int) -> list[Path]:
    photos = sorted((folder / "object" / "train" / "good").iterdir())
    generator = np.random.default_rng((seed, shots, zlib.crc32(b"object")))
    return [photos[n] for n in sorted(generator.choice(len(photos), shots, replace=False))]


def test_rows_of_every_draw_are_what_numpy_makes_of_the_tokens(
    tiny_bundle, train_dataset, tmp_path
) -> None:
    got = evaluated(tiny_bundle, train_dataset, tmp_path, **SHOTS)
    assert [(run.shots, run.seed) for run in got.shot_runs] == [(1, 0), (1, 1), (9, 0), (9, 1)]
    session = load_session(tiny_bundle, "clip_encoder", threads=1)
    sizes = tiny_bundle.manifest.sizes.reference
    rows = sizes.rows
    assert rows // 9 < sizes.tokens
    tests = sorted((train_dataset / "object" / "test").glob("*/*.png"))
    seen = {path: clip(tiny_bundle, path, session) for path in tests}
    truths = []
    for path in tests:
        mask = train_dataset / "object" / "ground_truth" / path.parent.name
        file = mask / f"{path.stem}_mask.png"
        truth = image(file) > 0 if file.exists() else np.zeros((8, 8), bool)
        resized = Image.fromarray(np.uint8(truth) * 255).resize((MAP_SIZE,) * 2, Image.BILINEAR)
        truths.append(np.asarray(resized) > 127)
    bad = [path.parent.name != "good" for path in tests]
    for run in got.shot_runs:
        photos = drawn(train_dataset, run.shots, run.seed)
        assert run.photos["object"] == tuple(
            path.relative_to(train_dataset).as_posix() for path in photos
        )
        thinned = [
            [
                plain_coreset(block, rows // run.shots)
                for block in clip(tiny_bundle, path, session)["patch_tokens"]
            ]
            for path in photos
        ]
        banks = [np.concatenate(blocks).astype(np.float16) for blocks in zip(*thinned, strict=True)]
        maps, scores = [], []
        for path in tests:
            found = numpy_reference_map(tiny_bundle, seen[path]["patch_tokens"], banks)
            maps.append(np.minimum(seen[path]["anomaly_map"][0] + np.minimum(found, 1), 1))
            scores.append((seen[path]["image_score"][0] + found.max()) / 2)
        pixels = np.concatenate([np.ravel(m) for m in maps]), np.ravel(truths)
        metrics, images = run.pixels["map"]["object"], run.images["object"]
        assert metrics.auroc == pytest.approx(roc_auc_score(pixels[1], pixels[0]), abs=1e-5)
        want = average_precision_score(pixels[1], pixels[0])
        assert metrics.average_precision == pytest.approx(want, abs=1e-5)
        assert images.auroc == pytest.approx(roc_auc_score(bad, scores), abs=1e-9)


def test_maps_and_cascades_are_those_of_the_pipeline_bit_by_bit(
    tiny_bundle, train_dataset, tmp_path
) -> None:
    job, _ = evaluated_job(tiny_bundle, train_dataset, tmp_path, shots=(2,), seeds=1)
    (bank,) = job.shot_banks
    sizes = tiny_bundle.manifest.sizes
    names = ("clip_encoder", "sam_encoder", "sam_decoder", "reference_matcher")
    engines = {name: load_session(tiny_bundle, name, threads=1) for name in names}
    with threadpool_limits(1):
        tokens = [np.load(file)["tokens"][:, : bank.source.rows] for file in bank.source.photos]
        joined = ReferenceBank(
            np.concatenate(tokens, axis=1),
            np.repeat(np.arange(2, dtype=np.int32), tokens[0].shape[1]),
            tiny_bundle.tower,
        )
        loaded = load_bank(joined, "digest", engines["reference_matcher"])
        for sample in job.samples:
            frame = image(sample.sample.image)
            encoding = encode(
                frame,
                geometry_of(frame.shape[:2], sizes, job.parameters),
                tiny_bundle.text_embeddings("object"),
                clip_encoder=engines["clip_encoder"],
                sam_encoder=engines["sam_encoder"],
                matcher=engines["reference_matcher"],
                bank=loaded,
                parameters=job.parameters,
            )
            assert encoding.reference_map is not None
            decoding = decode(
                encoding, job.parameters, sam_decoder=engines["sam_decoder"], sizes=sizes
            )
            target = job.shot_decoding(sample, bank)
            cached = CachedSample(sample.truth, sample.encoding, target.file, target.reference)
            for scoring in ("map", "fused"):
                parameters = job.parameters.replace(scoring=scoring)
                want = score_map(encoding.anomaly_map, decoding.cascade, parameters)
                np.testing.assert_array_equal(cached_score(cached, parameters, sizes), want)


def test_clip_runs_once_for_each_image_and_nothing_runs_twice(
    tiny_bundle, train_dataset, tmp_path, calls
) -> None:
    plain = evaluated(tiny_bundle, train_dataset, tmp_path)
    assert calls == {"clip_encoder": 6, "sam_encoder": 6, "sam_decoder": 18}
    calls.clear()
    first = evaluated(tiny_bundle, train_dataset, tmp_path, **SHOTS)
    photos = {name for run in first.shot_runs for name in run.photos["object"]}
    # What was encoded without tokens is encoded again by CLIP alone.
    assert calls == {
        "clip_encoder": len(photos) + 6,
        "reference_matcher": 4 * 6,
        "sam_decoder": 4 * 18,
    }
    assert str(first.rows) == str(plain.rows)  # NaN is not equal to itself
    calls.clear()
    for kind in ("references", "decodings", "photos"):
        for path in sorted((tmp_path / kind).rglob("*.npz"))[::2]:
            path.unlink()
    again = evaluated(tiny_bundle, train_dataset, tmp_path, **SHOTS)
    assert evaluation_json(again) == evaluation_json(first)
    assert calls["reference_matcher"] == 12
    assert not calls["sam_encoder"]
    calls.clear()
    # Other draws share what they can; how scores are fused needs no engine, how maps are, SAM's.
    score = plain.parameters.replace(reference_image_scoring="reference")
    other = evaluated(tiny_bundle, train_dataset, tmp_path, parameters=score, **SHOTS)
    assert not calls
    assert other.shot_runs[0].images != first.shot_runs[0].images
    fused = plain.parameters.replace(reference_fusion="mean")
    other = evaluated(tiny_bundle, train_dataset, tmp_path, parameters=fused, **SHOTS)
    assert set(calls) == {"sam_decoder"}
    assert other.shot_runs[0].pixels != first.shot_runs[0].pixels


@pytest.mark.long
def test_several_processes_and_a_fresh_cache_give_the_same(
    tiny_bundle, train_dataset, tmp_path, calls
) -> None:
    one = evaluated(tiny_bundle, train_dataset, tmp_path / "one", **SHOTS)
    photos = {name for run in one.shot_runs for name in run.photos["object"]}
    assert calls["clip_encoder"] == len(photos) + 6
    two = evaluated(tiny_bundle, train_dataset, tmp_path / "two", processes=2, **SHOTS)
    assert evaluation_json(two) == evaluation_json(one)


def test_space_is_counted_before_any_work(tiny_bundle, train_dataset, tmp_path) -> None:
    job, _ = evaluated_job(tiny_bundle, train_dataset, tmp_path, **SHOTS)
    written = sum(path.stat().st_size for path in tmp_path.rglob("*.npz"))
    assert written <= job.bytes_needed <= 1.3 * written
    job, _ = evaluated_job(tiny_bundle, train_dataset, tmp_path, **SHOTS)
    assert job.bytes_needed == 0


def test_rows_are_written_beside_the_published_ones(tiny_bundle, train_dataset, tmp_path) -> None:
    got = evaluated(tiny_bundle, train_dataset, tmp_path, shots=(1, 3), seeds=2)
    page = markdown(got)
    rows = [line for line in page.splitlines() if line.startswith(("| 1 |", "| 3 |"))]
    assert sum("measured: " in row for row in rows) == 4
    assert "| 1 | APRIL-GAN | MVTec-AD | 92.0±0.3 |" in page
    assert not any("WinCLIP" in row for row in rows if row.startswith("| 3 |"))
    auroc = [run.pixels["map"]["object"].auroc for run in got.shot_runs if run.shots == 3]
    want = f"{100 * np.mean(auroc):.1f}±{100 * np.std(auroc, ddof=1):.1f}"
    assert any(want in row for row in rows if "3 | **measured: map**" in row)
    assert "3 photos, seed 1, object: object/train/good/" in page
    lines = table_csv(got).splitlines()
    assert sum(line.startswith(("pixel,shots", "image,shots")) for line in lines) == 2 * 3 * (4 + 2)
    assert any(line.startswith('pixel,shots,"3 photos, map",deviation') for line in lines)
    stored = msgspec.json.decode(evaluation_json(got))["shot_runs"]
    assert [run["photos"]["object"] for run in stored] == [
        list(run.photos["object"]) for run in got.shot_runs
    ]
    plain = evaluated(tiny_bundle, train_dataset, tmp_path)
    assert "Reference photos" not in markdown(plain)
    assert ",shots," not in table_csv(plain)


def test_a_damaged_reference_photo_is_named(tiny_bundle, train_dataset, tmp_path) -> None:
    folder = Path(shutil.copytree(train_dataset, tmp_path / "data"))
    (broken,) = drawn(folder, 1, 0)
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(EvaluationError, match=broken.name) as caught:
        evaluated(tiny_bundle, folder, tmp_path / "cache", shots=(1,), seeds=1)
    assert "train split" in caught.value.remedy


def test_more_photos_than_the_class_has(tiny_bundle, train_dataset, tmp_path, calls) -> None:
    with pytest.raises((EvaluationError, ReferenceBankError), match="has 10 good images"):
        evaluated(tiny_bundle, train_dataset, tmp_path, shots=(11,), seeds=1)
    assert not calls


def test_a_product_that_has_learned_is_measured_with_its_bank(
    tiny_bundle, train_dataset, tmp_path, calls
) -> None:
    path = Path(shutil.copytree(tiny_bundle.path, tmp_path / "bundle"))
    photos = drawn(train_dataset, 2, 7)
    with Inspector.load(path, threads=1) as inspector:
        bank = bank_of(inspector, [image(photo) for photo in photos], 200)
    before = evaluated(tiny_bundle, train_dataset, tmp_path / "cache", shots=(1,), seeds=1)
    assert not before.own_banks
    digest = store(path, "object", bank)
    learned = open_bundle(path)
    calls.clear()
    got = evaluated(learned, train_dataset, tmp_path / "cache", shots=(1,), seeds=1)
    # CLIP gives the tokens; the encodings are what they were, and so are the draws' maps.
    assert calls == {"clip_encoder": 6, "reference_matcher": 6, "sam_decoder": 18}
    assert got.own_banks == {"object": digest}
    assert any("object has a reference bank of its own" in note for note in got.notes)
    assert got.shot_runs == before.shot_runs
    assert "| 0 | **measured: map** | train | - | - |" in markdown(got)
    tests = sorted((train_dataset / "object" / "test").glob("*/*.png"))
    bad = [one.parent.name != "good" for one in tests]
    with Inspector.load(path, threads=1) as inspector, threadpool_limits(1):
        found = [inspector.inspect(image(one), product="object") for one in tests]
        assert {inspection.reference for inspection in found} == {digest}
        score = roc_auc_score(bad, [inspection.image_score for inspection in found])
    assert got.image_rows[0].classes["object"].auroc == pytest.approx(score, abs=1e-9)
    job, _ = evaluated_job(learned, train_dataset, tmp_path / "cache")
    sizes = learned.manifest.sizes
    for sample in job.samples:
        (want,) = (i for i, one in zip(found, tests, strict=True) if one == sample.sample.image)
        cached = CachedSample(
            sample.truth,
            sample.encoding,
            job.decoding_file(sample, job.parameters),
            sample.reference,
        )
        np.testing.assert_array_equal(cached_score(cached, job.parameters, sizes), want.score_map)
