"""A bundle whose localizer takes no texts, from the first product to an evaluation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image
from skimage import data
from typer.testing import CliRunner

from support.datasets import write_dataset
from support.evaluations import evaluated
from zeroflaw import Inspector
from zeroflaw.cli import commands as cli
from zeroflaw.pictures.images import read_image
from zeroflaw_benchmarks.bench.process.device_run import engine_inputs
from zeroflaw_benchmarks.reference.reference_models import reference_clip
from zeroflaw_engines.builder.parity import fixed_inputs
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.identities import TextIdentity
from zeroflaw_engines.bundle.manifest_text import decode_manifest, encode_manifest
from zeroflaw_engines.bundle.products.settings import ProductSettings, Tiles
from zeroflaw_engines.bundle.products.writer import set_settings
from zeroflaw_engines.contract import CLIP_ENCODER
from zeroflaw_engines.errors import BenchmarkError, BundleSchemaError


@pytest.fixture
def bundle(textless_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(textless_bundle.path, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("good")
    for i in range(6):
        crop = data.gravel()[5 * i : 5 * i + 160, 10 * i : 10 * i + 200]
        Image.fromarray(np.stack([crop] * 3, axis=-1)).save(folder / f"{i:02d}.png")
    return sorted(folder.iterdir())


def typed(*words: object, code: int = 0) -> str:
    if not cli.app.registered_commands:
        cli.all_commands()
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.stdout


def test_from_the_first_product_to_an_evaluation(
    bundle: Path, good: list[Path], tmp_path: Path
) -> None:
    assert "nut, object" in typed("products", "add", bundle, "nut")
    assert "nut" in typed("products", "show", bundle, "nut")
    assert "is whole" in typed("bundle", "verify", bundle)
    described = " ".join(typed("bundle", "info", bundle).split())
    assert "localizer visualad sigma=4.0 top_share=0.01" in described
    assert "none needed" in described
    opened = open_bundle(bundle)
    assert opened.text_embeddings("nut").shape == (2, 0)
    assert opened.manifest.products["nut"].sentences == (0, 0)

    with Inspector.load(bundle) as inspector:
        before = inspector.inspect(read_image(good[0]), product="nut")
    assert 0 < before.image_score < 1
    assert np.ptp(before.anomaly_map) > 0
    assert before.status == "ok"
    assert "sam_decoder_3" in before.timings_ms  # its map under the cascade
    typed("calibrate", bundle, "-p", "nut", *good[:4], "--false-reject-rate", 0.25)
    assert open_bundle(bundle).manifest.products["nut"].threshold is not None
    # A product that the bundle lacks needs no --texts-of: there are no texts.
    typed("products", "learn", bundle, "washer", *good[:4], "--false-reject-rate", 0.25)
    learned = open_bundle(bundle)
    assert learned.reference_digest("washer") is not None
    assert learned.text_embeddings("washer").shape == (2, 0)
    with Inspector.load(bundle) as inspector:
        after = inspector.inspect(read_image(good[0]), product="washer")
    assert after.reference == learned.reference_digest("washer")
    assert after.image_score != before.image_score

    folder = write_dataset(tmp_path / "set", classes=("washer", "nut"), good=1, bad=1)
    found = evaluated(learned, folder, tmp_path / "cache")
    assert {one.product for one in found.classes} == {"washer", "nut"}


def test_a_product_in_tiles_is_learned(bundle: Path, good: list[Path]) -> None:
    tiles = Tiles(rows=1, columns=2)
    settings = ProductSettings(frame_width=200, frame_height=160, tiles=tiles)
    set_settings(open_bundle(bundle), "object", settings)
    typed("products", "learn", bundle, "object", *good[:3], "--false-reject-rate", 0.3)
    with Inspector.load(bundle) as inspector:
        found = inspector.inspect(read_image(good[4]), product="object")
    assert found.reference == open_bundle(bundle).reference_digest("object")
    assert np.ptp(found.anomaly_map) > 0


def test_sentences_are_refused(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('normal = ["{}"]\nabnormal = ["bad {}"]\ntemplates = ["a {}."]\n')
    result = CliRunner().invoke(
        cli.app, ["products", "add", str(bundle), "nut", "--ensembles", str(file)]
    )
    assert result.exit_code != 0
    assert "takes no texts" in str(result.exception)


def test_the_remedy_for_an_unknown_product_is_to_add_it(
    textless_bundle: Bundle, tiny_bundle: Bundle
) -> None:
    assert "zeroflaw products add" in textless_bundle.how_to_add("nut")
    without = msgspec.structs.replace(tiny_bundle.manifest, text=None)
    assert "export the bundle again" in Bundle(path=tiny_bundle.path, manifest=without).how_to_add(
        "nut"
    )


def test_what_measures_and_builds_gives_the_encoder_an_image_alone(textless_bundle: Bundle) -> None:
    frame = np.zeros((40, 60, 3), np.uint8)
    assert set(engine_inputs(textless_bundle, CLIP_ENCODER, frame, "object")) == {"image"}
    assert set(fixed_inputs(textless_bundle.contract(CLIP_ENCODER))) == {"image"}
    with pytest.raises(BenchmarkError, match="its localizer is visualad"):
        reference_clip(textless_bundle)


def test_a_text_engine_contradicts_it(textless_bundle: Bundle) -> None:
    text = TextIdentity(context=77, tokenizer="bundle.json", ensembles="bundle.json")
    manifest = textless_bundle.manifest
    files = {**manifest.files, "bundle.json": next(iter(manifest.files.values()))}
    data = encode_manifest(msgspec.structs.replace(manifest, text=text, files=files))
    with pytest.raises(BundleSchemaError, match="takes no texts"):
        decode_manifest(data, "x")


def test_an_older_version_cannot_say_it(textless_bundle: Bundle) -> None:
    older = msgspec.structs.replace(textless_bundle.manifest, schema_version=7, localizer=None)
    with pytest.raises(BundleSchemaError, match="version 7"):
        decode_manifest(encode_manifest(older), "x")
    assert json.loads(encode_manifest(textless_bundle.manifest))["localizer"]["name"] == "visualad"
