"""What the tests of tiles share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from scripted_engines import TiledPart


@pytest.fixture
def part() -> Iterator[Callable[..., TiledPart]]:
    made: list[TiledPart] = []

    def make(*args: object, **options: object) -> TiledPart:
        made.append(TiledPart(*args, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()
