"""`Inspector.reload`: products that were learned, calibrated, added or forgotten after load."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest
from skimage import data

from support.products.learned_product import bank_of, store
from support.small_bundle import ENTRY, rows, write_small_bundle
from zeroflaw import InspectionStream, Inspector
from zeroflaw import loaded_products as module
from zeroflaw.inspection import Inspection
from zeroflaw.station.products.adding import add_products_by_name
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.products.writer import add_products
from zeroflaw_engines.bundle.shipped import bundle_path
from zeroflaw_engines.bundle.writer import replace_manifest
from zeroflaw_engines.errors import (
    BundleChangedError,
    BundleError,
    EngineError,
    EngineMissingError,
    ProductError,
    ReferenceBankError,
)

PRODUCT = "gravel"
GRAVEL = data.gravel()
FRAME = np.ascontiguousarray(GRAVEL[60:260, 60:260])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_path("mini"), tmp_path / "b"))


@pytest.fixture
def inspector(path: Path) -> Iterator[Inspector]:
    with Inspector.load(path, threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def banks():
    """Two, of other photos."""
    with Inspector.load("mini") as loaded:
        photos = [np.ascontiguousarray(GRAVEL[at : at + 200, at : at + 200]) for at in (0, 200)]
        yield [bank_of(loaded, [photo], 60) for photo in photos]


def found(inspection: Inspection) -> tuple[object, ...]:
    """What judged a frame and what came of it, to the last bit."""
    return (
        inspection.reference,
        inspection.image_score,
        inspection.threshold,
        inspection.anomaly_map.tobytes(),
        inspection.mask.tobytes(),
        inspection.regions,
    )


def seen_by(inspector: Inspector) -> tuple[object, ...]:
    return found(inspector.inspect(FRAME, product=PRODUCT))


def test_a_product_that_is_learned_and_forgotten_is_judged_as_by_an_inspector_loaded_then(
    path: Path, inspector: Inspector, banks
) -> None:
    before = seen_by(inspector)
    assert before[0] is None
    digest = store(path, PRODUCT, banks[0], threshold=0.25)
    assert seen_by(inspector) == before
    inspector.reload()
    learned = seen_by(inspector)
    assert (learned[0], learned[2]) == (digest, 0.25)
    with Inspector.load(path, threads=1) as fresh:
        assert seen_by(fresh) == learned
    assert inspector.bundle.reference_digest(PRODUCT) == digest
    assert inspector.decision_threshold(PRODUCT)[0] == 0.25
    assert inspector.inspect(FRAME, product="object").reference is None
    store(path, PRODUCT, None)
    inspector.reload()
    assert seen_by(inspector) == before


def test_products_and_thresholds_are_taken_over(path: Path, inspector: Inspector) -> None:
    known = inspector.products
    add_products_by_name(open_bundle(path), ["copper coil"])
    with pytest.raises(ProductError, match="unknown product 'copper coil'"):
        inspector.inspect(FRAME, product="copper coil")
    inspector.reload()
    assert inspector.products == tuple(sorted([*known, "copper coil"]))
    before = inspector.inspect(FRAME, product="copper coil")
    store(path, "copper coil", None, threshold=0.125)
    inspector.reload()
    after = inspector.inspect(FRAME, product="copper coil")
    assert (after.threshold, after.image_score) == (0.125, before.image_score)
    assert after.calibration not in (None, before.calibration)
    bundle = open_bundle(path)
    left = {name: entry for name, entry in bundle.manifest.products.items() if name == PRODUCT}
    replace_manifest(path, msgspec.structs.replace(bundle.manifest, products=left))
    inspector.reload()
    assert inspector.products == (PRODUCT,)
    assert inspector.inspect(FRAME).product == PRODUCT


def test_a_frame_under_way_ends_with_what_it_began_with(
    path: Path, inspector: Inspector, banks
) -> None:
    store(path, PRODUCT, banks[0], threshold=0.25)
    inspector.reload()
    wanted = seen_by(inspector)
    encoded = inspector.encode_frame(FRAME, product=PRODUCT)
    store(path, PRODUCT, banks[1], threshold=0.75)
    inspector.reload()
    assert found(inspector.decode_frame(encoded)) == wanted
    assert seen_by(inspector)[2] == 0.75


def test_every_frame_is_judged_by_one_state_while_others_reload(
    path: Path, inspector: Inspector, banks
) -> None:
    states = {}
    for bank, threshold in zip(banks, (0.25, 0.75), strict=True):
        store(path, PRODUCT, bank, threshold=threshold)
        inspector.reload()
        states[inspector.inspect(FRAME, product=PRODUCT).reference] = seen_by(inspector)
    assert len(states) == 2
    ended = threading.Event()

    def inspect() -> set[object]:
        seen = set()
        while not ended.is_set():
            state = seen_by(inspector)
            assert state == states[state[0]]
            seen.add(state[0])
        return seen

    with ThreadPoolExecutor(2) as pool:
        threads = [pool.submit(inspect) for _ in range(2)]
        try:
            for bank, threshold in itertools.islice(
                itertools.cycle(zip(banks, (0.25, 0.75), strict=True)), 8
            ):
                store(path, PRODUCT, bank, threshold=threshold)
                inspector.reload()
                seen_by(inspector)
        finally:
            ended.set()
        assert set.union(*(thread.result(60) for thread in threads)) == states.keys()


def test_banks_are_loaded_once_and_none_at_a_changeover(
    path: Path, inspector: Inspector, banks, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    reading = Bundle.reference_bank
    monkeypatch.setattr(
        Bundle, "reference_bank", lambda self, name: (read.append(name), reading(self, name))[1]
    )
    store(path, PRODUCT, banks[0])
    store(path, "object", banks[1])
    inspector.reload()
    assert sorted(read) == sorted([PRODUCT, "object"])
    kept = inspector._products.by_name[PRODUCT].bank
    for product in (PRODUCT, "object", PRODUCT):
        inspector.inspect(FRAME, product=product)
    store(path, "object", banks[0])
    store(path, "object", banks[1])
    inspector.reload()
    assert len(read) == 2
    assert inspector._products.by_name[PRODUCT].bank is kept
    store(path, "object", banks[0])  # the same bank for two products
    inspector.reload()
    assert len(read) == 2
    assert inspector._products.by_name["object"].bank is kept


def test_other_models_are_refused_and_the_inspector_goes_on(
    path: Path, inspector: Inspector
) -> None:
    before = seen_by(inspector)
    shutil.rmtree(path)
    with pytest.raises(BundleError, match="not a bundle"):
        inspector.reload()
    write_small_bundle(path)
    with pytest.raises(BundleChangedError, match="replaced by another"):
        inspector.reload()
    assert seen_by(inspector) == before
    shutil.rmtree(path)
    shutil.copytree(bundle_path("mini"), path)
    inspector.reload()
    assert seen_by(inspector) == before


@pytest.mark.parametrize("damage", ["bank", "manifest", "prompts", "tower", "none left"])
def test_a_reload_that_fails_leaves_everything_as_it_was(
    path: Path, inspector: Inspector, banks, damage: str
) -> None:
    before, products = seen_by(inspector), inspector.products
    bundle = add_products(open_bundle(path), {"new": rows(1)}, {"new": ENTRY})
    bank = banks[0]
    if damage == "tower":
        bank = dataclasses.replace(bank, tower="f" * 64)
    store(path, PRODUCT, bank, threshold=0.25)
    manifest = open_bundle(path, verify_digests=False).manifest
    file = {
        "bank": manifest.products[PRODUCT].reference.bank,
        "manifest": "bundle.json",
        "prompts": manifest.prompts,
    }.get(damage)
    if damage == "none left":
        shutil.rmtree(bundle.path)
    elif file:
        content = bytearray((path / file).read_bytes())
        content[len(content) // 2] ^= 0xFF
        (path / file).write_bytes(content)
    with pytest.raises((BundleError, ReferenceBankError)):
        inspector.reload()
    assert seen_by(inspector) == before
    assert inspector.products == products
    assert inspector.bundle.manifest.products.keys() == set(products)


def test_a_bank_without_an_engine_to_match_it_says_what_is_missing(
    path: Path, inspector: Inspector, banks
) -> None:
    sessions = dataclasses.replace(inspector.sessions, reference_matcher=None)
    with Inspector(open_bundle(path), sessions) as without:
        before = seen_by(without)
        store(path, PRODUCT, banks[0])
        with pytest.raises(EngineMissingError, match=r"'gravel' of .*, and no reference_m"):
            without.reload()
        assert seen_by(without) == before
    with pytest.raises(EngineMissingError):
        Inspector(open_bundle(path), sessions)


def test_a_bank_that_goes_while_it_is_read_is_read_as_it_is_then(
    path: Path, inspector: Inspector, banks, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Bundle.reference_bank

    def replaced_first(self: Bundle, product: str) -> object:
        monkeypatch.setattr(Bundle, "reference_bank", reading)
        store(path, PRODUCT, banks[1])
        return reading(self, product)

    store(path, PRODUCT, banks[0])
    monkeypatch.setattr(Bundle, "reference_bank", replaced_first)
    inspector.reload()
    wanted = open_bundle(path).reference_digest(PRODUCT)
    assert inspector.inspect(FRAME, product=PRODUCT).reference == wanted

    def replaced_always(self: Bundle, product: str) -> object:
        raise BundleChangedError("changed again", "wait")

    store(path, PRODUCT, banks[0])
    monkeypatch.setattr(Bundle, "reference_bank", replaced_always)
    monkeypatch.setattr(module, "_MAX_READS", 3)
    with pytest.raises(BundleChangedError, match="changed again"):
        inspector.reload()
    assert inspector.inspect(FRAME, product=PRODUCT).reference == wanted


def test_a_stream_takes_a_reload_over_from_one_frame_to_the_next(
    path: Path, inspector: Inspector, banks
) -> None:
    with InspectionStream(inspector) as stream:
        stream.submit(FRAME, product=PRODUCT)
        before = stream.poll(60)
        digest = store(path, PRODUCT, banks[0])
        inspector.reload()
        stream.submit(FRAME, product=PRODUCT)
        after = stream.poll(60)
    assert (before.inspection.reference, after.inspection.reference) == (None, digest)
    assert found(after.inspection) == seen_by(inspector)
    assert after.record().reference == digest


def test_a_closed_inspector_does_not_reload(path: Path) -> None:
    inspector = Inspector.load(path)
    inspector.close()
    with pytest.raises(EngineError, match="closed"):
        inspector.reload()
    assert inspector.bundle.path == path
