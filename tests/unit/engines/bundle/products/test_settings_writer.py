"""Storing the settings of a product: what goes with them, what stays, and nobody's are lost."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from support.manifests import WHERE, decode
from support.products.product_settings import ALIGNMENT, FULL, PART, WHOLE, with_rule, with_zone
from support.small_bundle import (
    CALIBRATION,
    ENTRY,
    disk_full,
    interrupt_after_the_rename,
    learn,
    left_overs,
    of_rules,
    rows,
    snapshot,
    write_small_bundle,
)
from zeroflaw_engines.bundle import writer as bundle_writer
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.manifest import SETTINGS_SINCE, Product
from zeroflaw_engines.bundle.manifest_text import decode_manifest, encode_manifest
from zeroflaw_engines.bundle.products.settings import ProductSettings
from zeroflaw_engines.bundle.products.writer import (
    add_products,
    forget_reference,
    set_calibration,
    set_settings,
)
from zeroflaw_engines.bundle.shipped import bundle_path
from zeroflaw_engines.bundle.writer import copy_bundle, upgrade_bundle
from zeroflaw_engines.errors import (
    BundleDamagedError,
    BundleError,
    BundleSchemaError,
    ProductError,
    ZeroflawError,
)

replace = msgspec.structs.replace
PHOTO, OTHER_PHOTO = b"a reference photo", b"another one"
PLAIN = replace(FULL, alignment=None)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_small_bundle(tmp_path / "b")


@pytest.fixture
def edited(bundle: Bundle) -> Bundle:
    return set_settings(bundle, "object", FULL, template=PHOTO)


def entry(bundle: Bundle, product: str = "object") -> Product:
    """What is stored, whatever the writer has returned."""
    stored = open_bundle(bundle.path)
    assert stored.manifest == bundle.manifest
    return stored.manifest.products[product]


def templates(bundle: Bundle) -> list[bytes]:
    return [path.read_bytes() for path in sorted(bundle.path.glob("alignment-*.png"))]


def test_settings_are_stored_and_taken_away(bundle: Bundle) -> None:
    before = snapshot(bundle.path)
    manifest = bundle.manifest
    edited = set_settings(bundle, "object", FULL, template=PHOTO)
    settings = entry(edited).settings
    assert edited.manifest.schema_version == SETTINGS_SINCE
    assert settings.alignment.template in edited.manifest.files
    assert settings.digest == FULL.digest
    named = replace(ALIGNMENT, template=settings.alignment.template)
    assert settings == replace(FULL, alignment=named)
    assert templates(edited) == [PHOTO]
    assert entry(edited, "glass") == manifest.products["glass"]
    set_settings(edited, "object", None)
    assert snapshot(bundle.path) == before
    assert left_overs(bundle.path) == []


def test_the_threshold_goes_and_the_bank_where_the_encoders_are_shown_something_else(
    bundle: Bundle,
) -> None:
    def drops(settings: ProductSettings | None) -> tuple[bool, bool]:
        changed = set_settings(bundle, "object", settings)
        after = entry(changed)
        assert left_overs(bundle.path) == []
        dropped = after.threshold is None and after.calibration is None, after.reference is None
        learned_anew = after.reference is None or after.threshold is None
        if learned_anew:
            store_bank(changed)
        return dropped

    def store_bank(now: Bundle) -> None:
        # As learning under these settings would.
        looked_at = now.manifest.products["object"].settings
        learn(now, settings=looked_at)

    learn(bundle)
    rules = replace(WHOLE, rules=with_rule(min_area_px=3).rules, mm_per_pixel=0.1)
    assert drops(rules) == (True, False)
    assert drops(replace(rules, mm_per_pixel=0.2)) == (True, False)
    assert drops(replace(rules, mm_per_pixel=0.2)) == (False, False)
    assert drops(PLAIN) == (True, True)
    critical = tuple(replace(zone, severity="critical") for zone in PLAIN.zones)
    assert drops(replace(PLAIN, zones=critical)) == (True, False)
    assert drops(replace(PLAIN, tiles=None)) == (True, True)
    assert drops(None) == (True, True)


def test_a_reference_photo_is_replaced_kept_and_removed(edited: Bundle) -> None:
    file = entry(edited).settings.alignment.template
    # The same photo again, and the settings that name its file
    again = set_settings(edited, "object", replace(FULL, mm_per_pixel=0.06), template=PHOTO)
    assert entry(again).settings.alignment.template == file
    kept = replace(entry(again).settings, mm_per_pixel=0.07)
    assert entry(set_settings(again, "object", kept)).settings == kept
    other = set_settings(edited, "object", FULL, template=OTHER_PHOTO)
    assert entry(other).settings.alignment.template != file
    assert templates(other) == [OTHER_PHOTO]
    assert templates(set_settings(other, "object", PLAIN)) == []


REFUSED: dict[str, tuple[Callable[[Bundle], object], str]] = {
    "settings that contradict themselves": (
        lambda bundle: set_settings(bundle, "object", with_zone(polygon=((0, 0), (9, 9)))),
        r"zones\[0\].polygon",
    ),
    "an unknown product": (lambda bundle: set_settings(bundle, "nothing", WHOLE), "no product"),
    "an alignment without a photo": (
        lambda bundle: set_settings(bundle, "object", FULL),
        "has no reference photo ''",
    ),
    "the photo of another product": (
        lambda bundle: set_settings(bundle, "object", bundle.manifest.products["glass"].settings),
        "has no reference photo 'alignment-",
    ),
    "a file of the bundle that is no photo": (
        lambda bundle: set_settings(
            bundle,
            "object",
            replace(FULL, alignment=replace(ALIGNMENT, template=bundle.manifest.prompts)),
        ),
        "has no reference photo 'prompts",
    ),
    "a photo without an alignment": (
        lambda bundle: set_settings(bundle, "object", PLAIN, template=PHOTO),
        "settings that have no alignment",
    ),
    "no settings, with a photo": (
        lambda bundle: set_settings(bundle, "glass", None, template=PHOTO),
        "settings that have no alignment",
    ),
}


@pytest.mark.parametrize(("refused", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_changes_nothing(
    bundle: Bundle, refused: Callable[[Bundle], object], says: str
) -> None:
    bundle = set_settings(bundle, "glass", FULL, template=PHOTO)
    before = snapshot(bundle.path)
    with pytest.raises(ProductError, match=says) as caught:
        refused(bundle)
    assert caught.value.remedy
    assert snapshot(bundle.path) == before


def test_the_bundle_that_ships_is_not_changed() -> None:
    with pytest.raises(BundleError, match="part of the installation"):
        set_settings(open_bundle("mini", verify_digests=False), "object", WHOLE)


@pytest.mark.parametrize("failure", ["full", "interrupt"])
def test_a_writer_that_fails_leaves_one_of_the_two_states(
    bundle: Bundle, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(bundle.path)
    with monkeypatch.context() as patched:
        if failure == "full":
            patched.setattr(bundle_writer, "write_durably", disk_full)
        else:
            interrupt_after_the_rename(patched)
        with pytest.raises((ZeroflawError, KeyboardInterrupt)):
            set_settings(bundle, "object", FULL, template=PHOTO)
    opened = open_bundle(bundle.path)
    if failure == "full":
        assert snapshot(bundle.path) == before
    else:
        assert opened.manifest.products["object"].settings.digest == FULL.digest
    assert left_overs(bundle.path) == []


# With what else changes a product


def test_adding_a_product_anew_keeps_its_settings(edited: Bundle) -> None:
    learned = learn(edited, settings=entry(edited).settings)
    added = add_products(learned, {"object": rows(1)}, {"object": ENTRY})
    after, settings = entry(added), edited.manifest.products["object"].settings
    assert (after.settings, after.threshold, after.reference) == (
        settings,
        None,
        None,
    )
    assert templates(added) == [PHOTO]
    assert left_overs(edited.path) == []


def test_an_entry_that_brings_a_threshold_brings_its_settings(edited: Bundle) -> None:
    added = add_products(edited, {"object": rows(1)}, {"object": replace(ENTRY, threshold=0.5)})
    assert (entry(added).settings, entry(added).threshold) == (None, 0.5)
    assert templates(added) == []
    with_settings = replace(ENTRY, threshold=0.5, settings=PLAIN)
    added = add_products(added, {"object": rows(1)}, {"object": with_settings})
    assert (entry(added).settings, entry(added).threshold) == (PLAIN, 0.5)


def test_learning_calibrating_and_forgetting_keep_settings(edited: Bundle) -> None:
    settings = entry(edited).settings
    learned = learn(edited, settings=settings)
    assert entry(learned).settings == settings
    assert entry(calibrate(learned, settings)).settings == settings
    assert entry(forget_reference(learned, "object")).settings == settings
    assert templates(edited) == [PHOTO]


def calibrate(bundle: Bundle, settings: ProductSettings | None) -> Bundle:
    return set_calibration(
        bundle, "object", 0.25, of_rules(CALIBRATION, settings),
        embeddings=bundle.text_embeddings("object"), reference=bundle.reference_digest("object"),
        settings=settings,
    )  # fmt: skip


@pytest.mark.parametrize("store", [calibrate, lambda bundle, one: learn(bundle, settings=one)])
@pytest.mark.parametrize("now", [None, replace(PLAIN, mm_per_pixel=1.0)])
def test_what_was_scored_under_other_settings_is_not_stored(
    bundle: Bundle, store: Callable[..., Bundle], now: ProductSettings | None
) -> None:
    stale = set_settings(bundle, "object", PLAIN)
    set_settings(stale, "object", now)
    before = snapshot(bundle.path)
    with pytest.raises(ProductError, match="settings of product 'object' were changed while"):
        store(stale, PLAIN)
    assert snapshot(bundle.path) == before


def test_settings_that_two_edit_at_once_both_land(bundle: Bundle) -> None:
    stale = open_bundle(bundle.path)
    set_settings(bundle, "object", FULL, template=PHOTO)
    set_settings(stale, "glass", FULL, template=OTHER_PHOTO)
    opened = open_bundle(bundle.path)
    for product, photo in (("object", PHOTO), ("glass", OTHER_PHOTO)):
        file = opened.manifest.products[product].settings.alignment.template
        assert (bundle.path / file).read_bytes() == photo


def test_copies_and_upgrades_keep_settings(edited: Bundle, tmp_path: Path) -> None:
    copied = copy_bundle(edited, tmp_path / "copy")
    assert copied.manifest == edited.manifest
    assert templates(copied) == [PHOTO]
    assert upgrade_bundle(edited).manifest == edited.manifest
    assert templates(edited) == [PHOTO]


# As the manifest has them


def test_a_reference_photo_that_is_missing_or_altered_is_told(edited: Bundle) -> None:
    (file,) = edited.path.glob("alignment-*")
    for damage in (lambda: file.write_bytes(PHOTO[::-1]), file.unlink):
        damage()
        with pytest.raises(BundleDamagedError, match=file.name):
            open_bundle(edited.path)


def document(bundle: Bundle) -> dict:
    return json.loads((bundle.path / "bundle.json").read_text("utf-8"))


def test_readers_that_know_no_settings_refuse_the_bundle(edited: Bundle) -> None:
    raw = document(edited)
    assert raw["schema_version"] == SETTINGS_SINCE
    for older in (SETTINGS_SINCE - 1, SETTINGS_SINCE - 2):
        with pytest.raises(BundleSchemaError, match=f"version {older} does not know"):
            decode({**raw, "schema_version": older})
    assert decode_manifest(encode_manifest(edited.manifest), WHERE) == edited.manifest


def test_a_manifest_without_settings_is_written_as_before() -> None:
    data = (bundle_path("mini") / "bundle.json").read_bytes()
    assert b'"settings"' not in data
    assert encode_manifest(decode_manifest(data, WHERE)) == data


def damaged(bundle: Bundle, change: Callable[[dict], object]) -> dict:
    raw = document(bundle)
    change(raw["products"]["object"]["settings"])
    return raw


DAMAGE: dict[str, Callable[[dict], object]] = {
    "an unknown field": lambda one: one.update(colour="red"),
    "no width": lambda one: one.pop("frame_width"),
    "a scale of 0": lambda one: one.update(mm_per_pixel=0),
    "a scale that is no number": lambda one: one.update(mm_per_pixel="0.1"),
    "a zone across the border": lambda one: one["zones"][0]["polygon"][0].__setitem__(0, 321),
    "a zone of no kind": lambda one: one["zones"][0].update(kind="maybe"),
    "a rule of no zone": lambda one: one["rules"][0].update(zones=["nowhere"]),
    "a photo that is nowhere": lambda one: one["alignment"].update(template="alignment-0.png"),
    "a photo outside": lambda one: one["alignment"].update(template="../x.png"),
    "the prompt bank for a photo": lambda one: one["alignment"].update(
        template="prompts.safetensors"
    ),
}


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE.keys())
def test_settings_that_are_not_as_written_are_refused(
    edited: Bundle, change: Callable[[dict], object]
) -> None:
    raw = damaged(edited, change)
    with pytest.raises((BundleSchemaError, BundleDamagedError)) as caught:
        decode(raw)
    assert WHERE in caught.value.cause


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused(edited: Bundle, number: str) -> None:
    text = (edited.path / "bundle.json").read_text("utf-8")
    assert text.count('"mm_per_pixel": 0.05') == 1
    text = text.replace('"mm_per_pixel": 0.05', f'"mm_per_pixel": {number}')
    digest = json.loads((edited.path / "bundle.json").read_text())["digest"]
    blank = text.replace(digest, "0" * 64)
    sealed = blank.replace("0" * 64, hashlib.sha256(blank.encode()).hexdigest())
    with pytest.raises(BundleError):
        decode_manifest(sealed.encode(), WHERE)


def test_every_flip_in_settings_is_refused(edited: Bundle) -> None:
    data = (edited.path / "bundle.json").read_bytes()
    for place in range(data.index(b'"frame_width"'), data.index(b'"alignment"')):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        with pytest.raises(BundleError):
            decode_manifest(bytes(flipped), WHERE)


def test_a_copy_of_the_file_of_another_product_is_no_sharing(edited: Bundle) -> None:
    """Two products never share a file: it is removed with the entry of the one."""
    file = entry(edited).settings.alignment.template
    shared = replace(edited.manifest.products["glass"], settings=entry(edited).settings)
    manifest = replace(edited.manifest, products={**edited.manifest.products, "glass": shared})
    with pytest.raises(BundleSchemaError, match="file twice"):
        decode_manifest(encode_manifest(manifest), WHERE)
    assert (edited.path / file).is_file()


def test_a_template_that_nobody_names_is_removed_by_the_next_writer(edited: Bundle) -> None:
    stray = edited.path / "alignment-0123abcd.png"
    shutil.copyfile(next(edited.path.glob("alignment-*")), stray)
    set_settings(edited, "glass", replace(WHOLE, zones=(PART,)))
    assert not stray.exists()
    assert templates(edited) == [PHOTO]
