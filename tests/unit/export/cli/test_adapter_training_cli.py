"""`zeroflaw train-adapters` on a small data set with the tiny CLIP and random weights."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from support.datasets import write_defect_pictures
from zeroflaw_engines.bundle.prompt_ensembles import read_prompt_ensembles
from zeroflaw_engines.errors import (
    DatasetError,
    ExportError,
    MissingExtraError,
    TrainingError,
    WeightsError,
    ZeroflawError,
)
from zeroflaw_export.cli.train_adapters import train_adapters
from zeroflaw_export.models.adapters import LinearAdapters, load_adapters, save_adapters
from zeroflaw_export.models.architectures import clip_architecture
from zeroflaw_export.models.load import WeightsSource, load_clip
from zeroflaw_export.training.run import class_embeddings
from zeroflaw_export.training.token_cache import FrozenTower

app = typer.Typer()
app.command()(train_adapters)
FEW = 'normal = ["{}", "fine {}"]\nabnormal = ["bad {}"]\ntemplates = ["a {}.", "one {}"]\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with data, and a cache of its own."""
    monkeypatch.setenv("ZEROFLAW_CACHE", str(tmp_path / "user cache"))
    write_defect_pictures(tmp_path / "data", count=2)
    (tmp_path / "few.toml").write_text(FEW)
    return tmp_path


def run(here: Path, *more: object, out: str = "a.safetensors") -> Result:
    return CliRunner().invoke(
        app,
        [
            str(here / "data"),
            *("--out", str(here / out)),
            *("--clip", "tiny", "--random-weights", "5", "--clip-image-size", "56"),
            *("--ensembles", str(here / "few.toml")),
            *map(str, more),
        ],
    )


def error_of(result: Result) -> ZeroflawError:
    assert isinstance(result.exception, ZeroflawError), result.output
    return result.exception


def test_it_trains_by_the_published_recipe(here: Path) -> None:
    result = run(here)
    assert result.exit_code == 0, result.output
    assert "4 good and 4 defective images of 2 classes, skipped files: 0, 3 epochs" in result.stdout
    assert "the token cache will grow by 84.3 kB" in result.stderr
    assert "epoch 3: loss" in result.stderr
    load_adapters(LinearAdapters(4, 64, 32), here / "a.safetensors")
    record = json.loads((here / "a.safetensors.json").read_text())
    assert record["settings"] == {
        "epochs": 3,
        "batch": 16,
        "learning_rate": 1e-3,
        "mosaic": 0.2,
        "seed": 111,
    }
    assert record["tower"]["weights"] == "random:5"
    assert not list(here.glob("*.checkpoint"))


def test_every_option_reaches_the_training(here: Path) -> None:
    save_adapters(LinearAdapters(4, 64, 32), here / "start.pth")
    options = ("--epochs", 2, "--batch", 3, "--learning-rate", 0.01, "--mosaic", 0, "--seed", 4)
    more = ("--class", "bolt", "--cache", here / "tokens", "--init-from", here / "start.pth")
    result = run(here, *options, *more, "--layout", "mvtec", "--split", "test", out="b.pth")
    assert result.exit_code == 0, result.output
    content = torch.load(here / "b.pth", weights_only=True)
    assert list(content) == ["trainable_linearlayer"]
    record = json.loads((here / "b.pth.json").read_text())
    assert record["settings"] == {
        "epochs": 2,
        "batch": 3,
        "learning_rate": 0.01,
        "mosaic": 0.0,
        "seed": 4,
    }
    assert record["classes"] == {"bolt": {"good": 2, "defective": 2, "mosaics": 0}}
    assert (here / "tokens" / "cache.json").exists()
    assert not (here / "user cache" / "tokens").exists()


def test_a_plain_folder_is_trained_like_visa(here: Path) -> None:
    (here / "data").rename(here / "mvtec")
    for folder in ("images", "masks"):
        (here / "data" / folder).mkdir(parents=True)
    for image in sorted((here / "mvtec" / "bolt" / "test").rglob("*.png")):
        name = f"{image.parent.name}_{image.name}"
        shutil.copy(image, here / "data" / "images" / name)
        mask = here / "mvtec/bolt/ground_truth/scratch" / f"{image.stem}_mask.png"
        if image.parent.name == "good":
            Image.new("L", (80, 60)).save(here / "data" / "masks" / name)
        else:
            shutil.copy(mask, here / "data" / "masks" / name)
    result = run(here)
    assert result.exit_code == 0, result.output
    assert "2 good and 2 defective images of 1 classes" in result.stdout
    record = json.loads((here / "a.safetensors.json").read_text())
    assert (record["settings"]["epochs"], record["settings"]["mosaic"]) == (15, 0.0)
    assert list(record["classes"]) == ["data"]


def test_skipped_files_are_counted(here: Path) -> None:
    (here / "data" / "bolt" / "test" / "scratch" / "000.png").write_bytes(b"no image")
    result = run(here)
    assert result.exit_code == 0, result.output
    assert "skipped files: 1," in result.stdout
    assert "warning: not usable: 1 files" in result.stderr
    assert "not an image" in result.stderr


def test_the_second_training_uses_the_first_ones_tokens(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(here).exit_code == 0
    monkeypatch.setattr(FrozenTower, "patch_tokens", lambda *_: pytest.fail("the tower ran"))
    again = run(here, "--learning-rate", 0.01, out="b.safetensors")
    assert again.exit_code == 0, again.output
    assert "will grow" not in again.stderr


def test_what_is_wrong_is_said_before_anything_is_made(here: Path) -> None:
    (here / "there.safetensors").touch()
    assert "exists" in error_of(run(here, out="there.safetensors")).cause
    assert "suffix '.onnx'" in error_of(run(here, out="a.onnx")).cause
    assert "multiple" in error_of(run(here, "--clip-image-size", 57)).remedy
    assert "both" in error_of(run(here, "--clip-weights", "x.pt")).cause
    assert isinstance(error_of(run(here, "--clip", "huge")), ExportError)
    assert isinstance(error_of(run(here, "--init-from", here / "none.pth")), WeightsError)
    assert isinstance(error_of(run(here, "--class", "screw")), DatasetError)
    assert isinstance(error_of(run(here, "--epochs", 0)), TrainingError)
    assert "device 'abacus'" in error_of(run(here, "--device", "abacus")).cause
    assert not (here / "user cache").exists()


def test_a_pyramid_is_refused_since_its_adapters_are_trained_with_it(here: Path) -> None:
    error = error_of(run(here, "--clip", "mini", "--clip-image-size", "64"))
    assert "the adapters of mini are trained with its tower" in str(error)
    assert not (here / "a.safetensors").exists()


def test_an_empty_folder_is_refused(here: Path) -> None:
    (here / "data").rename(here / "elsewhere")
    (here / "data").mkdir()
    assert isinstance(error_of(run(here)), DatasetError)


def test_existing_adapters_are_replaced_when_asked(here: Path) -> None:
    (here / "a.safetensors").touch()
    assert run(here, "--overwrite").exit_code == 0
    assert (here / "a.safetensors").stat().st_size > 1000


def test_text_embeddings_are_those_of_the_bundle(here: Path) -> None:
    """The mean of a side's normalised sentences, normalised: written out with open_clip."""
    from open_clip import get_tokenizer

    clip = load_clip(clip_architecture("tiny"), 56, WeightsSource(name="random", path=None, seed=5))
    got = class_embeddings(clip, here / "few.toml")("metal_nut")
    ensembles = read_prompt_ensembles(here / "few.toml")
    tokenize = get_tokenizer("ViT-L-14-336")
    for row, sentences in zip(got, ensembles.sentences("metal_nut"), strict=True):
        with torch.inference_mode():
            mean = clip.encode_text(tokenize(sentences), normalize=True).mean(dim=0)
        torch.testing.assert_close(row, mean / mean.norm(), rtol=1e-4, atol=1e-5)


def test_without_pytorch_the_extra_is_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zeroflaw_export.training.learners", None)
    error = error_of(run(here))
    assert isinstance(error, MissingExtraError)
    assert error.cause.startswith("`zeroflaw train-adapters` needs libraries")
    assert "zeroflaw[export]" in error.remedy
