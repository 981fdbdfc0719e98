"""The recipe of docs/inspection.md, run as it is written there, with supervision itself."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import supervision as sv

from zeroflaw import Inspection, Inspector
from zeroflaw.pipeline.masks.regions import regions_of

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def to_detections() -> Callable[[Inspection], sv.Detections]:
    text = (ROOT / "docs" / "inspection.md").read_text()
    section = text.split("### To supervision's `Detections`")[1]
    recipe = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
    names: dict[str, object] = {}
    exec(recipe, names)  # noqa: S102 - the documentation's own code
    return names["to_detections"]


@pytest.fixture(scope="module")
def inspection() -> Inspection:
    with Inspector.load("mini") as inspector:
        return inspector.inspect(
            ROOT / "examples" / "frames" / "casting_good.jpg", product="object"
        )


def with_mask(inspection: Inspection, mask: np.ndarray) -> Inspection:
    regions = regions_of(mask, inspection.score_map)
    return dataclasses.replace(inspection, mask=mask, regions=regions)


def masks(inspection: Inspection) -> dict[str, np.ndarray]:
    """Regions with holes, that touch at corners, within one another, at the frame's edges."""
    shape = inspection.frame_size
    empty, one, many = np.zeros((3, *shape), np.bool_)
    one[-1, -1] = True
    many[10:60, 20:90] = True
    many[20:50, 30:80] = False
    many[30:40, 40:60] = True
    many[0, :5] = True
    many[100, 100] = many[101, 101] = True
    noise = empty.copy()
    noise[:24, :24] = np.random.default_rng(0).random((24, 24)) > 0.7
    return {"empty": empty, "one": one, "many": many, "noise": noise, "all": ~empty}


@pytest.mark.parametrize("name", ["empty", "one", "many", "noise", "all"])
def test_detections_are_the_regions(inspection, to_detections, name) -> None:
    mask = masks(inspection)[name]
    seen = with_mask(inspection, mask)
    found = to_detections(seen)
    assert isinstance(found, sv.Detections)
    assert len(found) == len(seen.regions)
    assert np.array_equal(found.mask.any(axis=0), mask)
    assert found.mask.sum() == mask.sum()  # and so no pixel has two detections
    for box, one, score, region in zip(
        found.xyxy, found.mask, found.confidence, seen.regions, strict=True
    ):
        assert tuple(box) == region.xyxy
        left, top, right, bottom = map(int, box)
        assert one[top:bottom, left:right].sum() == one.sum() == region.area
        rows, columns = np.nonzero(one)
        assert (rows.min(), rows.max() + 1) == (top, bottom)
        assert (columns.min(), columns.max() + 1) == (left, right)
        assert score == np.float32(region.peak_score)


def test_supervision_takes_them(inspection, to_detections) -> None:
    seen = with_mask(inspection, masks(inspection)["many"])
    found = to_detections(seen)
    assert [float(area) for area in found.box_area] == [r.width * r.height for r in seen.regions]
    picture = seen.frame.copy()
    for annotator in (sv.MaskAnnotator(), sv.BoxAnnotator()):
        picture = annotator.annotate(picture, found)
    assert not np.array_equal(picture, seen.frame)
    assert len(found[found.confidence > 1]) == 0
