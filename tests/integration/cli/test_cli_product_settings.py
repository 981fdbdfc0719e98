"""`zeroflaw products show` and `edit`, as a user types them."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.command_line import zeroflaw
from support.small_bundle import learn, left_overs, snapshot, write_small_bundle
from zeroflaw_engines.bundle.bundle import open_bundle

SETTINGS = """
mm_per_pixel = 0.05

[tiles]
smallest_defect = 60
overlap = 0

[[zones]]
name = "part"
polygon = [[30, 30], [290, 30], [290, 210], [30, 210]]

[[zones]]
name = "label"
kind = "exclude"
units = "relative"
polygon = [[0.5, 0.5], [0.6, 0.5], [0.6, 0.6]]

[[rules]]
name = "large"
zones = ["part"]
min_area_mm2 = 0.5

[alignment]
max_shift = 12
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = write_small_bundle(tmp_path / "station" / "b").path
    learn(open_bundle(path))
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "good.png"
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


def test_a_product_is_edited_shown_edited_again_and_cleared(
    bundle: Path, photo: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "part.toml"
    settings.write_text(SETTINGS)
    before = snapshot(bundle)
    tried = zeroflaw("products", "edit", bundle, "object", settings, "--photo", photo, "--dry-run")
    assert tried.returncode == 0, tried.stderr
    assert "nothing is changed; it would lose the threshold 0.010000 and the reference bank" in (
        tried.stdout
    )
    assert snapshot(bundle) == before
    overlay = tmp_path / "part.overlay.png"
    assert Image.open(overlay).size == (320, 240)
    assert str(overlay) in tried.stderr
    done = zeroflaw(
        "products", "edit", bundle, "object", settings, "--photo", photo, "-o", tmp_path / "x.png"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.png").read_bytes() == overlay.read_bytes()
    # The threshold goes, and nothing that is made for peaks is in its place.
    assert "made for image scores, and the rule 'large'" in " ".join(done.stderr.split())
    stored, following = done.stdout.splitlines()
    assert "are stored; the threshold 0.010000 and the reference bank held for the old" in stored
    assert f"`zeroflaw products learn {bundle} object GOOD_PHOTOS`" in following
    shown = zeroflaw("products", "show", bundle, "object")
    for text in ("320 x 240 px", "0.05 mm a pixel", "2 rows x 3 columns", "part: included, major",
                 "label: excluded", "large: reject if a region in part of 0.5 mm2 or more has",
                 "ecc with the photo", "none", "is made for image scores, and the"):  # fmt: skip
        assert text in " ".join(shown.stdout.split())
    document = json.loads(zeroflaw("products", "show", bundle, "object", "--json").stdout)
    assert document["settings"]["tiles"] == {"rows": 2, "columns": 3, "overlap": 0.0}
    assert document["view"]["zones"][0] == {
        "name": "part", "area_px": 46800.0, "area_mm2": pytest.approx(117.0),
    }  # fmt: skip
    (listed,) = [
        line
        for line in zeroflaw("products", "list", bundle).stdout.splitlines()
        if line.startswith("object")
    ]
    assert f"settings {document['settings_digest'][:12]}: 320 x 240 px, 2 x 3 tiles" in listed
    text = zeroflaw("products", "show", bundle, "object", "--toml").stdout
    assert (
        tomllib.loads(text)["alignment"]["photo_sha256"]
        == (document["settings"]["alignment"]["photo"])
    )
    settings.write_text(text)
    again = zeroflaw("products", "edit", bundle, "object", settings, "--photo", photo)
    assert again.stdout == "object: has these settings already; nothing is changed\n"
    cleared = zeroflaw("products", "edit", bundle, "object", "--clear")
    assert cleared.stdout.startswith("object: the settings are taken away\nnext: `zeroflaw calib")
    assert open_bundle(bundle).manifest.products["object"].settings is None
    assert left_overs(bundle) == []
    shown = zeroflaw("products", "show", bundle, "object")
    assert "frames of any size, seen as a whole" in " ".join(shown.stdout.split())
    empty = zeroflaw("products", "show", bundle, "object", "--toml").stdout
    assert tomllib.loads(empty) == {}
    assert "has no settings" in empty


def test_what_does_not_fit_is_told_with_the_place(
    bundle: Path, photo: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "part.toml"
    settings.write_text(SETTINGS.replace("290, 30", "330, 30"))
    before = snapshot(bundle)
    refused = zeroflaw("products", "edit", bundle, "object", settings, "--photo", photo)
    assert refused.returncode == 1
    assert "zones[0].polygon[1]: the zone 'part' reaches outside" in refused.stderr
    assert "remedy: move its corners inside" in refused.stderr
    assert not (tmp_path / "part.overlay.png").exists()
    settings.write_text(SETTINGS)
    nowhere = tmp_path / "nowhere" / "x.png"
    unwritten = zeroflaw(
        "products", "edit", bundle, "object", settings, "--photo", photo, "--out", nowhere
    )
    assert unwritten.returncode == 1
    assert "cannot be written" in unwritten.stderr
    as_photo = photo.read_bytes()
    for taken, code in ((photo, 2), (settings, 2), (tmp_path / "x.toml", 1)):
        over = zeroflaw(
            "products", "edit", bundle, "object", settings, "--photo", photo, "--out", taken
        )
        assert (over.returncode, "Traceback" in over.stderr) == (code, False)
    assert (photo.read_bytes(), settings.read_text()) == (as_photo, SETTINGS)
    assert snapshot(bundle) == before
    shipped = zeroflaw("products", "edit", "mini", "object", settings, "--photo", photo)
    assert shipped.returncode == 1
    assert "zeroflaw bundle copy mini" in shipped.stderr


@pytest.mark.parametrize(
    "usage",
    [
        ("edit", "b", "object"),
        ("edit", "b", "object", "part.toml", "--clear"),
        ("show", "b", "object", "--json", "--toml"),
    ],
)
def test_wrong_usage(usage: tuple[str, ...]) -> None:
    assert zeroflaw("products", *usage).returncode == 2
