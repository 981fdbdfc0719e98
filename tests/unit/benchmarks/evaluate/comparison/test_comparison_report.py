"""What a comparison writes, of rows made by hand."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from typing import get_args

import numpy as np
import pytest

from zeroflaw_benchmarks.evaluate import cli
from zeroflaw_benchmarks.evaluate.comparison.columns import COLUMNS, Column
from zeroflaw_benchmarks.evaluate.comparison.comparison import ComparedRow, Comparison, title_of
from zeroflaw_benchmarks.evaluate.comparison.cost import Cost
from zeroflaw_benchmarks.evaluate.comparison.figure import write_comparison_figure
from zeroflaw_benchmarks.evaluate.comparison.report import (
    comparison_json,
    markdown,
    measured_table,
    write_comparison,
)
from zeroflaw_benchmarks.evaluate.comparison.verdict import verdict_of
from zeroflaw_engines.errors import EvaluationError
from zeroflaw_engines.parameters import MethodParameters, Refiner

NAN = float("nan")


def row(name: str, shots: int, ap: float, ms: float, **changes) -> ComparedRow:
    figures = {column: 0.5 + place / 100 for place, column in enumerate(COLUMNS)} | {"ap": ap}
    made = ComparedRow(
        name=name,
        shots=shots,
        bundle="/bundles/one",
        identity="f" * 64,
        models="ViT at 518 px",
        localizer="april_gan",
        refiner=name.rsplit(maxsplit=1)[-1],
        parameters=MethodParameters(),
        random_weights=None,
        figures=figures,
        deviations=dict.fromkeys(COLUMNS, 0.012 if shots else NAN),
        interval=dict.fromkeys(COLUMNS, (0.1, 0.9)),
        classes={"nut": figures, "bolt": figures | {"pro": NAN}},
        cost=Cost(ms, (ms - 1, ms + 1), 7, {"clip_encoder": 1, "sam_decoder": 2.5}, 12.34, 30.2),
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    rows = (
        row("april_gan + none", 0, 0.7, 90.2),
        row("april_gan + cascade", 0, 0.8, 220.4),
        row("april_gan + none", 4, 0.75, 95.0),
    )
    return Comparison(
        zeroflaw_version="1",
        dataset="/data/nuts",
        layout="mvtec",
        split="test",
        images={"nut": (3, 4), "bolt": (2, 2)},
        size=518,
        seeds=2,
        backend="engine 1",
        machine="a processor, 2 cores",
        load_average=0.1,
        rows=rows,
        verdict=verdict_of(
            [one.title for one in rows],
            [one.figures["ap"] for one in rows],
            [one.cost.milliseconds for one in rows],
            [np.full(10, one.figures["ap"]) for one in rows],
            best_by="ap",
            within_ms=None,
            dataset="nuts",
            varied=100,
        ),
        notes=("a note",),
        conventions=("a convention",),
        skipped=(),
    )


def test_measured_rows_stand_in_a_table_of_their_own(comparison):
    lines = measured_table(comparison).splitlines()
    assert lines[0].startswith("| method | photos | AUROC | F1-max | AP | PRO |")
    assert lines[0].endswith("| ms | GMAC | MB |")
    assert "| **april_gan + cascade** | 0 | 50.0 | 51.0 | 80.0 |" in lines[3]
    assert lines[3].endswith("| 220 | 12.3 | 30 |")
    assert "| april_gan + none | 4 | 50.0±1.2 |" in lines[4]
    text = markdown(comparison)
    measured, published = text.split("## Published, on other data sets\n")
    for figures in ("| Hou et al. | 89.5 |", "| VisualAD (DINOv2) | 91.3 | 47.4 | 45.4 | 88.6 |"):
        assert figures in published
        assert figures not in measured
    assert "cannot be compared" in published
    assert "sam_decoder 2.5" in text
    assert "80.0 (10.0 to 90.0)" in text
    assert "| bolt |" in text


def test_files_say_the_same(comparison, tmp_path):
    paths = write_comparison(comparison, tmp_path)
    assert [path.name for path in paths] == ["comparison.md", "comparison.csv", "comparison.json"]
    lines = list(csv.DictReader(io.StringIO(paths[1].read_text())))
    assert len(lines) == 3 * (2 + 1)
    assert "Hou et al." not in paths[1].read_text()
    mean = next(line for line in lines if (line["photos"], line["class"]) == ("4", "mean"))
    assert (float(mean["ap"]), float(mean["ms"])) == (0.75, 95.0)
    undefined = next(line for line in lines if line["class"] == "bolt")
    assert undefined["pro"] == ""
    record = json.loads(comparison_json(comparison))
    assert record["verdict"]["best"] == "april_gan + cascade"
    assert record["rows"][0]["classes"]["bolt"]["pro"] is None
    assert record["rows"][0]["parameters"]["refiner"] == "cascade"
    (tmp_path / "file").write_text("")
    with pytest.raises(EvaluationError, match="cannot be written"):
        write_comparison(comparison, tmp_path / "file")


def test_the_figure_shows_every_row(comparison, tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    seen = []
    annotate = Axes.annotate
    monkeypatch.setattr(
        Axes,
        "annotate",
        lambda self, text, *a, **k: (seen.append(text), annotate(self, text, *a, **k))[1],
    )
    write_comparison_figure(comparison, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5000
    assert sorted(seen) == sorted(one.name for one in comparison.rows)
    broken = dataclasses.replace(
        comparison, rows=tuple(row("x + none", 0, NAN, 1.0) for _ in range(2))
    )
    write_comparison_figure(broken, tmp_path / "empty.png")


def test_options_name_every_column_and_every_refiner():
    assert [one.value for one in cli._Column] == list(get_args(Column)) == list(COLUMNS)
    assert [one.value for one in cli._Refiner] == list(get_args(Refiner))
    assert title_of("a", 1) == "a, 1 photo"
