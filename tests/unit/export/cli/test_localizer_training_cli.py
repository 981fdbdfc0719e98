"""`zeroflaw train-localizer` on a small data set with the tiny CLIP and random weights."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from support.datasets import write_defect_pictures
from zeroflaw_engines.errors import TrainingError
from zeroflaw_export.cli.train_localizer import train_localizer

app = typer.Typer()
app.command()(train_localizer)
FEW = 'normal = ["{}", "fine {}"]\nabnormal = ["bad {}"]\ntemplates = ["a {}.", "one {}"]\n'


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("ZEROFLAW_CACHE", str(tmp_path / "user cache"))
    write_defect_pictures(tmp_path / "data", count=2)
    (tmp_path / "few.toml").write_text(FEW)

    def run(localizer, *more, out="umci.safetensors"):
        return CliRunner().invoke(
            app,
            [
                localizer, str(tmp_path / "data"), "--out", str(tmp_path / out),
                *("--clip", "tiny", "--random-weights", "5", "--clip-image-size", "56"),
                *("--ensembles", str(tmp_path / "few.toml")), *map(str, more),
            ],
        )  # fmt: skip

    return run


SMALL = (
    "--localizer-set", "hidden_channels=6", "--localizer-set", "head_channels=4",
    "--localizer-set", "pool_sizes=2,3",
)  # fmt: skip


def test_it_trains_umci_by_the_papers_settings(run, tmp_path):
    done = run("clipsam", *SMALL)
    assert done.exit_code == 0, done.output
    assert "6 epochs" in done.output
    record = json.loads((tmp_path / "umci.safetensors.json").read_text())
    assert record["settings"]["batch"] == 8
    assert record["settings"]["learning_rate"] == 1e-4
    assert record["parameters"]["stage_weights"] == [0.1, 0.1, 0.1, 0.7]
    assert record["parameters"]["pool_sizes"] == [2, 3]


def test_settings_can_be_given(run, tmp_path):
    more = ("--epochs", 1, "--batch", 2, *(word for w in (1, 2, 3, 4) for word in
            ("--stage-weight", w)))  # fmt: skip
    done = run("clipsam", *SMALL, *more)
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "umci.safetensors.json").read_text())
    assert (record["settings"]["epochs"], record["settings"]["batch"]) == (1, 2)
    assert record["parameters"]["stage_weights"] == [1.0, 2.0, 3.0, 4.0]


def test_adapters_are_a_localizer_too(run, tmp_path):
    done = run("april_gan", "--epochs", 1, out="adapters.pth")
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "adapters.pth.json").read_text())["localizer"] == "april_gan"
    refused = run("april_gan", "--stage-weight", 1)
    assert isinstance(refused.exception, TrainingError)


@pytest.mark.parametrize(
    ("localizer", "more", "said"),
    [
        ("winclip", (), "no training for a localizer"),
        ("clipsam", ("--clip-weights", "x.pt"), "both random weights and a weights file"),
    ],
)
def test_what_cannot_be_trained_is_refused(run, localizer, more, said):
    error = run(localizer, *more).exception
    assert isinstance(error, TrainingError)
    assert said in error.cause
