"""The bundle that ships: what the name `mini` means, and that nobody changes it by accident."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from support.manifests import as_version_1, written
from support.small_bundle import CALIBRATION
from zeroflaw_engines.bundle import shipped
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle, read_manifest
from zeroflaw_engines.bundle.manifest import SCHEMA_VERSION, Product
from zeroflaw_engines.bundle.products.writer import add_products, set_calibration
from zeroflaw_engines.bundle.shipped import SHIPPED_NAME, bundle_path, require_changeable
from zeroflaw_engines.bundle.writer import copy_bundle
from zeroflaw_engines.errors import BundleDamagedError, BundleError


@pytest.fixture
def stand_in(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny bundle in the place of the one that ships."""
    package = tmp_path / "package" / SHIPPED_NAME
    shutil.copytree(copied, package)
    monkeypatch.setattr(shipped, "_PLACE", package.parent)
    return package


@pytest.fixture
def sharing(stand_in: Path) -> Path:
    """A bundle that ships, too, with another decoder of its own and everything else from mini."""
    own = stand_in.with_name("mini_clipsam")
    own.mkdir()
    decoder = (stand_in / "sam_decoder.onnx").read_bytes() + b"\0"
    (own / "sam_decoder.onnx").write_bytes(decoder)
    raw = json.loads((stand_in / "bundle.json").read_text("utf-8"))
    raw["files"]["sam_decoder.onnx"] = {
        "sha256": hashlib.sha256(decoder).hexdigest(),
        "bytes": len(decoder),
    }
    (own / "bundle.json").write_bytes(written(raw))
    return own


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_the_name_is_the_shipped_bundle(stand_in: Path) -> None:
    assert bundle_path("mini") == stand_in
    assert open_bundle("mini").path == stand_in
    assert read_manifest("mini") == open_bundle("mini").manifest


def test_everything_else_is_a_directory(
    stand_in: Path, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = tmp_path / "elsewhere" / "mini"
    shutil.copytree(copied, local)
    monkeypatch.chdir(local.parent)
    for given in ("./mini", Path("mini"), str(local), local, "../elsewhere/mini", "mini/"):
        assert open_bundle(given).path.resolve() == local
    for given in ("Mini", "mini ", " "):
        assert bundle_path(given) == Path(given)


def test_an_installation_without_it_says_so(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shipped, "_PLACE", tmp_path)
    for read in (bundle_path, open_bundle, read_manifest):
        with pytest.raises(BundleError) as caught:
            read("mini")
        assert "lacks" in caught.value.cause
        assert "./mini" in caught.value.remedy


def test_bundles_that_ship_share_what_is_the_same(
    sharing: Path, stand_in: Path, tmp_path: Path
) -> None:
    bundle = open_bundle("mini_clipsam")
    assert bundle.path == sharing
    assert bundle.onnx_path("sam_decoder").parent == sharing
    assert bundle.onnx_path("sam_encoder").parent == stand_in
    graph = bundle.graph("clip_encoder", "onnxruntime")
    assert graph.path.parent == stand_in
    assert set(bundle.bank) == set(open_bundle("mini").bank)
    assert bundle.identity != open_bundle("mini").identity
    copy = copy_bundle(bundle, tmp_path / "copy")
    assert {path.name for path in copy.path.iterdir()} == {*bundle.manifest.files, "bundle.json"}
    assert open_bundle(copy.path).identity == bundle.identity
    with pytest.raises(BundleError) as caught:
        require_changeable(sharing)
    assert "bundle copy mini_clipsam" in caught.value.remedy


@pytest.mark.parametrize("damage", ["missing", "altered"])
def test_a_damaged_file_that_is_shared_is_named(sharing: Path, stand_in: Path, damage: str) -> None:
    file = stand_in / "sam_encoder.onnx"
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] + b"\1")
    with pytest.raises(BundleDamagedError, match=re.escape(str(file))) as caught:
        open_bundle("mini_clipsam")
    assert "install zeroflaw again" in caught.value.remedy


def test_a_bundle_that_does_not_ship_shares_nothing(sharing: Path, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(sharing, tmp_path / "mini_clipsam")
    with pytest.raises(BundleDamagedError, match=r"missing from the bundle"):
        open_bundle(elsewhere)


def test_it_is_not_changed_by_any_of_its_names(stand_in: Path, tmp_path: Path) -> None:
    before = contents(stand_in)
    link = tmp_path / "link"
    link.symlink_to(stand_in, target_is_directory=True)
    bundle = open_bundle("mini")
    rows = bundle.text_embeddings("object")

    def add(named: Bundle) -> None:
        add_products(named, {"bolt": rows}, {"bolt": Product(sentences=(1, 1))})

    def calibrate(named: Bundle) -> None:
        set_calibration(named, "object", 0.5, CALIBRATION, embeddings=rows)

    def replace(named: Bundle) -> None:
        copy_bundle(named, named.path, overwrite=True)

    for path in (stand_in, link):
        for change in (add, calibrate, replace):
            with pytest.raises(BundleError) as caught:
                change(Bundle(path=path, manifest=bundle.manifest))
            assert "bundle copy mini" in caught.value.remedy
    assert contents(stand_in) == before
    assert not list(stand_in.parent.glob(".*"))
    require_changeable(tmp_path / "other")


def test_a_copy_is_whole_and_can_be_changed(stand_in: Path, tmp_path: Path) -> None:
    source = open_bundle("mini")
    (stand_in / "not_listed.txt").write_text("x")
    copy = copy_bundle(source, tmp_path / "new" / "copy")
    assert copy == open_bundle(tmp_path / "new" / "copy")
    assert copy.manifest == source.manifest
    assert copy.identity == source.identity
    files = {path.name for path in copy.path.iterdir()}
    assert files == {*source.manifest.files, "bundle.json"}
    rows = copy.text_embeddings("object")
    set_calibration(copy, "object", 0.5, CALIBRATION, embeddings=rows)
    with pytest.raises(BundleError, match="exists already"):
        copy_bundle(source, copy.path)
    assert copy_bundle(source, copy.path, overwrite=True).manifest == source.manifest


@pytest.mark.parametrize("damage", ["missing", "altered"])
def test_a_damaged_bundle_is_not_copied(copied: Path, tmp_path: Path, damage: str) -> None:
    bundle = open_bundle(copied)
    file = copied / "sam_decoder.onnx"
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleDamagedError) as caught:
        copy_bundle(bundle, tmp_path / "copy")
    assert str(file) in caught.value.cause
    assert not (tmp_path / "copy").exists()
    assert not list(tmp_path.glob(".copy.partial-*"))


def test_a_calibration_is_stored_and_nothing_else_changes(copied: Path) -> None:
    before = contents(copied)
    bundle = open_bundle(copied)
    rows = bundle.text_embeddings("object")
    changed = set_calibration(bundle, "object", 0.25, CALIBRATION, embeddings=rows)
    opened = open_bundle(copied)
    assert opened.manifest == changed.manifest
    entry = opened.manifest.products["object"]
    assert (entry.threshold, entry.calibration) == (0.25, CALIBRATION)
    assert entry.sentences == bundle.manifest.products["object"].sentences
    assert opened.manifest.products["metal_nut"] == bundle.manifest.products["metal_nut"]
    after = contents(copied)
    assert {name for name in before if before[name] != after.get(name)} == {"bundle.json"}
    assert after.keys() == before.keys()


@pytest.mark.parametrize("threshold", [-0.1, 1.0000001, float("nan")])
def test_thresholds_out_of_range_change_nothing(copied: Path, threshold: float) -> None:
    before = contents(copied)
    bundle = open_bundle(copied)
    rows = bundle.text_embeddings("object")
    with pytest.raises(Exception, match="threshold of product 'object'"):
        set_calibration(bundle, "object", threshold, CALIBRATION, embeddings=rows)
    assert contents(copied) == before


def test_a_product_that_was_added_anew_meanwhile_keeps_its_entry(copied: Path) -> None:
    """The images were scored with embeddings that the bundle no longer has."""
    stale = open_bundle(copied)
    rows = stale.text_embeddings("object")
    entry = Product(sentences=(1, 1))
    add_products(open_bundle(copied), {"object": rows[::-1].copy()}, {"object": entry})
    with pytest.raises(Exception, match="added anew"):
        set_calibration(stale, "object", 0.5, CALIBRATION, embeddings=rows)
    assert open_bundle(copied).manifest.products["object"] == entry


def test_adding_another_product_meanwhile_does_no_harm(copied: Path) -> None:
    stale = open_bundle(copied)
    rows = stale.text_embeddings("object")
    add_products(open_bundle(copied), {"bolt": rows}, {"bolt": Product(sentences=(1, 1))})
    set_calibration(stale, "object", 0.5, CALIBRATION, embeddings=rows)
    opened = open_bundle(copied)
    assert opened.manifest.products["object"].threshold == 0.5
    np.testing.assert_array_equal(opened.text_embeddings("bolt"), rows)


def test_a_new_entry_of_a_product_drops_its_calibration(copied: Path) -> None:
    bundle = open_bundle(copied)
    rows = bundle.text_embeddings("object")
    bundle = set_calibration(bundle, "object", 0.5, CALIBRATION, embeddings=rows)
    add_products(bundle, {"object": rows}, {"object": Product(sentences=(1, 1))})
    entry = open_bundle(copied).manifest.products["object"]
    assert (entry.threshold, entry.calibration) == (None, None)


def test_changing_a_bundle_of_version_1_brings_it_to_the_newest(edit_manifest) -> None:
    def to_version_1(raw: dict) -> None:
        old = as_version_1(raw)
        raw.clear()
        raw.update(old)

    path = edit_manifest(to_version_1)
    bundle = open_bundle(path)
    assert bundle.manifest.schema_version == 1
    rows = bundle.text_embeddings("object")
    set_calibration(bundle, "object", 0.5, CALIBRATION, embeddings=rows)
    assert open_bundle(path).manifest.schema_version == SCHEMA_VERSION
    edit_manifest(lambda raw: raw["products"]["object"].update(threshold=None, calibration=None))
    edit_manifest(to_version_1)
    add_products(open_bundle(path), {"bolt": rows}, {"bolt": Product(sentences=(1, 1))})
    assert open_bundle(path).manifest.schema_version == SCHEMA_VERSION
