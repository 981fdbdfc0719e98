"""`zeroflaw calibrate`, and the bundle called `mini`, as a user types them."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from support.command_line import ZEROFLAW
from support.manifests import written
from zeroflaw import Inspector, MethodParameters
from zeroflaw.station.calibration import calibrate_product, image_scorer
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.errors import BundleError, CalibrationError, ProductError

GOOD = 24


def run(*command: object, **kwargs) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, **kwargs
    )


@pytest.fixture
def bundle(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle.path, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of "good parts": crops of one photo."""
    folder = tmp_path_factory.mktemp("good")
    for i in range(GOOD):
        crop = data.coffee()[5 * i : 5 * i + 250, 10 * i : 10 * i + 300]
        Image.fromarray(crop).save(folder / f"{i:02d}.png")
    return folder


def scores_of(bundle: Path, folder: Path, **parameters) -> np.ndarray:
    chosen = MethodParameters(**parameters)
    with Inspector.load(bundle, parameters=chosen, encoder_schedule="clip_first") as inspector:
        frames = (np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png")))
        return np.array([inspector.inspect(f, product="object").image_score for f in frames])


def test_calibrate_and_inspect(bundle: Path, good: Path, tmp_path: Path) -> None:
    done = run(ZEROFLAW, "calibrate", bundle, good, "-p", "object", "--false-reject-rate", 0.1)
    assert done.returncode == 0, done.stderr
    assert "too few" not in done.stderr
    assert f"from {GOOD} good images (just above the image score of rank 23)" in done.stdout
    scores = np.sort(scores_of(bundle, good))
    entry = open_bundle(bundle).manifest.products["object"]
    assert scores[22] < entry.threshold <= scores[23]
    calibration = entry.calibration
    assert (calibration.images, calibration.rank) == (GOOD, 23)
    assert calibration.false_reject_rate == 0.1
    assert calibration.observed_rate == 1 / GOOD
    assert calibration.interval[0] < 1 / GOOD < calibration.interval[1]
    assert calibration.image_scoring == "cls"
    digests = sorted(hashlib.sha256(p.read_bytes()).hexdigest() for p in good.iterdir())
    want = hashlib.sha256("".join(f"{d}\n" for d in digests).encode()).hexdigest()
    assert calibration.data_digest == want
    # Inspecting the same pictures rejects what the calibration said it would.
    out = tmp_path / "out"
    assert run(ZEROFLAW, "inspect", bundle, good, "-o", out, "-p", "object").returncode == 0
    with (out / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(row["decision"] == "reject" for row in rows) == 1
    assert {row["threshold"] for row in rows} == {f"{entry.threshold:.6f}"}
    # Both listings show the threshold and its provenance.
    for command in (("products", "list"), ("bundle", "info")):
        text = " ".join(run(ZEROFLAW, *command, bundle).stdout.split())  # tables break lines
        assert f"threshold {entry.threshold:.6f}, calibrated" in text
        assert f"on {GOOD} good images for 0.1 false rejects" in text
        assert "threshold 0.5 (default)" in text  # of metal_nut
    # New embeddings void it, and that is said.
    added = run(ZEROFLAW, "products", "add", bundle, "object", "bolt")
    assert added.returncode == 0, added.stderr
    assert f"object had the threshold {entry.threshold:.6f}" in added.stderr
    assert "dropped" in added.stderr
    assert "bolt had" not in added.stderr
    anew = open_bundle(bundle).manifest.products["object"]
    assert (anew.threshold, anew.calibration) == (None, None)


def test_deep_pictures_calibrate_as_shallow_ones(bundle: Path, good: Path, tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    deep.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 3
    shallow = tmp_path / "shallow"
    shallow.mkdir()
    for path in sorted(good.glob("*.png")):
        grey = np.asarray(Image.open(path).convert("L"))
        Image.fromarray(grey).save(shallow / path.name)
        values = np.round(grey * (4095 / 255)).astype(np.uint16)
        Image.fromarray(values).save(deep / path.name, exif=exif)
    command = (ZEROFLAW, "calibrate", bundle)
    options = ("-p", "object", "--false-reject-rate", 0.1)
    expected = run(*command, shallow, *options)
    done = run(*command, deep, *options, "--white-level", 4095)
    assert (done.returncode, done.stdout) == (0, expected.stdout), done.stderr
    assert done.stderr.count("its orientation tag is 3") == 5
    assert "19 more of these" in done.stderr
    wrong = run(*command, deep, *options, "--white-level", 0)
    assert wrong.returncode != 0
    assert "the white level is 0" in wrong.stderr


def test_a_calibrated_threshold_is_not_applied_to_another_score(
    bundle: Path, good: Path, tmp_path: Path
) -> None:
    calibrate_product(open_bundle(bundle), "object", good.iterdir(), false_reject_rate=0.1)
    own = open_bundle(bundle).manifest.products["object"].threshold
    photo = good / "00.png"
    frame = np.asarray(Image.open(photo))
    with Inspector.load(bundle) as inspector:
        inspection = inspector.inspect(frame, product="object")
        assert inspection.threshold == own
        assert not any("calibrated" in text for text in inspection.warnings)
    parameters = MethodParameters(image_scoring="map_max", decision_threshold=0.25)
    with Inspector.load(bundle, parameters=parameters) as inspector:
        inspection = inspector.inspect(frame, product="object")
        assert inspection.threshold == 0.25
        assert any("image_scoring=cls" in text for text in inspection.warnings)
        other = inspector.inspect(frame, product="metal_nut")
        assert not any("calibrated" in text for text in other.warnings)
    out = tmp_path / "out"
    done = run(ZEROFLAW, "inspect", bundle, photo, "-o", out, "-p", "object",
               "--set", "image_scoring=map_max")  # fmt: skip
    assert done.stderr.count("does not hold with image_scoring=map_max") == 1
    assert "does not hold with image_scoring=map_max" in (out / "index.html").read_text()


@pytest.mark.parametrize("scoring", ["cls", "map_max"])
def test_the_calibrated_scores_are_those_of_inspections(
    bundle: Path, good: Path, scoring: str
) -> None:
    opened = open_bundle(bundle)
    frames = [np.asarray(Image.open(path)) for path in sorted(good.glob("*.png"))]
    frames += [np.ascontiguousarray(data.coffee()), data.coffee()[::60, ::200]]
    parameters = MethodParameters(image_scoring=scoring)
    embeddings = opened.text_embeddings("object")
    with (
        Inspector.load(bundle, parameters=parameters) as inspector,
        image_scorer(opened, embeddings, image_scoring=scoring) as score,
    ):
        for frame in frames:
            assert score(frame) == inspector.inspect(frame, product="object").image_score
    done = calibrate_product(opened, "object", good.iterdir(), image_scoring=scoring)
    assert done.bundle.manifest.products["object"].calibration.image_scoring == scoring
    np.testing.assert_array_equal(
        np.sort(done.good.scores), np.sort(scores_of(bundle, good, image_scoring=scoring))
    )


def test_few_doubled_and_bad_images(bundle: Path, good: Path, tmp_path: Path) -> None:
    photos = Path(shutil.copytree(good, tmp_path / "photos"))
    shutil.copyfile(photos / "00.png", photos / "again.png")
    (photos / "cut.png").write_bytes((photos / "00.png").read_bytes()[:1000])
    done = run(ZEROFLAW, "calibrate", bundle, photos, "-p", "object")
    assert done.returncode == 3
    assert f"{GOOD} good images are too few for a false-reject rate of 0.01" in done.stderr
    assert "it takes 99" in done.stderr
    assert "no rate below 0.04 can be claimed" in done.stderr
    assert "1 files have the content of another one" in done.stderr
    assert "cut.png" in done.stderr
    assert f"1 of {GOOD + 2} files could not be read" in done.stdout
    calibration = open_bundle(bundle).manifest.products["object"].calibration
    assert (calibration.images, calibration.rank) == (GOOD, GOOD)
    assert calibration.observed_rate == 0


def test_what_cannot_be_calibrated_changes_nothing(
    bundle: Path, good: Path, tmp_path: Path
) -> None:
    before = (bundle / "bundle.json").read_bytes()
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.png").write_text("x")
    assert run(ZEROFLAW, "calibrate", bundle, good).returncode == 2  # no product
    for arguments, text in [
        ((tmp_path / "nowhere", "-p", "object"), "does not exist"),
        ((tmp_path / "empty", "-p", "object"), "no image in"),
        ((tmp_path / "bad.png", "-p", "object"), "none of 1 files could be judged"),
    ]:
        done = run(ZEROFLAW, "calibrate", bundle, *arguments)
        assert done.returncode == 1, done.stderr
        assert text in done.stderr
        assert "remedy:" in done.stderr
        assert "Traceback" not in done.stderr
    opened = open_bundle(bundle)
    with pytest.raises(ProductError, match="no product 'screw'"):
        calibrate_product(opened, "screw", good.iterdir())
    with pytest.raises(CalibrationError, match="not inside"):
        calibrate_product(opened, "object", good.iterdir(), false_reject_rate=1)
    assert (bundle / "bundle.json").read_bytes() == before


@pytest.fixture
def zeroflaw_with_mini(bundle: Path, tmp_path: Path) -> list[str]:
    """The command line of an installation whose shipped bundle is a stand-in."""
    stand_in = Path(shutil.copytree(bundle, tmp_path / "package" / "mini"))
    manifest = json.loads((stand_in / "bundle.json").read_text())
    manifest |= {"random_weights": None, "demonstration": "trained on toys <only>."}
    (stand_in / "bundle.json").write_bytes(written(manifest))
    code = (
        "from pathlib import Path; from zeroflaw_engines.bundle import shipped;"
        f"shipped._PLACE = Path({str(stand_in.parent)!r});"
        "from zeroflaw.cli.app import main; main()"
    )
    return [sys.executable, "-c", code]


def test_mini_is_the_bundle_that_ships(
    zeroflaw_with_mini: list[str], good: Path, tmp_path: Path
) -> None:
    station = tmp_path / "station"
    station.mkdir()

    def mini(*arguments: object) -> subprocess.CompletedProcess[str]:
        return run(*zeroflaw_with_mini, *arguments, cwd=station)

    assert "mini is whole" in mini("bundle", "verify", "mini").stdout
    info = " ".join(mini("bundle", "info", "mini").stdout.split())
    assert "trained on toys <only>." in info
    done = mini("inspect", "mini", good / "00.png", "-o", "out", "-p", "object")
    assert done.returncode == 0, done.stderr
    told = "mini is a demonstration model: trained on toys"
    assert done.stderr.count(told) == 1
    page = (station / "out" / "index.html").read_text()
    assert f"{told} &lt;only&gt;." in page
    assert json.loads((station / "out" / "00.json").read_text())["warnings"] == []
    for command in (
        ("products", "add", "mini", "bolt"),
        ("calibrate", "mini", good, "-p", "object"),
    ):
        done = mini(*command)
        assert done.returncode == 1
        assert "zeroflaw bundle copy mini DIR" in done.stderr
    # The way out that the remedy names; a copy called mini is reached with a dot.
    assert mini("bundle", "copy", "mini", "./mini").returncode == 0
    assert mini("bundle", "copy", "mini", "mini").returncode == 1  # it is there now
    done = mini("calibrate", "./mini", good, "-p", "object")
    assert done.returncode == 0, done.stderr
    assert open_bundle(station / "mini").manifest.products["object"].calibration
    listed = mini("products", "list", "mini")
    assert "calibrated" not in listed.stdout
    assert "the directory here is ./mini" in listed.stderr
    assert "calibrated" in mini("products", "list", "./mini").stdout


def test_mini_is_the_default(bundle: Path, tmp_path: Path, monkeypatch) -> None:
    from zeroflaw_engines.bundle import shipped

    (tmp_path / "mini").symlink_to(bundle, target_is_directory=True)
    monkeypatch.setattr(shipped, "_PLACE", tmp_path)
    with Inspector.load() as inspector:
        assert inspector.bundle.path == tmp_path / "mini"
    monkeypatch.setattr(shipped, "_PLACE", tmp_path / "nowhere")
    with pytest.raises(BundleError, match="lacks the bundle 'mini'"):
        Inspector.load()
