"""Evaluations of a small random-weight bundle, against the Inspector and scikit-learn."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from threadpoolctl import threadpool_limits

from support.datasets import save, write_dataset
from support.measured_process import ZEROFLAW
from zeroflaw import Inspector, MethodParameters
from zeroflaw_benchmarks.evaluate import cache as evaluation_cache
from zeroflaw_benchmarks.evaluate import decoding_pass, encoding_pass
from zeroflaw_benchmarks.evaluate.contact_sheet import chosen_samples, write_contact_sheets
from zeroflaw_benchmarks.evaluate.evaluation import (
    evaluate_bundle,
    measure,
    run_decoder,
    run_encoders,
)
from zeroflaw_benchmarks.evaluate.measuring_pass import CachedSample, cached_score
from zeroflaw_benchmarks.evaluate.plan import plan_evaluation
from zeroflaw_benchmarks.evaluate.tables import evaluation_json, markdown, table_csv
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.errors import EvaluationError, ProductError
from zeroflaw_export.datasets import read_dataset

MAP_SIZE = 224


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("datasets") / "small")


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encodings that several tests read; none of them changes what is in it."""
    return tmp_path_factory.mktemp("caches") / "shared"


def evaluated(bundle: Bundle, folder: Path, cache: Path, **options):
    options = {"processes": 1, "size": MAP_SIZE, **options}
    return evaluate_bundle(bundle.path, read_dataset(folder), cache=cache, **options)


def truth_of(image: Path, root: Path) -> np.ndarray | None:
    """The mask's file pixels, found by the layout's rule and not by our reader."""
    kind = image.parent.name
    if kind == "good":
        return None
    name = image.parent.parent.parent.name
    path = root / name / "ground_truth" / kind / f"{image.stem}_mask.png"
    return np.asarray(Image.open(path))


def april_gan_truth(image: Path, root: Path, size: int) -> np.ndarray:
    mask = truth_of(image, root)
    if mask is None:
        return np.zeros((size, size), bool)
    resized = Image.fromarray(np.uint8(mask > 0) * 255).resize((size, size), Image.BILINEAR)
    return np.asarray(resized) / 255 > 0.5


def images_of(root: Path, name: str) -> list[Path]:
    return sorted((root / name / "test").glob("*/*.png"))


def sklearn_figures(scores: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    precision, recall, _ = precision_recall_curve(truth, scores)
    with np.errstate(invalid="ignore"):
        f1 = np.nanmax(2 * precision * recall / (precision + recall))
    return roc_auc_score(truth, scores), average_precision_score(truth, scores), f1


@pytest.mark.parametrize(
    "parameters",
    [
        MethodParameters(),
        MethodParameters(extreme_threshold=0.8, fusion_weight=0.3),
        MethodParameters(
            extreme_threshold=0.85,
            no_region="always_run",
            sam_input="squashed",
            box="per_component",
            stage1_mask="single",
        ),
    ],
    ids=["default", "some_without_region", "squashed"],
)
def test_every_row_is_what_an_inspector_with_its_parameters_gives(
    tiny_bundle, dataset_dir, shared_cache, parameters
) -> None:
    got = evaluated(
        tiny_bundle, dataset_dir, shared_cache, parameters=parameters, ablations=("cascade",)
    )
    assert [row.name for row in got.table("scoring")] == ["fused", "map", "mask", "sam_probability"]
    assert len(got.table("cascade")) == 3
    statuses = Counter()
    with Inspector.load(tiny_bundle.path, threads=1) as loaded, threadpool_limits(1):
        for row in got.rows:
            inspector = Inspector(tiny_bundle, loaded._sessions, parameters=row.parameters)
            means = []
            for name, metrics in row.classes.items():
                inspections = [
                    inspector.inspect(np.asarray(Image.open(path)), product=name)
                    for path in images_of(dataset_dir, name)
                ]
                if row.name == "fused":
                    statuses.update(inspection.status for inspection in inspections)
                scores = np.concatenate([i.score_map.ravel() for i in inspections])
                truth = np.concatenate(
                    [
                        april_gan_truth(path, dataset_dir, MAP_SIZE).ravel()
                        for path in images_of(dataset_dir, name)
                    ]
                )
                want = sklearn_figures(scores, truth)
                figures = (metrics.auroc, metrics.average_precision, metrics.f1_max)
                assert figures == pytest.approx(want, abs=1e-9), (row.name, name)
                means.append(want)
            mean = (row.mean.auroc, row.mean.average_precision, row.mean.f1_max)
            assert mean == pytest.approx(np.mean(means, axis=0), abs=1e-9)
    assert got.statuses == dict(statuses)
    if parameters.extreme_threshold == 0.8:
        assert 0 < got.statuses["no_region"] < statuses.total()


def test_cached_scores_are_the_inspectors_bit_by_bit(
    tiny_bundle, dataset_dir, shared_cache
) -> None:
    plan = decoded_plan(tiny_bundle, dataset_dir, shared_cache)
    sizes = tiny_bundle.manifest.sizes
    with Inspector.load(tiny_bundle.path, threads=1) as loaded, threadpool_limits(1):
        for scoring in ("fused", "map", "mask", "sam_probability"):
            parameters = plan.parameters.replace(scoring=scoring)
            inspector = Inspector(tiny_bundle, loaded._sessions, parameters=parameters)
            for s in plan.samples[::3]:
                frame = np.asarray(Image.open(s.sample.image))
                want = inspector.inspect(frame, product=s.product).score_map
                cached = CachedSample(s.truth, s.encoding, plan.decoding_file(s, parameters))
                np.testing.assert_array_equal(cached_score(cached, parameters, sizes), want)


def test_at_518_the_logits_are_resized_and_no_mask_is(
    tiny_bundle, dataset_dir, shared_cache
) -> None:
    plan = decoded_plan(tiny_bundle, dataset_dir, shared_cache, size=518)
    sizes = tiny_bundle.manifest.sizes
    with Inspector.load(tiny_bundle.path, threads=1) as inspector:
        for s in plan.samples[::4]:
            inspection = inspector.inspect(
                np.asarray(Image.open(s.sample.image)), product=s.product, trace=True
            )
            kept = inspection.trace.stages[inspection.trace.kept_stage - 1]
            height, width = inspection.frame_size
            content = (round(256 * height / max(height, width)), 256)
            full = torch.nn.functional.interpolate(
                torch.from_numpy(kept.low_res_logits)[None, None], (256, 256), mode="bilinear"
            )[..., : content[0], : content[1]]
            logits = torch.nn.functional.interpolate(full, (518, 518), mode="bilinear")[0, 0]
            parameters = plan.parameters.replace(scoring="mask")
            cached = CachedSample(s.truth, s.encoding, plan.decoding_file(s, parameters))
            mask = cached_score(cached, parameters, sizes)
            sure = abs(logits.numpy()) > 1e-3
            assert mask.shape == (518, 518)
            np.testing.assert_array_equal(mask[sure] > 0, logits.numpy()[sure] > 0)
            assert set(np.unique(mask)) <= {0, 1}
            resized = cv2.resize(inspection.anomaly_map, (518, 518))
            parameters = plan.parameters.replace(scoring="map")
            np.testing.assert_allclose(cached_score(cached, parameters, sizes), resized, atol=1e-6)


def test_image_level_figures(tiny_bundle, dataset_dir, shared_cache) -> None:
    got = evaluated(tiny_bundle, dataset_dir, shared_cache)
    with Inspector.load(tiny_bundle.path, threads=1) as loaded:
        for row in got.image_rows:
            parameters = MethodParameters(image_scoring=row.name)
            inspector = Inspector(tiny_bundle, loaded._sessions, parameters=parameters)
            for name, metrics in row.classes.items():
                paths = images_of(dataset_dir, name)
                scores = [
                    inspector.inspect(np.asarray(Image.open(p)), product=name).image_score
                    for p in paths
                ]
                want = sklearn_figures(
                    np.array(scores, np.float32), np.array([p.parent.name != "good" for p in paths])
                )
                figures = (metrics.auroc, metrics.average_precision, metrics.f1_max)
                assert figures == pytest.approx(want, abs=1e-9)


def decoded_plan(bundle: Bundle, folder: Path, cache: Path, **options):
    options = {"processes": 1, "size": MAP_SIZE, **options}
    plan = run_encoders(plan_evaluation(bundle.path, read_dataset(folder), cache=cache, **options))
    run_decoder(plan)
    return plan


@pytest.fixture
def calls(monkeypatch) -> Counter:
    """Counts the calls of each engine in this process."""
    counted: Counter = Counter()

    class Counting:
        def __init__(self, session):
            self._session = session
            self.contract, self.backend, self.close = (
                session.contract,
                session.backend,
                session.close,
            )

        def execute(self, inputs, *, keep=()):
            counted[self.contract.name] += 1
            return self._session.execute(inputs, keep=keep)

    for module in (encoding_pass, decoding_pass):
        load = module.load_session
        monkeypatch.setattr(
            module, "load_session", lambda *a, load=load, **k: Counting(load(*a, **k))
        )
    return counted


def test_ablations_run_the_encoders_once_and_change_only_what_they_should(
    tiny_bundle, dataset_dir, tmp_path, calls
) -> None:
    cache = tmp_path / "cache"
    plain = evaluated(tiny_bundle, dataset_dir, cache)
    assert calls == {"clip_encoder": 12, "sam_encoder": 12, "sam_decoder": 36}
    calls.clear()
    ablated = evaluated(tiny_bundle, dataset_dir, cache, ablations=("kernel", "cascade"))
    # Nine kernels of which one is the bundle's own; stages 1 and 2 were decoded on the way.
    assert calls == {"sam_decoder": 8 * 36}
    # As text, since NaN is not equal to itself.
    assert str(ablated.table("scoring")) == str(plain.table("scoring"))
    assert ablated.image_rows == plain.image_rows
    for row in ablated.table("kernel"):
        changed = ("dilation_kernel", "dilation_size")
        assert differing(row.parameters, plain.parameters) <= set(changed)
    kernels = {row.name: row for row in ablated.table("kernel")}
    assert len(kernels) == 9
    assert kernels["ellipse 25"].classes == plain.table("scoring")[0].classes
    assert len({row.mean.auroc for row in kernels.values()}) > 4
    stages = ablated.table("cascade")
    assert all(differing(row.parameters, plain.parameters) <= {"cascade_stages"} for row in stages)
    assert stages[2].classes == plain.table("scoring")[0].classes
    assert len({row.mean.auroc for row in stages}) == 3
    calls.clear()
    # What only matters after decoding needs no engine at all.
    evaluated(
        tiny_bundle,
        dataset_dir,
        cache,
        parameters=plain.parameters.replace(fusion_weight=0.9, image_scoring="map_max"),
    )
    assert not calls


def differing(a: MethodParameters, b: MethodParameters) -> set[str]:
    one, other = dataclasses.asdict(a), dataclasses.asdict(b)
    return {name for name in one if one[name] != other[name]}


def test_several_processes_give_what_one_gives(
    tiny_bundle, dataset_dir, shared_cache, tmp_path
) -> None:
    one = evaluated(tiny_bundle, dataset_dir, shared_cache, ablations=("cascade",))
    two = evaluated(
        tiny_bundle, dataset_dir, tmp_path / "cache", ablations=("cascade",), processes=2
    )
    assert evaluation_json(two) == evaluation_json(one)


def test_half_a_cache_is_completed_to_the_same_result(
    tiny_bundle, dataset_dir, tmp_path, calls
) -> None:
    cache = tmp_path / "cache"
    first = evaluated(tiny_bundle, dataset_dir, cache)
    for kind in ("encodings", "decodings"):
        for path in sorted((cache / kind).rglob("*.npz"))[::2]:
            path.unlink()
    # What a killed writer leaves behind is not taken for an entry.
    (cache / "encodings" / ".half.npz.1.partial").write_bytes(b"half")
    calls.clear()
    again = evaluated(tiny_bundle, dataset_dir, cache)
    assert calls == {"clip_encoder": 6, "sam_encoder": 6, "sam_decoder": 18}
    assert evaluation_json(again) == evaluation_json(first)


def test_other_embeddings_of_a_product_are_encoded_anew(
    tiny_bundle, dataset_dir, tmp_path, calls
) -> None:
    one = evaluated(tiny_bundle, dataset_dir, tmp_path, product="object")
    assert calls["clip_encoder"] == 12
    other = evaluated(tiny_bundle, dataset_dir, tmp_path, product="metal_nut")
    assert calls["clip_encoder"] == 24
    assert {count.product for count in other.classes} == {"metal_nut"}
    assert one.rows[0].classes["object"] != other.rows[0].classes["object"]


def test_a_cache_of_other_weights_is_refused(
    tiny_bundle, dataset_dir, tmp_path, monkeypatch
) -> None:
    evaluation_cache.open_cache(tmp_path, "f" * 64)
    with pytest.raises(EvaluationError, match="other weights") as caught:
        evaluated(tiny_bundle, dataset_dir, tmp_path)
    assert "--cache" in caught.value.remedy


def test_too_small_a_disk_is_found_before_any_work(
    tiny_bundle, dataset_dir, tmp_path, monkeypatch, calls
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        evaluation_cache.shutil, "disk_usage", lambda path: usage._replace(free=100_400_000)
    )
    with pytest.raises(EvaluationError, match=r"needs 3 MB more and 100 MB to spare") as caught:
        evaluated(tiny_bundle, dataset_dir, tmp_path)
    assert "--cache" in caught.value.remedy
    assert not calls


def test_products_of_classes(tiny_bundle, dataset_dir, tmp_path) -> None:
    (tmp_path / "data").mkdir()
    shutil.copytree(dataset_dir / "object", tmp_path / "data" / "bottle")
    with pytest.raises(ProductError, match="no product 'bottle'") as caught:
        evaluated(tiny_bundle, tmp_path / "data", tmp_path / "cache")
    assert "products add" in caught.value.remedy
    assert "--product" in caught.value.remedy
    with pytest.raises(ProductError, match="no product 'screw'"):
        evaluated(tiny_bundle, tmp_path / "data", tmp_path / "cache", product="screw")
    got = evaluated(tiny_bundle, tmp_path / "data", tmp_path / "cache", product="object")
    assert [(c.name, c.product) for c in got.classes] == [("bottle", "object")]


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


def test_a_class_without_defects_has_no_figures(tiny_bundle, dataset_dir, tmp_path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(dataset_dir, folder)
    shutil.rmtree(folder / "object" / "test" / "hole")
    shutil.rmtree(folder / "object" / "test" / "scratch")
    got = evaluated(tiny_bundle, folder, tmp_path / "cache")
    fused = got.table("scoring")[0]
    assert math.isnan(fused.classes["object"].auroc)
    assert fused.mean.auroc == fused.classes["metal_nut"].auroc
    assert "The class object has no defective image." in got.notes


def test_tables_and_sheets(tiny_bundle, dataset_dir, shared_cache, tmp_path) -> None:
    plan = decoded_plan(tiny_bundle, dataset_dir, shared_cache, ablations=("kernel", "cascade"))
    got = measure(plan)
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
    page = write_contact_sheets(plan, 3, tmp_path)
    sheets = sorted((tmp_path / "contact_sheets").glob("*.png"))
    assert [sheet.name for sheet in sheets] == ["00_metal_nut.png", "01_object.png"]
    assert all(f"contact_sheets/{sheet.name}" in page.read_text() for sheet in sheets)
    picture = np.asarray(Image.open(sheets[0]))
    assert picture.shape[0] > 3 * 220
    assert picture.shape[1] > 6 * 220
    chosen = chosen_samples(plan.samples_of("object"), 3)
    assert len({s.sample.image for s in chosen}) == 3
    assert [s.sample.defect for s in chosen_samples(plan.samples_of("object"), 4)].count(
        "good"
    ) == 1
    assert len(chosen_samples(plan.samples_of("object"), 99)) == 6


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
