"""Names of products: which are accepted, and which would be taken for one another."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Final

from zeroflaw_engines.errors import ProductError

MAX_PRODUCT_NAME: Final = 64

# Signs that are printable by their class and yet show nothing (Default_Ignorable_Code_Point).
_INVISIBLE: Final = frozenset(
    map(
        chr,
        (
            0x034F,
            0x115F,
            0x1160,
            0x17B4,
            0x17B5,
            0x3164,
            0xFFA0,
            *range(0x180B, 0x1810),
            *range(0xFE00, 0xFE10),
            *range(0xE0100, 0xE01F0),
        ),
    )
)


def check_product_name(name: str) -> None:
    """Refuse product names that could not be printed or used as a file name.

    Raises:
        ProductError: The name is empty, too long, or has other than printable characters.
    """
    if (
        name in {".", ".."}
        or not 0 < len(name) <= MAX_PRODUCT_NAME
        or not name.isprintable()
        or name != name.strip()
        or set(name) & set('/\\:*?"<>|')
    ):
        raise ProductError(
            f"{name!r} is not a product name",
            f"use 1 to {MAX_PRODUCT_NAME} printable characters without path separators",
        )


def normal_name(name: str) -> str:
    """Give the form of a name that products are added and found by: Unicode's NFC.

    A name typed on one machine and copied from a file on another may be spelled with other code
    points (`é` as one, or as `e` and an accent) and is the same name.
    """
    return unicodedata.normalize("NFC", name)


def require_distinct(names: Iterable[str], known: Iterable[str]) -> None:
    """Refuse names that look like another one: they would not be told apart on a screen.

    Args:
        known: Names that are there already; one of them may be among `names`.

    Raises:
        ProductError: Two different names look the same.
    """
    seen = {_looks(name): name for name in known}
    for name in names:
        twin = seen.setdefault(_looks(name), name)
        if twin != name:
            raise ProductError(
                f"the product name {name!r} ({name!a}) looks like {twin!r} ({twin!a})",
                f"use the name {twin!r}, or one that can be told from it",
            )


def _looks(name: str) -> str:
    compatible = unicodedata.normalize("NFKC", name)
    return "".join(sign for sign in compatible if sign not in _INVISIBLE)
