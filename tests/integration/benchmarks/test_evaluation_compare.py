"""`zeroflaw evaluate --compare`: its figures are those of evaluations, and its costs what ran."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from support.command_line import ZEROFLAW
from support.evaluations import MAP_SIZE, evaluated
from support.exported_bundle import with_proposer
from zeroflaw_benchmarks.bench.machine.graph_macs import graph_cost
from zeroflaw_benchmarks.evaluate import cli
from zeroflaw_benchmarks.evaluate.comparison.comparison import (
    Comparison,
    ComparisonOptions,
    compare_methods,
)
from zeroflaw_benchmarks.evaluate.comparison.methods import methods_of
from zeroflaw_benchmarks.evaluate.job import EvaluationOptions
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.errors import EvaluationError
from zeroflaw_export.datasets import read_dataset


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compared") / "cache"


@pytest.fixture(scope="module")
def compared(tiny_bundle: Bundle, train_dataset: Path, cache: Path) -> Comparison:
    options = EvaluationOptions(cache=cache, processes=1, size=MAP_SIZE, shots=(2,), seeds=2)
    methods = methods_of([str(tiny_bundle.path)], ["none", "mmr"], shots=True)
    how = ComparisonOptions(best_by="auroc", runs=2)
    return compare_methods(methods, read_dataset(train_dataset), options, how)


def test_rows_are_those_of_evaluations(
    compared, tiny_bundle, train_dataset, cache, tmp_path
) -> None:
    names = ["april_gan + cascade", "april_gan + none", "april_gan + mmr"]
    assert [(row.name, row.shots) for row in compared.rows] == [
        *((name, 0) for name in names), *((name, 2) for name in names)
    ]  # fmt: skip
    for row in compared.rows[:3]:
        alone = evaluated(
            tiny_bundle, train_dataset, cache / row.identity[:16],
            parameters=row.parameters, shots=(2,), seeds=2,
            keep_features=True,
        )  # fmt: skip
        scoring = "map" if row.refiner == "none" else "fused"
        pixels = next(one for one in alone.table("scoring") if one.name == scoring).mean
        images = next(one for one in alone.image_rows if one.name == "cls").mean
        want = (pixels.auroc, pixels.f1_max, pixels.average_precision, pixels.pro,
                images.auroc, images.f1_max, images.average_precision)  # fmt: skip
        got = [value for name, value in row.figures.items() if name != "within-image"]
        np.testing.assert_array_equal(got, want)
        assert 0 < row.figures["within-image"] < 1
        low, high = row.interval["auroc"]
        assert low < row.figures["auroc"] < high
        photos = next(one for one in compared.rows if (one.name, one.shots) == (row.name, 2))
        means = [run.pixel_mean(scoring).auroc for run in alone.shot_runs]
        assert photos.figures["auroc"] == pytest.approx(np.mean(means), abs=1e-12)
        assert photos.deviations["auroc"] == pytest.approx(np.std(means, ddof=1), abs=1e-12)
    assert len({row.figures["auroc"] for row in compared.rows}) == 6


def test_costs_are_of_what_ran(compared, tiny_bundle, cache) -> None:
    costs = {(row.refiner, row.shots): row.cost for row in compared.rows}
    assert costs["none", 0].calls == {"clip_encoder": 1}
    assert costs["none", 2].calls == {"clip_encoder": 1, "reference_matcher": 1}
    assert set(costs["cascade", 0].calls) == {"clip_encoder", "sam_encoder", "sam_decoder"}
    assert costs["mmr", 0].calls["sam_decoder"] <= 1 < costs["cascade", 0].calls["sam_decoder"]
    clip = graph_cost(tiny_bundle.onnx_path("clip_encoder"))
    assert costs["none", 0].gmac == pytest.approx(clip.flops / 2e9)
    assert costs["none", 0].megabytes < costs["cascade", 0].megabytes
    assert costs["cascade", 0].megabytes == costs["mmr", 0].megabytes
    assert costs["none", 0].megabytes < costs["none", 2].megabytes
    for cost in costs.values():
        assert cost.runs == 2
        assert 0 < cost.quartiles[0] <= cost.milliseconds <= cost.quartiles[1]
    # The copy with a bank is gone, and the bundle as it was.
    assert not list(cache.rglob("with-photos-*"))
    assert not any(product.reference for product in tiny_bundle.manifest.products.values())
    assert not list(tiny_bundle.path.glob("reference-*"))


def test_the_verdict_is_of_the_rows(compared) -> None:
    best = max(compared.rows, key=lambda row: row.figures["auroc"])
    assert compared.verdict.best == best.title
    assert len(compared.verdict.rivals) == 5
    assert all(0 <= rival.share <= 1 for rival in compared.verdict.rivals)
    assert any("random weights" in note for note in compared.notes)


def test_rows_that_cannot_be_measured_are_refused_up_front(tiny_bundle, tmp_path) -> None:
    proposing = str(with_proposer(tiny_bundle, tmp_path))
    with pytest.raises(EvaluationError, match="takes the frame itself") as caught:
        methods_of([proposing], ["box_proposals"], shots=True)
    assert "without --shots" in caught.value.remedy
    with pytest.raises(EvaluationError, match="runs box_proposer, and the bundle"):
        methods_of([str(tiny_bundle.path)], ["box_proposals"], shots=False)
    name = str(tiny_bundle.path)
    with pytest.raises(EvaluationError, match="--set says none for all"):
        methods_of([name], [], shots=False, adjusted=lambda one: one.replace(refiner="none"))
    assert len(methods_of([name, name], ["none", "cascade", "none"], shots=False)) == 2
    again = f"{tiny_bundle.path.parent}/../{tiny_bundle.path.parent.name}/{tiny_bundle.path.name}"
    assert len(methods_of([name, again], [], shots=False)) == 1
    mini = methods_of([name, "mini"], [], shots=False)
    assert [one.name for one in mini] == [
        "april_gan + cascade (tiny)",
        "april_gan + cascade (mini)",
    ]


@pytest.mark.long
def test_the_command(tiny_bundle, train_dataset, tmp_path) -> None:
    arguments = [tiny_bundle.path, train_dataset, "--compare", "--refiner", "none", "-o", tmp_path,
                 "--size", MAP_SIZE, "--latency-runs", 1, "--best-by", "f1-max",
                 "--within-ms", 100000]  # fmt: skip
    run = subprocess.run(
        [str(ZEROFLAW), "evaluate", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "Best for train by F1-max within 100000 ms: april_gan + " in run.stdout
    published, measured = run.stdout.split("Measured on train:")
    assert "| Hou et al. |" in published
    assert "april_gan + none" in measured
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {
        "comparison.md",
        "comparison.csv",
        "comparison.json",
        "comparison.png",
        "cache",
    }
    record = json.loads((tmp_path / "comparison.json").read_text())
    assert [row["refiner"] for row in record["rows"]] == ["cascade", "none"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["mini", "mini", "data"], "2 bundles are named"),
        (["data", "--compare"], "0 bundles are named"),
        (["mini", "data", "--refiner", "mmr"], "--set refiner=mmr"),
        (["mini", "data", "--within-ms", "5"], "--within-ms is of --compare"),
        (["mini", "data", "--compare", "--ablate", "kernel"], "--ablate is of one bundle"),
    ],
)
def test_paths_and_options_that_do_not_fit_are_refused(arguments, says) -> None:
    app = typer.Typer()
    app.command()(cli.evaluate)
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, EvaluationError)
    assert says in f"{result.exception.cause} {result.exception.remedy}"
