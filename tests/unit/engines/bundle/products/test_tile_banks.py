"""Banks of one tile each in one file, and what a calibration says of its statistic."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from support.small_bundle import CALIBRATION, reference_bank, write_small_bundle
from zeroflaw.station.thinning import bank_of_tiles
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.manifest import Reference, ReferencePhoto
from zeroflaw_engines.bundle.products.settings import (
    Alignment,
    ProductSettings,
    Rule,
    Tiles,
    Zone,
)
from zeroflaw_engines.bundle.products.writer import (
    set_calibration,
    set_reference,
    set_settings,
)
from zeroflaw_engines.bundle.reference_bank import (
    ReferenceBank,
    check_reference_bank,
    decode_reference_bank,
    encode_reference_bank,
)
from zeroflaw_engines.errors import BundleSchemaError, ProductError, ReferenceBankError

SETTINGS = ProductSettings(
    frame_width=300,
    frame_height=200,
    tiles=Tiles(rows=1, columns=4, banks="per_tile"),
    zones=(Zone(name="body", polygon=((20, 20), (280, 20), (150, 180))),),
    alignment=Alignment(template="", photo="0" * 64, max_shift=9),
)
PHOTOS = tuple(ReferencePhoto(name=f"{i}.png", sha256=f"{i:064x}") for i in range(2))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_small_bundle(tmp_path / "bundle")


@pytest.fixture
def bank(bundle: Bundle) -> ReferenceBank:
    parts = {number: reference_bank(bundle, number, each=2) for number in (1, 3)}
    return bank_of_tiles(parts)


def check(bank: ReferenceBank, bundle: Bundle) -> None:
    check_reference_bank(bank, bundle.manifest.sizes.reference, bundle.tower)


def reference(bank: ReferenceBank, **changes) -> Reference:
    known = {
        "bank": "", "rows": bank.rows, "photos": PHOTOS, "tower": bank.tower,
        "backend": "onnxruntime", "precision": "fp32", "created": "2026-01-01T00:00:00+00:00",
        "tiles": bank.tile_numbers,
    }  # fmt: skip
    return Reference(**{**known, **changes})


def test_banks_of_tiles_share_a_file_and_are_told_apart(bundle: Bundle, bank) -> None:
    check(bank, bundle)
    sizes = bundle.manifest.sizes.reference
    read = decode_reference_bank(encode_reference_bank(bank), Path("x"), sizes, bundle.tower)
    assert read.tile_numbers == (1, 3)
    assert read.rows == 8
    for number in (1, 3):
        alone = reference_bank(bundle, number, each=2)
        assert np.array_equal(read.of_tile(number).tokens, alone.tokens)
        assert read.of_tile(number).photos.tolist() == [0, 0, 1, 1]
        left = read.without_photo(0).of_tile(number)
        assert np.array_equal(left.tokens, alone.tokens[:, 2:])
    assert reference_bank(bundle).tile_numbers == ()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"tiles": [3, 3, 3, 3, 1, 1, 1, 1]}, "of which tile"),
        ({"tiles": [-1, -1, -1, -1, 3, 3, 3, 3]}, "of which tile"),
        ({"tiles": [1, 1, 1, 3]}, "of which tile"),
        ({"tiles": [1, 1, 3, 3, 3, 3, 3, 3]}, "of which photo"),
        ({"photos": [0, 0, 1, 1, 0, 0, 0, 0]}, "of which photo"),
        ({"photos": [0, 0, 1, 1, 1, 1, 1, 1]}, "of which photo"),
        ({"photos": [0, 0, 1, 1, 0, 0, 2, 2]}, "of which photo"),
    ],
)
def test_banks_whose_tiles_contradict_themselves_are_refused(
    bundle: Bundle, bank: ReferenceBank, change: dict[str, list[int]], match: str
) -> None:
    known = {**vars(bank), **{name: np.array(v, np.int32) for name, v in change.items()}}
    with pytest.raises(ReferenceBankError, match=match):
        check(ReferenceBank(**known), bundle)


def store(bundle: Bundle, bank: ReferenceBank, settings: ProductSettings | None, **changes):
    return set_reference(
        bundle,
        "object",
        bank,
        reference(bank, **changes),
        None,
        None,
        embeddings=bundle.text_embeddings("object"),
        before=None,
        settings=settings,
    )


def test_a_product_with_banks_of_tiles_is_stored_and_read(bundle: Bundle, bank) -> None:
    given = set_settings(bundle, "object", SETTINGS, template=b"png")
    settings = given.manifest.products["object"].settings
    with pytest.raises(ReferenceBankError, match=r"of the tiles \[1, 3\], not \[1, 2\]"):
        store(given, bank, settings, tiles=(1, 2))
    store(given, bank, settings)
    read = open_bundle(bundle.path)
    assert read.manifest.products["object"].reference.tiles == (1, 3)
    assert read.reference_bank("object").tile_numbers == (1, 3)


def test_banks_of_tiles_need_the_settings_that_say_so(bundle: Bundle, bank) -> None:
    with pytest.raises(BundleSchemaError, match="schema version 6 does not know"):
        store(bundle, bank, None)
    few = msgspec.structs.replace(
        SETTINGS, tiles=Tiles(rows=1, columns=3, banks="per_tile")
    )  # it has no tile 3
    given = set_settings(bundle, "object", few, template=b"png")
    settings = given.manifest.products["object"].settings
    with pytest.raises(BundleSchemaError, match="reference bank of product 'object'"):
        store(given, bank, settings)
    one = reference_bank(bundle)
    with pytest.raises(BundleSchemaError, match="reference bank of product 'object'"):
        store(given, one, settings)


RULES = ProductSettings(frame_width=300, frame_height=200, rules=(Rule(name="any"),))


def test_a_calibration_says_of_which_statistic_it_is(bundle: Bundle) -> None:
    embeddings = bundle.text_embeddings("object")
    decisive = msgspec.structs.replace(CALIBRATION, statistic="decision_score")
    with pytest.raises(BundleSchemaError, match="schema version 6 does not know"):
        set_calibration(bundle, "object", 0.5, decisive, embeddings=embeddings)
    plain = msgspec.structs.replace(RULES, rules=())
    given = set_settings(bundle, "object", plain)
    with pytest.raises(BundleSchemaError, match="calibration of product 'object'"):
        set_calibration(given, "object", 0.5, decisive, embeddings=embeddings, settings=plain)
    given = set_settings(bundle, "object", RULES)
    with pytest.raises(BundleSchemaError, match="calibration of product 'object'"):
        set_calibration(given, "object", 0.5, CALIBRATION, embeddings=embeddings, settings=RULES)
    set_calibration(given, "object", 0.5, decisive, embeddings=embeddings, settings=RULES)
    found = open_bundle(bundle.path).manifest.products["object"].calibration
    assert found.statistic == "decision_score"


@pytest.mark.parametrize("settings", [None, RULES])
def test_settings_that_changed_meanwhile_are_refused(bundle: Bundle, settings) -> None:
    embeddings = bundle.text_embeddings("object")
    given = set_settings(bundle, "object", settings)
    other = msgspec.structs.replace(RULES, mm_per_pixel=0.1)
    set_settings(given, "object", other)
    decisive = msgspec.structs.replace(CALIBRATION, statistic="decision_score")
    with pytest.raises(ProductError, match="settings of product 'object' were changed"):
        set_calibration(given, "object", 0.5, decisive, embeddings=embeddings, settings=settings)
    with pytest.raises(ProductError, match="settings of product 'object' were changed"):
        store(given, reference_bank(given), settings)
