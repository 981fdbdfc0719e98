"""Copies of bundles that link: whole, also of a bundle that shares files with another."""

from pathlib import Path

import pytest

from zeroflaw_benchmarks.linked_bundle import linked_bundle
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.bundle.products.writer import add_products


@pytest.mark.parametrize("name", ["mini", "mini_clipsam"])
def test_the_copy_is_whole_and_changed_alone(name: str, tmp_path: Path) -> None:
    shipped = open_bundle(name, verify_digests=False)
    known = min(shipped.manifest.products)
    copy = linked_bundle(shipped, tmp_path / "deep" / name)
    embeddings, entry = shipped.text_embeddings(known), shipped.manifest.products[known]
    add_products(copy, {"another": embeddings}, {"another": entry})
    assert "another" in open_bundle(copy.path).manifest.products
    assert "another" not in open_bundle(name).manifest.products
