"""Editing a product: the file is held against photo, product and bundle before anything changes."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from PIL import Image
from skimage import data

from support.products.product_settings import FULL, product_settings
from support.small_bundle import learn, left_overs, rows, snapshot, write_small_bundle
from zeroflaw.pictures.reading import Reading
from zeroflaw.station.products.editing import (
    dropped_parts,
    edit_product,
    grid_of,
    plan_edit,
    takes_threshold,
)
from zeroflaw.station.products.settings_toml import settings_text
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.manifest import Product
from zeroflaw_engines.bundle.products.settings import ProductSettings, Rule, Tiles, Zone
from zeroflaw_engines.bundle.products.writer import add_products, set_settings
from zeroflaw_engines.errors import (
    BundleError,
    FrameError,
    ImageFileError,
    ProductError,
    SettingsError,
    ZeroflawError,
)
from zeroflaw_engines.files import sha256_of_file

replace = msgspec.structs.replace
HEIGHT, WIDTH = 240, 320
PART = '[[zones]]\nname = "part"\npolygon = [[30, 30], [290, 30], [290, 210], [30, 210]]\n'
ALIGNED = f"{PART}\n[alignment]\nmax_shift = 12\n"


def write_photo(path: Path, *, left: int = 40, top: int = 40) -> Path:
    picture = data.camera()[top : top + HEIGHT, left : left + WIDTH]
    Image.fromarray(picture).save(path)
    return path


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_small_bundle(tmp_path / "b")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    return write_photo(tmp_path / "photos" / "part.png")


def toml(photo: Path, text: str) -> Path:
    path = photo.with_name("part.toml")
    path.write_text(text, encoding="utf-8")
    return path


def edit(bundle: Bundle, photo: Path, text: str, product: str = "object"):
    return edit_product(bundle, product, toml(photo, text), photo)


def stored(bundle: Bundle, product: str = "object") -> Product:
    return open_bundle(bundle.path).manifest.products[product]


def test_the_photo_says_the_size_and_the_defect_the_tiles(bundle: Bundle, photo: Path) -> None:
    edited = edit(bundle, photo, "[tiles]\nsmallest_defect = 60\noverlap = 0\n")
    # The bundle has 2 x 2 patches: 240 px take 2 tiles of 120, 320 px take 3 of 107.
    want = ProductSettings(
        frame_width=WIDTH, frame_height=HEIGHT, tiles=Tiles(rows=2, columns=3, overlap=0)
    )
    assert edited.settings == stored(bundle).settings == want
    assert edited.bundle.manifest == open_bundle(bundle.path).manifest
    assert edited.overlay.shape == (HEIGHT, WIDTH, 3)
    assert edited.warnings == ()


def test_nothing_is_stored_by_a_plan(bundle: Bundle, photo: Path) -> None:
    learn(bundle)
    before = snapshot(bundle.path)
    plan = plan_edit(open_bundle(bundle.path), "object", toml(photo, ALIGNED), photo)
    assert snapshot(bundle.path) == before
    assert plan.dropped.bank
    assert plan.dropped.threshold == stored(bundle).threshold
    plan.store()
    assert (stored(bundle).reference, stored(bundle).threshold) == (None, None)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(drawn=product_settings(WIDTH, HEIGHT))
def test_what_is_shown_can_be_edited_again(
    bundle: Bundle, photo: Path, drawn: ProductSettings
) -> None:
    """The text of settings that were stored gives the same settings, with the same reference."""
    # Whether an area is left is another question.
    drawn = replace(drawn, zones=tuple(zone for zone in drawn.zones if zone.kind == "include"))
    now = set_settings(
        open_bundle(bundle.path), "object", drawn,
        template=_template(photo) if drawn.alignment else None,
    )  # fmt: skip
    before = stored(now)
    again = edit(now, photo, settings_text(before.settings))
    assert stored(now) == before
    assert not again.dropped.changed


def _template(photo: Path) -> bytes:
    from zeroflaw.pipeline.view.alignment import reference_template

    return reference_template(Reading().read(photo).frame)


def test_the_photo_given_is_the_reference_photo(bundle: Bundle, photo: Path) -> None:
    edited = edit(bundle, photo, ALIGNED)
    alignment = stored(bundle).settings.alignment
    assert alignment.photo == sha256_of_file(photo)
    template = (bundle.path / alignment.template).read_bytes()
    assert template == _template(photo)
    assert (alignment.max_shift, alignment.max_rotation, alignment.method) == (12, 0, "ecc")
    assert edited.warnings == ()


def test_another_photo_may_be_the_reference_photo(bundle: Bundle, photo: Path) -> None:
    """The path counts from the folder of the settings; the photo given must fit onto it."""
    reference = write_photo(photo.with_name("reference.png"), left=45, top=44)
    edited = edit(bundle, photo, ALIGNED + 'photo = "reference.png"\n')
    assert stored(bundle).settings.alignment.photo == sha256_of_file(reference)
    # What is drawn lies in the reference photo's pixels.
    plain = edit(bundle, reference, ALIGNED).overlay
    unaligned = edit(bundle, photo, PART).overlay

    def difference(overlay: np.ndarray) -> float:
        inside = (slice(60, 180), slice(60, 260))
        return float(np.abs(overlay[inside].astype(int) - plain[inside]).mean())

    assert difference(edited.overlay) < difference(unaligned) / 4


def test_the_reference_photo_is_kept_by_its_digest(bundle: Bundle, photo: Path) -> None:
    edit(bundle, photo, ALIGNED)
    text = settings_text(stored(bundle).settings)
    before = stored(bundle).settings.alignment
    # Another photo of the part, slightly shifted
    other = write_photo(photo.with_name("other.png"), left=44, top=43)
    now = open_bundle(bundle.path)
    edited = edit_product(now, "object", toml(photo, text.replace("= 12", "= 13")), other)
    assert edited.settings.alignment == replace(before, max_shift=13.0)
    assert left_overs(bundle.path) == ["../photos"]


def test_a_reference_photo_that_is_read_otherwise_is_another_one(
    bundle: Bundle, photo: Path
) -> None:
    """What frames are aligned with is not the same: what held for it goes, and that is told."""
    first = edit(bundle, photo, ALIGNED)
    learned = learn(first.bundle, settings=first.settings)
    path = toml(photo, ALIGNED)
    again = edit_product(learned, "object", path, photo)
    assert not again.dropped.changed
    assert stored(bundle) == stored(learned)
    darker = edit_product(learned, "object", path, photo, reading=Reading(white_level=200))
    assert (darker.dropped.changed, darker.dropped.bank) == (True, True)
    assert darker.dropped.threshold is not None
    after = stored(bundle)
    assert (after.threshold, after.calibration, after.reference) == (None, None, None)
    assert after.settings.alignment.template != first.settings.alignment.template


def test_a_zone_too_near_the_border_is_told(bundle: Bundle, photo: Path) -> None:
    (text,) = edit(bundle, photo, ALIGNED.replace("= 12", "= 31")).warnings
    assert "zones[0]: the zone 'part' lies 30 px from the frame's border" in text


REFUSED: dict[str, tuple[type[ZeroflawError], str, str]] = {
    "another width": (
        SettingsError,
        "frame_width = 321",
        "the settings are made for frames of 321",
    ),
    "another height": (SettingsError, "frame_height = 239", "x 239 px, and the photo"),
    "a zone outside": (
        SettingsError,
        PART.replace("290", "330"),
        "zones[0].polygon[1]: the zone 'part' reaches outside the frame of 320 x 240 px",
    ),
    "no area left": (
        SettingsError,
        PART + PART.replace("part", "all").replace("30,", "20,") + 'kind = "exclude"',
        "no area",
    ),
    "tiles smaller than the patches": (
        SettingsError,
        "[tiles]\nrows = 9\ncolumns = 9\noverlap = 0\n",
        "a tile has 27 px along them, fewer than the 32 patches",
    ),
    "a defect that no grid shows": (SettingsError, "[tiles]\nsmallest_defect = 0.5", "no grid"),
    "an area without a scale": (
        SettingsError,
        '[[rules]]\nname = "a"\nmin_area_mm2 = 1.0',
        "rules[0].min_area_mm2",
    ),
    "no TOML": (SettingsError, "=", "part.toml is no TOML"),
    "a reference photo that is nowhere": (
        ImageFileError,
        ALIGNED + 'photo = "nowhere.png"',
        "nowhere.png",
    ),
    "a reference photo of another size": (
        SettingsError,
        ALIGNED + 'photo = "large.png"',
        "large.png has 400 x 400 px",
    ),
    "a reference photo of one grey": (FrameError, ALIGNED + 'photo = "grey.png"', "one grey"),
    "a reference photo of another part": (
        SettingsError,
        ALIGNED + 'photo = "brick.png"',
        "part.png would be held",
    ),
    "a digest of no photo": (
        SettingsError,
        f'{ALIGNED}photo_sha256 = "{"0" * 64}"',
        "alignment.photo_sha256: neither the product nor the photo given",
    ),
}


@pytest.mark.parametrize(("kind", "text", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_changes_nothing(
    bundle: Bundle, photo: Path, kind: type[ZeroflawError], text: str, says: str
) -> None:
    folder = photo.parent
    Image.fromarray(data.camera()[:400, :400]).save(folder / "large.png")
    Image.fromarray(np.full((HEIGHT, WIDTH), 90, np.uint8)).save(folder / "grey.png")
    Image.fromarray(data.brick()[:HEIGHT, :WIDTH]).save(folder / "brick.png")
    bundle = _with_patches(bundle)
    before = snapshot(bundle.path)
    with pytest.raises(kind, match=re.escape(says)) as caught:
        edit(bundle, photo, text)
    assert caught.value.remedy
    assert snapshot(bundle.path) == before


def _with_patches(bundle: Bundle) -> Bundle:
    """The same bundle with 32 x 32 patches."""
    from zeroflaw_engines.bundle.writer import replace_manifest

    reference = replace(bundle.manifest.reference, tokens=32 * 32, rows=4096)
    replace_manifest(bundle.path, replace(bundle.manifest, reference=reference))
    return open_bundle(bundle.path)


def test_files_that_cannot_be_read_are_told(bundle: Bundle, photo: Path, tmp_path: Path) -> None:
    path = toml(photo, "")
    with pytest.raises(SettingsError, match=r"nowhere\.toml cannot be read"):
        plan_edit(bundle, "object", tmp_path / "nowhere.toml", photo)
    with pytest.raises(ImageFileError, match=r"nowhere\.png"):
        plan_edit(bundle, "object", path, tmp_path / "nowhere.png")
    with pytest.raises(ProductError, match="no product 'nothing'"):
        plan_edit(bundle, "nothing", path, photo)
    path.write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="cannot be read"):
        plan_edit(bundle, "object", path, photo)


def test_the_bundle_that_ships_is_not_edited(photo: Path) -> None:
    with pytest.raises(BundleError, match="part of the installation"):
        edit(open_bundle("mini", verify_digests=False), photo, "")


def test_settings_outlive_new_texts_and_their_photo_too(bundle: Bundle, photo: Path) -> None:
    edited = edit(bundle, photo, ALIGNED)
    add_products(edited.bundle, {"object": rows(3)}, {"object": Product(sentences=(1, 1))})
    assert stored(bundle).settings == edited.settings
    again = edit(open_bundle(bundle.path), photo, settings_text(edited.settings))
    assert not again.dropped.changed


def test_the_tiles_of_a_whole_frame_are_one(bundle: Bundle) -> None:
    whole = ProductSettings(frame_width=WIDTH, frame_height=HEIGHT)
    grid = grid_of(whole, bundle.manifest.sizes)
    assert (len(grid.windows), grid.tile, grid.patches) == (1, (HEIGHT, WIDTH), 2)


@pytest.mark.parametrize(
    ("rules", "takes"),
    [
        ((), True),
        ((Rule(name="a"),), True),
        ((Rule(name="a", min_image_score=0.5),), True),
        ((Rule(name="a", min_peak=0.5),), False),
        ((Rule(name="a", by="image_score"),), True),
        ((Rule(name="a", by="image_score", min_image_score=0.5),), False),
        ((Rule(name="a", min_peak=0.5), Rule(name="b", by="image_score")), True),
    ],
)
def test_whether_the_threshold_decides(rules: tuple[Rule, ...], takes: bool) -> None:
    assert takes_threshold(replace(FULL, rules=rules)) is takes


def test_what_is_dropped_is_what_the_writer_drops(bundle: Bundle) -> None:
    learned = learn(bundle)
    zone = Zone(name="part", polygon=((30, 30), (290, 30), (290, 210)))
    whole = ProductSettings(frame_width=WIDTH, frame_height=HEIGHT)
    for now in (None, whole, replace(whole, mm_per_pixel=0.1), replace(whole, zones=(zone,))):
        entry = stored(learned)
        expected = dropped_parts(entry, now)
        after = stored(set_settings(open_bundle(bundle.path), "object", now))
        assert expected.changed == (after.settings != entry.settings)
        assert expected.bank == (entry.reference is not None and after.reference is None)
        assert (expected.threshold is not None) == (
            entry.threshold is not None and after.threshold is None
        )
