"""A manifest that was damaged or edited is refused: it carries a digest of itself."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest

from support.manifests import (
    WHERE,
    as_version_1,
    as_version_2,
    as_version_4,
    as_version_9,
    decode,
    written,
)
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.manifest_text import decode_manifest
from zeroflaw_engines.contract import engine_contract
from zeroflaw_engines.errors import (
    BundleDamagedError,
    BundleError,
    BundleSchemaError,
    EngineContractError,
)
from zeroflaw_engines.parameters import PARAMETERS_OF_REFINER, MethodParameters


@pytest.mark.parametrize("bit", range(8))
def test_any_flipped_bit_is_refused(tiny_bundle: Bundle, bit: int) -> None:
    data = (tiny_bundle.path / "bundle.json").read_bytes()
    taken, strange = [], {}
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << bit
        try:
            decode_manifest(bytes(damaged), WHERE)
        except BundleError as error:
            assert WHERE in error.cause  # noqa: PT017 - every flip is tried
            assert error.remedy  # noqa: PT017
        except Exception as error:
            strange.setdefault(type(error).__name__, (place, str(error)))
        else:
            taken.append(place)
    assert not strange
    assert not taken


@pytest.mark.parametrize("bit", range(8))
def test_any_flipped_bit_of_an_old_manifest_gives_a_manifest_or_a_bundle_error(
    raw: dict[str, Any], bit: int
) -> None:
    """It has no digest: a flip in a text or a number may give another valid manifest."""
    data = written(as_version_2(raw))
    strange = {}
    for place in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[place] ^= 1 << bit
        try:
            decode_manifest(bytes(damaged), WHERE)
        except BundleError as error:
            assert WHERE in error.cause  # noqa: PT017 - not every flip has to raise
        except Exception as error:
            strange.setdefault(type(error).__name__, (place, str(error)))
    assert not strange


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"fusion_weight": 0.5', '"fusion_weight": 0.9'),
        lambda text: text.replace('"fusion_weight": 0.5,', ""),
        lambda text: text.replace('"digest"', '"digests"'),
        lambda text: text.replace("  ", " "),
        lambda text: text.replace('"schema_version": 6,', '"schema_version": 6, "digest": "x",'),
        lambda text: text + " ",
        lambda text: "\ufeff" + text,
    ],
    ids=["value", "missing", "renamed digest", "spaces", "two digests", "tail", "BOM"],
)
def test_a_manifest_edited_by_hand_is_refused_with_what_to_do_instead(
    tiny_bundle: Bundle, change: Callable[[str], str]
) -> None:
    text = (tiny_bundle.path / "bundle.json").read_text("utf-8")
    assert change(text) != text
    with pytest.raises(BundleDamagedError) as caught:
        decode_manifest(change(text).encode(), WHERE)
    if "JSON" not in caught.value.cause:
        for command in ("--set", "products add", "calibrate"):
            assert command in caught.value.remedy


def test_a_manifest_without_its_digest_is_refused(raw: dict[str, Any]) -> None:
    del raw["digest"]
    with pytest.raises(BundleDamagedError, match="no digest of itself"):
        decode_manifest(json.dumps(raw).encode(), WHERE)


def test_an_older_version_has_no_digest(raw: dict[str, Any]) -> None:
    with pytest.raises(BundleSchemaError, match="digest"):
        decode_manifest(json.dumps({**as_version_2(raw), "digest": raw["digest"]}).encode(), WHERE)


@pytest.mark.parametrize("version", [2, 5])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"decision_threshold": 0.5', '"decision_threshold": 0.5, "decision_threshold": 0.9'),
        ('"schema_version"', '"created": "", "schema_version"'),
        ('"bytes"', '"bytes": 1, "bytes"'),
    ],
    ids=["parameter", "top", "file"],
)
def test_a_field_that_is_there_twice_is_refused(
    raw: dict[str, Any], version: int, old: str, new: str
) -> None:
    document = raw if version == 5 else as_version_2(raw)
    text = json.dumps({**document, "digest": "0" * 64}, indent=2)
    if version < 4:
        text = json.dumps({name: document[name] for name in document if name != "digest"})
    text = text.replace(old, new, 1)
    digest = hashlib.sha256(text.encode()).hexdigest()
    sealed_text = text.replace(f'"digest": "{"0" * 64}"', f'"digest": "{digest}"')
    with pytest.raises(BundleDamagedError, match="2 times"):
        decode_manifest(sealed_text.encode(), WHERE)


OLD_PARAMETERS = {1: 18, 2: 18, 3: 18, 4: 23}
LAST = {18: "decision_threshold", 23: "contradiction_area"}


def as_version(raw: dict[str, Any], version: int) -> dict[str, Any]:
    old = {1: as_version_1, 2: as_version_2}.get(version)
    return as_version_4(raw, version) if old is None else old(raw)


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_an_older_version_may_lack_the_parameters_that_came_later(
    raw: dict[str, Any], version: int
) -> None:
    old = as_version(raw, version)
    count = OLD_PARAMETERS[version]
    names = list(old["parameters"])[:count]
    old["parameters"] = {name: old["parameters"][name] for name in names}
    assert names[-1] == LAST[count]
    assert decode(old).method_parameters == MethodParameters()
    for name in names:
        fewer = {key: value for key, value in old["parameters"].items() if key != name}
        with pytest.raises(BundleSchemaError, match=f"lacks {name}"):
            decode({**old, "parameters": fewer})


def test_this_version_lacks_no_parameter(raw: dict[str, Any]) -> None:
    """A parameter that is added to the method is added to the manifest's newest version."""
    others = {"refiner", *chain.from_iterable(PARAMETERS_OF_REFINER.values())}
    recorded = raw["parameters"].keys()
    assert recorded == dataclasses.asdict(MethodParameters()).keys() - others
    require_all_needed(raw)


def require_all_needed(raw: dict[str, Any]) -> None:
    assert decode(raw).method_parameters.relevant == raw["parameters"]
    for name in raw["parameters"]:
        fewer = {key: value for key, value in raw["parameters"].items() if key != name}
        with pytest.raises(BundleSchemaError, match=f"lacks.*{name}|and has parameters"):
            decode({**raw, "parameters": fewer})


@pytest.mark.parametrize("refiner", ["mmr", "box_proposals", "none"])
def test_a_refiner_is_recorded_with_all_that_it_reads(raw: dict[str, Any], refiner: str) -> None:
    of_refiner = MethodParameters(refiner=refiner).relevant
    document = {**raw, "parameters": of_refiner}
    with pytest.raises(BundleSchemaError, match="does not know"):
        decode(document)
    require_all_needed(as_version_9(document))
    strange = {"mmr_points": 5} if refiner != "mmr" else {"proposal_masks": 5}
    with pytest.raises(BundleSchemaError, match=f"refiner {refiner}, and has.*{min(strange)}"):
        decode(as_version_9({**raw, "parameters": of_refiner | strange}))


def without_sam(raw: dict[str, Any], refiner: str = "none") -> dict[str, Any]:
    engines = {name: one for name, one in raw["engines"].items() if not name.startswith("sam")}
    parameters = MethodParameters(refiner=refiner).relevant
    return as_version_9({**raw, "sam": None, "engines": engines, "parameters": parameters})


def test_a_bundle_without_sam_has_sizes_of_none(raw: dict[str, Any]) -> None:
    sizes = decode(without_sam(raw)).sizes
    assert sizes.sam_image_size == sizes.sam_feature_size == sizes.low_res_size == 0
    assert sizes.sam_feature_channels == sizes.max_prompts == 0
    for name in ("sam_encoder", "sam_decoder"):
        with pytest.raises(EngineContractError, match="without SAM") as caught:
            engine_contract(name, sizes)
        assert "--sam" in caught.value.remedy


def test_what_is_said_of_sam_and_its_engines_must_agree(raw: dict[str, Any]) -> None:
    whole = as_version_9({**raw, "parameters": MethodParameters(refiner="none").relevant})
    assert decode(whole).sam is not None
    for name in ("sam_encoder", "sam_decoder"):
        fewer = {key: value for key, value in raw["engines"].items() if key != name}
        with pytest.raises(BundleSchemaError, match=f"has no engine {name}"):
            decode({**whole, "engines": fewer})
        more = without_sam(raw)
        more["engines"] = {**more["engines"], name: raw["engines"][name]}
        with pytest.raises(BundleSchemaError, match=f"an engine {name} but nothing on SAM"):
            decode(more)
    for refiner in ("mmr", "box_proposals"):
        with pytest.raises(BundleSchemaError, match=f"refiner {refiner}, which runs SAM") as caught:
            decode(without_sam(raw, refiner))
        assert f"--refiner {refiner}" in caught.value.remedy
    older = without_sam(raw)
    del older["localizer"], older["proposals"]
    with pytest.raises(BundleSchemaError, match="does not know"):
        decode({**older, "schema_version": 8, "parameters": raw["parameters"]})


@pytest.mark.parametrize("version", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "path", [("products", "object", "threshold"), ("demonstration",), ("sam", "weights", "sha256")]
)
def test_a_missing_field_that_has_a_default_is_refused(
    raw: dict[str, Any], version: int, path: tuple[str, ...]
) -> None:
    old = raw if version == 5 else as_version(raw, version)
    part = old
    for name in path[:-1]:
        part = part[name]
    del part[path[-1]]
    with pytest.raises(BundleSchemaError, match=f"lacks {path[-1]}"):
        decode(old)


@pytest.mark.parametrize(("name", "value"), [("fusion_weight", 1.5), ("scoring", "best")])
def test_a_parameter_out_of_its_range_is_refused(
    raw: dict[str, Any], name: str, value: object
) -> None:
    raw["parameters"][name] = value
    with pytest.raises(BundleSchemaError, match=name):
        decode(raw)
