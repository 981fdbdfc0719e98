"""Adding products: a bundle that stays whole, whatever breaks the adding off."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from support.small_bundle import (
    LEFT_OUT,
    PRODUCT,
    described,
    disk_full,
    fail_midway,
    interrupt_after_the_rename,
    reference_bank,
    snapshot,
    unit_rows,
)
from zeroflaw_engines.bundle import writer as bundle_writer
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.manifest import Product
from zeroflaw_engines.bundle.products.writer import add_products, set_reference
from zeroflaw_engines.errors import (
    BundleDamagedError,
    BundleError,
    ProductError,
)


def test_two_processes_that_add_products(copied: Path, other_process: list[Path]) -> None:
    bundle = open_bundle(copied)
    before = snapshot(copied)
    other_process.append(copied / ".lock")
    with pytest.raises(BundleError, match="another process"):
        add_products(bundle, {"bolt": unit_rows(1)}, {"bolt": PRODUCT})
    assert snapshot(copied) == before


def test_a_product_is_added(copied: Path, tiny_bundle: Bundle) -> None:
    before = snapshot(copied)
    returned = add_products(open_bundle(copied), {"bolt": unit_rows(1)}, {"bolt": PRODUCT})
    opened = open_bundle(copied)
    assert opened.manifest == returned.manifest
    assert set(opened.manifest.products) == {"object", "metal_nut", "bolt"}
    np.testing.assert_array_equal(opened.text_embeddings("bolt"), unit_rows(1))
    for name in ("object", "metal_nut"):
        want = tiny_bundle.text_embeddings(name)
        np.testing.assert_array_equal(opened.text_embeddings(name), want)
    assert opened.identity == tiny_bundle.identity
    after = snapshot(copied)
    # nothing but the bank and the manifest changed, and the old bank is gone
    assert set(after) - set(before) == {opened.manifest.prompts}
    assert set(before) - set(after) == {"prompts.safetensors"}
    assert {name for name in before if name in after and after[name] != before[name]} == {
        "bundle.json"
    }


def test_products_are_added_again_and_again(copied: Path) -> None:
    bundle = open_bundle(copied)
    for i in range(4):
        bundle = add_products(bundle, {f"p{i}": unit_rows(i)}, {f"p{i}": PRODUCT})
    opened = open_bundle(copied)
    assert len(opened.manifest.products) == 6
    assert len(list(copied.glob("prompts*.safetensors"))) == 1
    for i in range(4):
        np.testing.assert_array_equal(opened.text_embeddings(f"p{i}"), unit_rows(i))


def test_a_product_is_replaced(copied: Path) -> None:
    entry = Product(sentences=(1, 2), threshold=0.25)
    add_products(open_bundle(copied), {"object": unit_rows(5)}, {"object": entry})
    opened = open_bundle(copied)
    assert opened.manifest.products["object"] == entry
    assert set(opened.manifest.products) == {"object", "metal_nut"}
    np.testing.assert_array_equal(opened.text_embeddings("object"), unit_rows(5))


def test_what_another_process_added_meanwhile_is_kept(copied: Path) -> None:
    stale = open_bundle(copied)
    add_products(open_bundle(copied), {"theirs": unit_rows(1)}, {"theirs": PRODUCT})
    add_products(stale, {"ours": unit_rows(2)}, {"ours": PRODUCT})
    opened = open_bundle(copied)
    assert {"ours", "theirs"} <= set(opened.manifest.products)
    np.testing.assert_array_equal(opened.text_embeddings("theirs"), unit_rows(1))


def test_a_bundle_opened_before_still_answers(copied: Path) -> None:
    """A reader sees the old products or the new ones, never a missing file."""
    reader = open_bundle(copied)
    want = reader.text_embeddings("object")
    add_products(open_bundle(copied), {"bolt": unit_rows(1)}, {"bolt": PRODUCT})
    np.testing.assert_array_equal(reader.text_embeddings("object"), want)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("bolt", unit_rows(1, 31)),
        ("bolt", unit_rows(1).astype(np.float64)),
        ("bolt", unit_rows(1)[:1]),
        ("bolt", unit_rows(1) * np.float32(2)),
        ("bolt", unit_rows(1) * np.float32("nan")),
        ("", unit_rows(1)),
        ("../bolt", unit_rows(1)),
        ("bolt\n", unit_rows(1)),
    ],
)
def test_products_that_are_refused_change_nothing(
    copied: Path, name: str, rows: np.ndarray
) -> None:
    before = snapshot(copied)
    with pytest.raises(ProductError) as caught:
        add_products(
            open_bundle(copied), {"good": unit_rows(2), name: rows},
            {"good": PRODUCT, name: PRODUCT},
        )  # fmt: skip
    assert repr(name) in caught.value.cause
    assert snapshot(copied) == before


@pytest.mark.parametrize(
    ("embeddings", "products"),
    [
        ({}, {"bolt": PRODUCT}),
        ({"bolt": unit_rows(1)}, {}),
        ({"bolt": unit_rows(1)}, {"bolt": PRODUCT, "../up": PRODUCT}),
    ],
    ids=["entry alone", "embeddings alone", "an unchecked name"],
)
def test_entries_and_embeddings_must_be_of_the_same_names(
    copied: Path, embeddings: dict, products: dict
) -> None:
    before = snapshot(copied)
    with pytest.raises(ProductError):
        add_products(open_bundle(copied), embeddings, products)
    assert snapshot(copied) == before


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("step", ["bank", "manifest", "rename"])
def test_adding_that_fails_midway_changes_nothing(
    copied: Path, monkeypatch: pytest.MonkeyPatch, step: str, kind: type[BaseException]
) -> None:
    before = snapshot(copied)
    bundle = open_bundle(copied)
    fail_midway(monkeypatch, step, kind)
    with pytest.raises(kind):
        add_products(bundle, {"bolt": unit_rows(1)}, {"bolt": PRODUCT})
    monkeypatch.undo()
    assert snapshot(copied) == before
    assert open_bundle(copied).manifest == bundle.manifest


def test_adding_to_a_full_disk_changes_nothing(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(copied)
    bundle = open_bundle(copied)
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(BundleError, match="no space left") as caught:
        add_products(bundle, {"bolt": unit_rows(1)}, {"bolt": PRODUCT})
    assert str(copied) in caught.value.cause
    assert snapshot(copied) == before


def test_an_interrupt_right_after_the_rename_leaves_a_whole_bundle(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = open_bundle(copied)
    interrupt_after_the_rename(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        add_products(bundle, {"bolt": unit_rows(1)}, {"bolt": PRODUCT})
    monkeypatch.undo()
    assert open_bundle(copied).manifest.products


def test_a_bank_that_was_altered_is_not_given_a_fresh_digest(copied: Path) -> None:
    bundle = open_bundle(copied)
    bank = copied / "prompts.safetensors"
    data = bytearray(bank.read_bytes())
    data[-4] ^= 1  # the last bit of the last float: norm and shape stay acceptable
    bank.write_bytes(data)
    with pytest.raises(BundleDamagedError):
        add_products(bundle, {"bolt": unit_rows(1)}, {"bolt": PRODUCT})


def test_products_are_added_to_the_bundle_one_stands_in(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied)
    add_products(open_bundle("."), {"bolt": unit_rows(1)}, {"bolt": PRODUCT})
    assert "bolt" in open_bundle(copied).manifest.products


def learn_new(copied: Path, name: str = "bolt") -> Bundle:
    """Adds a product with its reference bank."""
    bundle = open_bundle(copied)
    bank = reference_bank(bundle)
    return set_reference(
        bundle, name, bank, described(bank), 0.5, LEFT_OUT,
        embeddings=unit_rows(1), before=None, added=PRODUCT,
    )  # fmt: skip


def test_a_new_product_comes_with_its_bank_in_one_step(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = []
    real = bundle_writer.replace_manifest
    monkeypatch.setattr(
        bundle_writer, "replace_manifest", lambda *args: (manifests.append(args[1]), real(*args))
    )
    before = open_bundle(copied)
    learned = learn_new(copied)
    assert len(manifests) == 1
    opened = open_bundle(copied)
    assert opened.manifest == learned.manifest
    np.testing.assert_array_equal(opened.text_embeddings("bolt"), unit_rows(1))
    assert opened.manifest.products["bolt"].threshold == 0.5
    assert opened.reference_bank("bolt") is not None
    for name in before.manifest.products:
        np.testing.assert_array_equal(opened.text_embeddings(name), before.text_embeddings(name))
    assert {path.name for path in copied.iterdir()} == {*opened.manifest.files, "bundle.json"}


def test_a_new_product_that_another_process_added_or_learned_is_not_replaced(copied: Path) -> None:
    add_products(open_bundle(copied), {"bolt": unit_rows(2)}, {"bolt": PRODUCT})
    with pytest.raises(ProductError, match="was added anew"):
        learn_new(copied)
    add_products(open_bundle(copied), {"bolt": unit_rows(1)}, {"bolt": PRODUCT})
    assert learn_new(copied).reference_digest("bolt") is not None
    with pytest.raises(ProductError, match="was learned by another process"):
        learn_new(copied)
    with pytest.raises(ProductError, match="not a product name"):
        learn_new(copied, "a/b")
