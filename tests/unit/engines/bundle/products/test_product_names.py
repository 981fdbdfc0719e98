"""Names of products: accepted, refused, and taken for one another."""

from __future__ import annotations

import pytest

from zeroflaw_engines.bundle.products.names import check_product_name, normal_name, require_distinct
from zeroflaw_engines.errors import ProductError


@pytest.mark.parametrize(
    "name",
    ["object", "metal_nut", "pcb1", "Schraube groß", "M8x20 bolt (A2)", "O'Ring", "螺丝", "x" * 64],
)
def test_product_names_that_are_accepted(name: str) -> None:
    check_product_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "x" * 65, " nut", "nut ", "a\nb", "a\tb", "a\0b", "\u200b", "a\u202eb", "a\x7f", "\ud800"]
    + [f"a{sign}b" for sign in '/\\:*?"<>|']
    + [".", ".."],
)
def test_product_names_that_are_refused(name: str) -> None:
    with pytest.raises(ProductError) as caught:
        check_product_name(name)
    assert repr(name) in caught.value.cause
    assert "64" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("caf\u00e9", "cafe\u0301"),
        ("\ufb01lter", "filter"),
        ("\uff4e\uff55\uff54", "nut"),
        ("nut\ufe0f", "nut"),
        ("\u00c5ngstrom", "\u212bngstrom"),
    ],
    ids=["accent", "ligature", "full width", "invisible", "sign of a unit"],
)
def test_names_that_look_alike_are_refused(name: str, twin: str) -> None:
    for one, other in ((name, twin), (twin, name)):
        with pytest.raises(ProductError) as caught:
            require_distinct([one], [other])
        assert ascii(one) in caught.value.cause
        assert ascii(other) in caught.value.cause
        with pytest.raises(ProductError):
            require_distinct([one, other], [])


def test_names_that_can_be_told_apart_are_accepted() -> None:
    require_distinct(["nut", "Nut", "nuts", "n\u00fct"], ["nut", "bolt"])


def test_one_name_in_two_spellings_is_one_name() -> None:
    assert normal_name("cafe\u0301") == normal_name("caf\u00e9") == "caf\u00e9"
