"""The file of a reference bank, the manifest's entry of it, and how both are read."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load, save

from support.manifests import as_version_4, decode, written
from support.small_bundle import described, learn, reference_bank, write_small_bundle
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.manifest_text import encode_manifest
from zeroflaw_engines.bundle.reference_bank import (
    ReferenceBank,
    check_described,
    check_reference_bank,
    decode_reference_bank,
    digest_of_bank,
    encode_reference_bank,
)
from zeroflaw_engines.contract import ReferenceSizes
from zeroflaw_engines.errors import (
    BundleDamagedError,
    BundleError,
    BundleSchemaError,
    ProductError,
    ReferenceBankError,
    ZeroflawError,
)

SIZES = ReferenceSizes(blocks=2, tokens=9, width=5, rows=12)
TOWER = hashlib.sha256(b"tower").hexdigest()
PATH = Path("/somewhere/reference-0123abcd.safetensors")


def bank_of(seed: int = 0, *, rows: int = 6, width: int = 5, blocks: int = 2) -> ReferenceBank:
    tokens = np.random.default_rng(seed).normal(size=(blocks, rows, width))
    tokens /= np.linalg.norm(tokens, axis=-1, keepdims=True)
    photos = np.sort(np.arange(rows, dtype=np.int32) % 3)
    return ReferenceBank(tokens.astype(np.float16), photos, TOWER)


def test_a_bank_that_is_written_is_read() -> None:
    bank = bank_of()
    data = encode_reference_bank(bank)
    read = decode_reference_bank(data, PATH, SIZES, TOWER)
    np.testing.assert_array_equal(read.tokens, bank.tokens)
    np.testing.assert_array_equal(read.photos, bank.photos)
    assert (read.tower, read.rows, read.tokens.dtype) == (TOWER, 6, np.float16)
    assert digest_of_bank(data) == hashlib.sha256(data).hexdigest()
    # the same bank is the same file, whatever its place in memory
    strided = dataclasses.replace(bank, tokens=np.asfortranarray(bank.tokens))
    assert encode_reference_bank(strided) == data


def test_the_file_is_plain_safetensors() -> None:
    bank = bank_of()
    arrays = load(encode_reference_bank(bank))
    assert arrays.keys() == {"tokens", "photos", "tower"}
    np.testing.assert_array_equal(arrays["tokens"], bank.tokens)
    assert bytes(arrays["tower"]).hex() == TOWER


def test_a_bank_without_a_photo_and_with_padding() -> None:
    bank = bank_of()
    fewer = bank.without_photo(1)
    np.testing.assert_array_equal(fewer.tokens, bank.tokens[:, [0, 1, 4, 5]])
    np.testing.assert_array_equal(fewer.photos, [0, 0, 2, 2])
    padded = bank.padded(12)
    assert (padded.shape, padded.dtype) == ((2, 12, 5), np.float16)
    np.testing.assert_array_equal(padded[:, :6], bank.tokens)
    assert not padded[:, 6:].any()


@pytest.mark.parametrize("width", [2, 64, 768, 1024])
@pytest.mark.parametrize("power", [1, 9], ids=["even", "uneven"])
def test_rounding_to_fp16_is_no_fault(width: int, power: int) -> None:
    """Also where most values of a token are too small for FP16 to hold their digits."""
    tokens = np.random.default_rng(width).normal(size=(2, 12, width)) ** power
    tokens /= np.linalg.norm(tokens, axis=-1, keepdims=True)
    bank = dataclasses.replace(bank_of(rows=12), tokens=tokens.astype(np.float16))
    check_reference_bank(bank, dataclasses.replace(SIZES, width=width), TOWER)


def changed(**arrays: Any) -> ReferenceBank:
    return dataclasses.replace(bank_of(), **arrays)


def tokens_with(value: float, place: tuple[int, ...] = (1, 3)) -> np.ndarray:
    tokens = bank_of().tokens.copy()
    tokens[place] = value
    return tokens


def photos(*numbers: int, dtype: type = np.int32) -> np.ndarray:
    return np.array(numbers, dtype)


BAD_BANKS: dict[str, tuple[ReferenceBank, str]] = {
    "NaN": (changed(tokens=tokens_with(np.nan, (1, 3, 2))), "not finite"),
    "infinity": (changed(tokens=tokens_with(-np.inf, (0, 0, 0))), "not finite"),
    "another tower": (changed(tower="0" * 64), "another CLIP encoder"),
    "no tower": (changed(tower=""), "another CLIP encoder"),
    "another width": (bank_of(width=6), "[2, rows, 5]"),
    "another number of blocks": (bank_of(blocks=3), "[2, rows, 5]"),
    "another dtype": (changed(tokens=bank_of().tokens.astype(np.float32)), "float32"),
    "no axis of rows": (changed(tokens=bank_of().tokens[:, 0]), "float16[2, rows, 5]"),
    "too many rows": (bank_of(rows=13), "13 rows a block, not 1 to 12"),
    "no rows": (changed(tokens=bank_of().tokens[:, :0], photos=photos()), "has 0 rows"),
    "too long": (changed(tokens=bank_of().tokens * np.float16(1.01)), "L2-normalised"),
    "zeros": (changed(tokens=tokens_with(0)), "L2-normalised"),
    "one row too short": (changed(tokens=tokens_with(0.1)), "L2-normalised"),
    "fewer photos than rows": (changed(photos=photos(0, 0, 1, 1, 2)), "of which photo"),
    "photos not from 0": (changed(photos=photos(1, 1, 1, 2, 2, 3)), "of which photo"),
    "photos with a gap": (changed(photos=photos(0, 0, 0, 2, 2, 3)), "of which photo"),
    "photos not in order": (changed(photos=photos(0, 1, 0, 1, 2, 2)), "of which photo"),
    "photos below 0": (changed(photos=photos(0, 0, 0, -1, -1, -1)), "of which photo"),
    "photos of int64": (changed(photos=photos(0, 0, 1, 1, 2, 2, dtype=np.int64)), "of which photo"),
    "photos as a table": (changed(photos=bank_of().photos[:, None]), "of which photo"),
}


@pytest.mark.parametrize(("bank", "says"), BAD_BANKS.values(), ids=BAD_BANKS.keys())
def test_a_bank_that_cannot_be_matched_with_is_refused(bank: ReferenceBank, says: str) -> None:
    for refuse in (
        lambda: check_reference_bank(bank, SIZES, TOWER),
        lambda: decode_reference_bank(encode_reference_bank(bank), PATH, SIZES, TOWER),
    ):
        with pytest.raises(ReferenceBankError) as caught:
            refuse()
        assert says in caught.value.cause
        assert "zeroflaw products learn" in caught.value.remedy


def test_a_bundle_that_takes_no_banks_says_so() -> None:
    with pytest.raises(ReferenceBankError, match="takes no reference banks") as caught:
        check_reference_bank(bank_of(), None, TOWER)
    assert "export the bundle again" in caught.value.remedy


def without(name: str) -> bytes:
    arrays = load(encode_reference_bank(bank_of()))
    del arrays[name]
    return save(arrays)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 100,
        b"PK\3\4" * 50,
        encode_reference_bank(bank_of())[:-1],
        encode_reference_bank(bank_of()) + b"\0",
        *map(without, ("tokens", "photos", "tower")),
    ],
    ids=["empty", "zeros", "a zip", "cut", "longer", "no tokens", "no photos", "no tower"],
)
def test_a_file_that_is_no_bank_is_damaged(data: bytes) -> None:
    with pytest.raises(BundleDamagedError) as caught:
        decode_reference_bank(data, PATH, SIZES, TOWER)
    assert str(PATH) in caught.value.cause


@pytest.mark.parametrize("bit", [0, 7])
def test_any_flipped_bit_of_a_file_gives_a_bank_or_an_error_of_ours(bit: int) -> None:
    """The digest is checked before; this is the second line of defence."""
    data = encode_reference_bank(bank_of())
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << bit
        try:
            decode_reference_bank(bytes(damaged), PATH, SIZES, TOWER)
        except ZeroflawError as error:
            assert error.remedy  # noqa: PT017 - not every flip has to raise


@pytest.mark.parametrize("change", [{"rows": 5}, {"tower": "0" * 64}, {"photos": ()}], ids=str)
def test_a_bank_is_the_one_that_the_manifest_describes(change: dict[str, Any]) -> None:
    entry = described(bank_of())
    check_described(bank_of(), entry)
    with pytest.raises(ReferenceBankError, match="not the one described"):
        check_described(bank_of(), msgspec.structs.replace(entry, **change))


# As a bundle reads it


@pytest.fixture
def learned(tmp_path: Path) -> Bundle:
    return learn(write_small_bundle(tmp_path / "b"))


def bank_file(bundle: Bundle, product: str = "object") -> Path:
    return bundle.path / bundle.manifest.products[product].reference.bank


def test_a_bundle_gives_the_bank_of_a_product(learned: Bundle) -> None:
    bundle = open_bundle(learned.path)
    bank = bundle.reference_bank("object")
    np.testing.assert_array_equal(bank.tokens, reference_bank(bundle).tokens)
    digest = hashlib.sha256(bank_file(bundle).read_bytes()).hexdigest()
    assert bundle.reference_digest("object") == digest
    assert (bundle.reference_bank("glass"), bundle.reference_digest("glass")) == (None, None)
    for ask in (bundle.reference_bank, bundle.reference_digest):
        with pytest.raises(ProductError, match="no product 'nothing'"):
            ask("nothing")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "flipped": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x55"),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
    "a link that leads out": lambda path: path.symlink_to(path.rename(path.parents[1] / "x")),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_bank_is_found_when_opened_and_when_read(
    learned: Bundle, damage: Callable[[Path], object]
) -> None:
    file = bank_file(learned)
    damage(file)
    for read in (open_bundle, lambda _: learned.reference_bank("object")):
        with pytest.raises(BundleDamagedError) as caught:
            read(learned.path)
        assert str(file) in caught.value.cause


def edit(bundle: Bundle, change: Callable[[dict[str, Any]], object]) -> Path:
    raw = json.loads(encode_manifest(bundle.manifest))
    change(raw)
    (bundle.path / "bundle.json").write_bytes(written(raw))
    return bundle.path


def test_a_bank_of_another_bundle_is_refused_by_its_tower(tmp_path: Path, learned: Bundle) -> None:
    other = learn(write_small_bundle(tmp_path / "other", mark="other"))
    data = bank_file(other).read_bytes()
    bank_file(learned).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()

    def vouch(raw: dict[str, Any]) -> None:
        raw["files"][bank_file(learned).name] = {"sha256": digest, "bytes": len(data)}
        raw["products"]["object"]["calibration"]["reference"] = digest

    bundle = open_bundle(edit(learned, vouch))
    with pytest.raises(ReferenceBankError, match="another CLIP encoder"):
        bundle.reference_bank("object")


def test_a_bank_that_the_manifest_does_not_describe_is_refused(learned: Bundle) -> None:
    bundle = open_bundle(edit(learned, lambda raw: reference_of(raw).update(rows=5)))
    with pytest.raises(ReferenceBankError, match="6 rows and 2 photos, not"):
        bundle.reference_bank("object")


# The manifest


@pytest.fixture
def raw_learned(learned: Bundle) -> dict[str, Any]:
    return json.loads((learned.path / "bundle.json").read_text("utf-8"))


def test_the_entry_says_where_the_bank_comes_from(learned: Bundle) -> None:
    manifest = open_bundle(learned.path).manifest
    entry = manifest.products["object"].reference
    assert (entry.rows, [photo.name for photo in entry.photos]) == (6, ["0.png", "1.png"])
    assert (entry.tower, entry.augmentations) == (learned.tower, ())
    assert manifest.reference_banks == {entry.bank} == {bank_file(learned).name}
    assert manifest.products["object"].calibration.interval is None
    assert manifest.sizes.reference.blocks == len(manifest.clip.tapped_blocks)


def reference_of(raw: dict[str, Any]) -> dict[str, Any]:
    return raw["products"]["object"]["reference"]


def calibration_of(raw: dict[str, Any]) -> dict[str, Any]:
    return raw["products"]["object"]["calibration"]


def share(raw: dict[str, Any]) -> None:
    raw["products"]["glass"]["reference"] = reference_of(raw)


CONTRADICTIONS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no sizes": lambda raw: raw.update(reference=None),
    "no matcher": lambda raw: raw["engines"].pop("reference_matcher"),
    "neither": lambda raw: (raw.update(reference=None), raw["engines"].pop("reference_matcher")),
    "sizes of 0": lambda raw: raw["reference"].update(rows=0),
    "too many rows": lambda raw: reference_of(raw).update(rows=17),
    "no rows": lambda raw: reference_of(raw).update(rows=0),
    "no photos": lambda raw: reference_of(raw).update(photos=[]),
    "no tower": lambda raw: reference_of(raw).update(tower=""),
    "no digest": lambda raw: reference_of(raw)["photos"][1].update(sha256="0" * 63),
    "an unknown view": lambda raw: reference_of(raw).update(augmentations=["mirror"]),
    "an unknown field": lambda raw: reference_of(raw).update(surprise=1),
    "a missing field": lambda raw: reference_of(raw).pop("created"),
    "a bank of two products": share,
    "a bank that is the prompt bank": lambda raw: reference_of(raw).update(bank=raw["prompts"]),
    "a split without an interval": lambda raw: calibration_of(raw).pop("scheme"),
    "an unknown scheme": lambda raw: calibration_of(raw).update(scheme="guess"),
    "a threshold of another bank": lambda raw: calibration_of(raw).update(reference="0" * 64),
    "a threshold of no bank": lambda raw: raw["products"]["object"].update(reference=None),
    "an entry without the field": lambda raw: raw["products"]["glass"].pop("reference"),
    "a manifest without the field": lambda raw: raw.pop("reference"),
}


@pytest.mark.parametrize("change", CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_a_manifest_whose_banks_make_no_sense_is_refused(
    raw_learned: dict[str, Any], change: Callable[[dict[str, Any]], object]
) -> None:
    assert decode(raw_learned).reference_banks
    change(raw_learned)
    with pytest.raises(BundleSchemaError):
        decode(raw_learned)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "C:/x", "not_listed"])
def test_a_path_of_a_bank_is_checked_like_all_others(
    raw_learned: dict[str, Any], path: str
) -> None:
    reference_of(raw_learned)["bank"] = path
    with pytest.raises(BundleDamagedError, match=path):
        decode(raw_learned)


LATER: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
    "sizes": lambda old, new: old.update(reference=new["reference"]),
    "matcher": lambda old, new: old["engines"].update(
        reference_matcher=new["engines"]["reference_matcher"]
    ),
    "bank": lambda old, new: old["products"]["object"].update(reference=reference_of(new)),
    "scheme": lambda old, new: calibration_of(old).update(scheme="leave_one_out"),
    "interval": lambda old, new: calibration_of(old).update(interval=None),
    "calibration's bank": lambda old, new: calibration_of(old).update(reference="0" * 64),
}


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("change", LATER.values(), ids=LATER.keys())
def test_older_versions_know_no_banks(
    raw_learned: dict[str, Any], version: int, change: Callable[..., object]
) -> None:
    old = as_version_4(raw_learned, version)
    calibration_of(old).update(interval=[0.0, 0.1])
    for name in ("scheme", "reference"):
        del calibration_of(old)[name]
    manifest = decode(old)
    assert (manifest.reference, manifest.reference_banks) == (None, frozenset())
    # what is written of it is what that version of zeroflaw reads
    again = json.loads(encode_manifest(manifest))
    assert "reference" not in again
    assert "reference" not in again["products"]["object"]
    change(old, raw_learned)
    with pytest.raises(BundleError, match=f"version {version} does not know"):
        decode(old)
