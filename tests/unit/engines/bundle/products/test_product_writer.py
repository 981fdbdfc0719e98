"""Learning and forgetting reference banks: the bundle stays whole, and nobody's bank is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from support.small_bundle import (
    CALIBRATION,
    ENTRY,
    LEFT_OUT,
    described,
    interrupt_after_the_rename,
    learn,
    left_overs,
    reference_bank,
    rows,
    snapshot,
    threshold_of,
    write_small_bundle,
)
from zeroflaw_engines.bundle import writer as bundle_writer
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.manifest import ReferencePhoto
from zeroflaw_engines.bundle.products.writer import (
    add_products,
    forget_reference,
    set_calibration,
    set_reference,
)
from zeroflaw_engines.bundle.reference_bank import digest_of_bank, encode_reference_bank
from zeroflaw_engines.bundle.writer import copy_bundle, upgrade_bundle
from zeroflaw_engines.errors import (
    BundleChangedError,
    BundleError,
    ProductError,
    ReferenceBankError,
    ZeroflawError,
)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_small_bundle(tmp_path / "b")


def banks(bundle: Bundle) -> list[str]:
    return sorted(path.name for path in bundle.path.glob("reference-*"))


def store(bundle: Bundle, **changes: Any) -> Bundle:
    """Stores a bank as `learn` does, with some of the arguments changed."""
    bank = reference_bank(bundle)
    arguments = {
        "product": "object", "bank": bank, "reference": described(bank), "threshold": 0.5,
        "calibration": LEFT_OUT, "embeddings": bundle.text_embeddings("object"),
        "before": bundle.reference_digest("object"),
    }  # fmt: skip
    return set_reference(bundle, **{**arguments, **changes})


def test_a_product_is_learned(bundle: Bundle) -> None:
    before = snapshot(bundle.path)
    learned = learn(bundle, seed=3)
    opened = open_bundle(bundle.path)
    assert opened.manifest == learned.manifest
    bank = opened.reference_bank("object")
    np.testing.assert_array_equal(bank.tokens, reference_bank(bundle, 3).tokens)
    entry = opened.manifest.products["object"]
    assert entry.threshold == threshold_of(3)
    digest = digest_of_bank(encode_reference_bank(reference_bank(bundle, 3)))
    assert entry.calibration.reference == opened.reference_digest("object") == digest
    assert entry.sentences == bundle.manifest.products["object"].sentences
    after = snapshot(bundle.path)
    assert {name for name in after if after[name] != before.get(name)} == {
        "bundle.json", entry.reference.bank,
    }  # fmt: skip
    others = [name for name in opened.manifest.products if name != "object"]
    assert others
    for name in others:
        assert opened.manifest.products[name] == bundle.manifest.products[name]
    assert (opened.identity, opened.tower) == (bundle.identity, bundle.tower)
    assert left_overs(bundle.path) == []


def test_a_product_is_learned_again_and_the_old_bank_goes(bundle: Bundle) -> None:
    first = learn(bundle)
    (old,) = banks(bundle)
    second = learn(first, seed=1)
    assert banks(bundle) == [second.manifest.products["object"].reference.bank] != [old]
    assert first.reference_digest("object") != second.reference_digest("object")
    # one that was opened before is told, and does not take the new bank for the old one
    with pytest.raises(BundleChangedError, match="the reference bank of product 'object'"):
        first.reference_bank("object")
    assert left_overs(bundle.path) == []


def test_a_product_is_found_by_any_spelling(bundle: Bundle) -> None:
    add_products(bundle, {"caf\u00e9": rows(1)}, {"caf\u00e9": ENTRY})
    opened = open_bundle(bundle.path)
    learned = learn(opened, "cafe\u0301")
    assert learned.manifest.products["caf\u00e9"].reference is not None
    assert learned.reference_bank("cafe\u0301") is not None
    assert forget_reference(learned, "cafe\u0301").reference_digest("caf\u00e9") is None


def test_a_product_without_a_threshold_is_learned(bundle: Bundle) -> None:
    learned = store(learn(bundle, seed=7), threshold=None, calibration=None)
    entry = open_bundle(bundle.path).manifest.products["object"]
    assert learned.manifest.products["object"] == entry
    assert (entry.threshold, entry.calibration) == (None, None)


def test_forgetting_leaves_what_was_before_learning(bundle: Bundle) -> None:
    other = learn(bundle, "glass", seed=5)
    before = snapshot(bundle.path)
    forgotten = forget_reference(learn(other), "object")
    assert snapshot(bundle.path) == before
    assert open_bundle(bundle.path).manifest == forgotten.manifest
    assert forgotten.reference_bank("glass") is not None
    entry = forgotten.manifest.products["object"]
    assert (entry.threshold, entry.calibration, entry.reference) == (None, None, None)


@pytest.mark.parametrize("product", ["object", "nothing"])
def test_there_is_nothing_to_forget(bundle: Bundle, product: str) -> None:
    learn(bundle, "glass")
    before = snapshot(bundle.path)
    with pytest.raises(ProductError, match=product):
        forget_reference(open_bundle(bundle.path), product)
    assert snapshot(bundle.path) == before


@pytest.mark.parametrize("product", ["object", "new"])
def test_adding_a_product_drops_its_bank_and_threshold_and_no_other(
    bundle: Bundle, product: str
) -> None:
    learned = learn(learn(bundle), "glass", seed=1)
    add_products(learned, {product: rows(1)}, {product: ENTRY})
    opened = open_bundle(bundle.path)
    assert opened.manifest.products[product] == ENTRY
    assert opened.reference_bank("glass") is not None
    assert (opened.reference_bank("object") is None) == (product == "object")
    assert len(banks(bundle)) == (1 if product == "object" else 2)
    assert left_overs(bundle.path) == []


def test_an_entry_is_not_added_with_a_bank_that_it_has_not(bundle: Bundle) -> None:
    learned = learn(bundle)
    entry = learned.manifest.products["object"]
    before = snapshot(bundle.path)
    with pytest.raises(BundleError, match="file twice"):
        add_products(learned, {"new": rows(1)}, {"new": entry})
    assert snapshot(bundle.path) == before


def test_a_copy_keeps_the_banks(bundle: Bundle, tmp_path: Path) -> None:
    learned = learn(bundle)
    copied = copy_bundle(learned, tmp_path / "copy")
    assert copied.manifest == learned.manifest
    forget_reference(copied, "object")
    np.testing.assert_array_equal(
        open_bundle(bundle.path).reference_bank("object").tokens, reference_bank(bundle).tokens
    )


def test_upgrading_keeps_the_banks(bundle: Bundle) -> None:
    learned = learn(bundle)
    assert upgrade_bundle(learned).manifest == learned.manifest
    assert open_bundle(bundle.path).reference_bank("object") is not None


# What is refused


def entry_with(**changes: Any) -> Callable[[Bundle], dict[str, Any]]:
    return lambda bundle: {
        "reference": msgspec.structs.replace(described(reference_bank(bundle)), **changes)
    }


def bank_with(**changes: Any) -> Callable[[Bundle], dict[str, Any]]:
    return lambda bundle: {"bank": reference_bank(bundle, **changes)}


def nan_bank(bundle: Bundle) -> dict[str, Any]:
    bank = reference_bank(bundle)
    bank.tokens[0, 1, 2] = np.nan
    return {"bank": bank}


def another_bundles_bank(bundle: Bundle) -> dict[str, Any]:
    bank = reference_bank(write_small_bundle(bundle.path.parent.parent / "y" / "b", mark="y"))
    return {"bank": bank, "reference": described(bank)}


REFUSED: dict[str, tuple[type[ZeroflawError], Callable[[Bundle], dict[str, Any]]]] = {
    "a bank of NaN": (ReferenceBankError, nan_bank),
    "a bank of another bundle": (ReferenceBankError, another_bundles_bank),
    "too many rows": (ReferenceBankError, bank_with(each=9)),
    "other rows than described": (ReferenceBankError, entry_with(rows=5)),
    "other photos than described": (ReferenceBankError, bank_with(photos=3, each=2)),
    "another tower than described": (ReferenceBankError, entry_with(tower="0" * 64)),
    "photos without digests": (
        BundleError,
        entry_with(photos=(ReferencePhoto(name="x.png", sha256="x"),) * 2),
    ),
    "a threshold above 1": (ProductError, lambda _: {"threshold": 1.5}),
    "a threshold that is no number": (ProductError, lambda _: {"threshold": float("nan")}),
    "a calibration of another bank": (
        ProductError,
        lambda _: {"calibration": msgspec.structs.replace(LEFT_OUT, reference="0" * 64)},
    ),
    "a calibration without a threshold": (BundleError, lambda _: {"threshold": None}),
    "a calibration that contradicts itself": (
        BundleError,
        lambda _: {"calibration": msgspec.structs.replace(CALIBRATION, rank=11)},
    ),
    "an unknown product": (ProductError, lambda _: {"product": "nothing"}),
    "embeddings of before": (ProductError, lambda _: {"embeddings": rows(9)}),
}


@pytest.mark.parametrize("learned", [False, True], ids=["never learned", "learned"])
@pytest.mark.parametrize(("kind", "changes"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_changes_nothing(
    tmp_path: Path, kind: type[ZeroflawError], changes: Callable[..., Any], learned: bool
) -> None:
    bundle = write_small_bundle(tmp_path / "x" / "b")
    bundle = learn(bundle, seed=7) if learned else bundle
    before = snapshot(bundle.path)
    with pytest.raises(kind) as caught:
        store(bundle, **changes(bundle))
    assert caught.value.remedy
    assert snapshot(bundle.path) == before


def test_a_bundle_without_a_matcher_takes_no_bank(tmp_path: Path) -> None:
    small = write_small_bundle(tmp_path / "b")
    manifest = small.manifest
    engines = {name: manifest.engines[name] for name in manifest.engines if "reference" not in name}
    manifest = msgspec.structs.replace(manifest, reference=None, engines=engines)
    bundle_writer.replace_manifest(small.path, manifest)
    bundle = open_bundle(small.path)
    bank = reference_bank(small)
    with pytest.raises(ReferenceBankError, match="takes no reference banks"):
        set_reference(
            bundle, "object", bank, described(bank), None, None,
            embeddings=bundle.text_embeddings("object"), before=None,
        )  # fmt: skip


# Others at the same time


def calibrate(bundle: Bundle) -> Bundle:
    return set_calibration(
        bundle, "object", 0.25, CALIBRATION,
        embeddings=bundle.text_embeddings("object"), reference=bundle.reference_digest("object"),
    )  # fmt: skip


def test_products_that_two_learn_at_once_both_land(bundle: Bundle) -> None:
    stale = open_bundle(bundle.path)
    learn(bundle, "object", seed=1)
    learn(stale, "glass", seed=2)
    opened = open_bundle(bundle.path)
    for product, seed in (("object", 1), ("glass", 2)):
        want = reference_bank(bundle, seed).tokens
        np.testing.assert_array_equal(opened.reference_bank(product).tokens, want)
    assert len(banks(bundle)) == 2


def learn_it(bundle: Bundle) -> None:
    learn(bundle, seed=8)


def learn_it_and_forget(bundle: Bundle) -> None:
    forget_reference(learn(bundle, seed=8), "object")


def forget_it(bundle: Bundle) -> None:
    forget_reference(bundle, "object")


def add_it(bundle: Bundle) -> None:
    add_products(bundle, {"object": rows(1)}, {"object": ENTRY})


def add_it_as_it_was(bundle: Bundle) -> None:
    add_products(bundle, {"object": bundle.text_embeddings("object")}, {"object": ENTRY})


@pytest.mark.parametrize("task", [learn, calibrate])
@pytest.mark.parametrize(
    ("meanwhile", "learned", "says"),
    [
        (learn_it, False, "was learned by another process meanwhile"),
        (learn_it, True, "was learned by another process meanwhile"),
        (forget_it, True, "lost its reference bank to another process meanwhile"),
        (add_it, False, "added anew"),
        (add_it, True, "added anew"),
        (add_it_as_it_was, True, "lost its reference bank to another process meanwhile"),
    ],
)
def test_the_later_one_is_refused_for_the_same_product(
    bundle: Bundle,
    meanwhile: Callable[[Bundle], None],
    learned: bool,
    says: str,
    task: Callable[[Bundle], Bundle],
) -> None:
    stale = learn(bundle, seed=7) if learned else bundle
    meanwhile(open_bundle(bundle.path))
    before = snapshot(bundle.path)
    with pytest.raises(ProductError) as caught:
        task(stale)
    assert "'object'" in caught.value.cause
    assert says in caught.value.cause
    assert caught.value.remedy
    assert snapshot(bundle.path) == before


def test_a_bank_that_came_and_went_meanwhile_does_no_harm(bundle: Bundle) -> None:
    stale = open_bundle(bundle.path)
    learn_it_and_forget(bundle)
    assert learn(stale, seed=9).reference_digest("object") is not None


def test_calibrating_a_learned_product_keeps_its_bank(bundle: Bundle) -> None:
    learned = learn(bundle)
    calibrated = calibrate(learned)
    entry = open_bundle(bundle.path).manifest.products["object"]
    assert calibrated.manifest.products["object"] == entry
    assert (entry.threshold, entry.calibration.scheme) == (0.25, "split")
    assert entry.calibration.reference == learned.reference_digest("object")
    assert entry.reference == learned.manifest.products["object"].reference


def test_scores_without_the_bank_calibrate_no_learned_product(bundle: Bundle) -> None:
    learned = learn(bundle)
    embeddings = learned.text_embeddings("object")
    with pytest.raises(ProductError, match="was learned"):
        set_calibration(learned, "object", 0.25, CALIBRATION, embeddings=embeddings)


def test_an_interrupt_right_after_the_rename_leaves_the_new_bank(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = learn(bundle)
    interrupt_after_the_rename(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        learn(learned, seed=1)
    monkeypatch.undo()
    opened = open_bundle(bundle.path)
    np.testing.assert_array_equal(
        opened.reference_bank("object").tokens, reference_bank(bundle, 1).tokens
    )
    assert len(banks(bundle)) == 2
    learn(opened, "glass")
    assert len(banks(bundle)) == 2
    assert left_overs(bundle.path) == []
