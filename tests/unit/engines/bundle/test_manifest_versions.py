"""Older manifests are read, and fields that their version did not have are refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.manifests import WHERE, as_version_1, as_version_2, decode
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.manifest import (
    BATCHES_SINCE,
    NEWEST_VERSION,
    SCHEMA_VERSION,
    brought_up,
)
from zeroflaw_engines.bundle.manifest_text import decode_manifest, encode_manifest
from zeroflaw_engines.errors import (
    BundleDamagedError,
    BundleSchemaError,
)


@pytest.mark.parametrize("version", [NEWEST_VERSION + 1, 10**6])
def test_a_newer_schema_is_refused_with_the_way_out(raw: dict[str, Any], version: int) -> None:
    with pytest.raises(BundleSchemaError) as caught:
        decode({**raw, "schema_version": version, "something_new": 1})
    assert WHERE in caught.value.cause
    assert str(version) in caught.value.cause
    assert "upgrade" in caught.value.remedy


def test_version_1_is_still_read(raw: dict[str, Any]) -> None:
    manifest = decode(as_version_1(raw))
    assert manifest.schema_version == 1
    assert manifest.demonstration is None
    assert manifest.products["object"].calibration is None
    assert manifest.products.keys() == raw["products"].keys()


def test_version_2_is_still_read_and_written_as_it_was(raw: dict[str, Any]) -> None:
    old = as_version_2(raw)
    manifest = decode(old)
    assert manifest.engines["sam_encoder"].variants == ()
    assert manifest.engines["sam_encoder"].attention is None
    # A copy of an old bundle is one that old versions of zeroflaw read.
    assert set(json.loads(encode_manifest(manifest))["engines"]["sam_encoder"]) <= {
        "onnx", "weights", "opset", "precision",
    }  # fmt: skip


VARIANT = {
    "target": "tensorrt",
    "onnx": "sam_encoder.onnx",
    "weights": "sam_encoder.onnx.data",
    "opset": 23,
    "precision": "fp16",
    "attention": "extended_padded",
    "recipe": "fp16-00000000",
}


def with_variants(raw: dict[str, Any], *variants: dict[str, Any]) -> dict[str, Any]:
    encoder = {**raw["engines"]["sam_encoder"], "variants": list(variants)}
    return {**raw, "engines": {**raw["engines"], "sam_encoder": encoder}}


def test_variants_are_read(raw: dict[str, Any]) -> None:
    manifest = decode(with_variants(raw, VARIANT))
    variant = manifest.engines["sam_encoder"].variant("tensorrt")
    assert variant is not None
    assert (variant.precision, variant.recipe) == ("fp16", "fp16-00000000")
    assert manifest.engines["sam_encoder"].variant("openvino") is None
    assert decode_manifest(encode_manifest(manifest), WHERE) == manifest


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"onnx": "../x.onnx"}, "x.onnx"),
        ({"weights": "/etc/passwd"}, "passwd"),
        ({"onnx": "nowhere.onnx"}, "nowhere.onnx"),
    ],
)
def test_paths_of_variants_are_checked_like_all_others(
    raw: dict[str, Any], change: dict[str, str], names: str
) -> None:
    with pytest.raises(BundleDamagedError, match=names):
        decode(with_variants(raw, {**VARIANT, **change}))


@pytest.mark.parametrize(
    "change",
    [{"target": "onnxruntime"}, {"precision": "int8"}, {"attention": "other"}, {"new": 1}],
    ids=lambda change: next(iter(change)),
)
def test_variants_that_this_schema_does_not_know(
    raw: dict[str, Any], change: dict[str, Any]
) -> None:
    with pytest.raises(BundleSchemaError):
        decode(with_variants(raw, {**VARIANT, **change}))


def test_two_graphs_for_one_target_are_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(BundleSchemaError, match="two graphs of sam_encoder"):
        decode(with_variants(raw, VARIANT, VARIANT))


def test_version_2_has_none_of_the_fields_of_version_3(raw: dict[str, Any]) -> None:
    old = as_version_2(raw)
    figure = {**raw["parity"][0], "target": "tensorrt"}
    for change in (with_variants(old, VARIANT), {**old, "parity": [figure]}):
        with pytest.raises(BundleSchemaError, match="version 2 does not know"):
            decode(change)


def with_batches(raw: dict[str, Any], **images: int) -> dict[str, Any]:
    """The manifest of a bundle whose engines take so many images in one call."""
    engines = {name: dict(engine) for name, engine in raw["engines"].items()}
    for name, number in images.items():
        engines[name]["max_batch"] = number
    return {**raw, "schema_version": BATCHES_SINCE, "engines": engines}


def test_batches_are_of_both_encoders_and_of_a_version_of_their_own(raw: dict[str, Any]) -> None:
    new = with_batches(raw, clip_encoder=4, sam_encoder=4)
    manifest = decode(new)
    assert manifest.sizes.max_batch == 4
    assert decode_manifest(encode_manifest(manifest), WHERE) == manifest
    assert brought_up(manifest).schema_version == BATCHES_SINCE
    assert brought_up(decode(raw)).schema_version == SCHEMA_VERSION
    with pytest.raises(BundleSchemaError, match=f"version {SCHEMA_VERSION} does not know"):
        decode({**new, "schema_version": SCHEMA_VERSION})
    for images, text in (
        ({"clip_encoder": 4}, "batches of 1 and 4 images"),
        ({"clip_encoder": 4, "sam_encoder": 2}, "batches of 2 and 4 images"),
        ({"clip_encoder": 4, "sam_encoder": 4, "sam_decoder": 4}, "sam_decoder, which takes none"),
        ({"clip_encoder": 0, "sam_encoder": 0}, "max_batch"),
        ({"clip_encoder": 9, "sam_encoder": 9}, "max_batch"),
    ):
        with pytest.raises(BundleSchemaError, match=text):
            decode(with_batches(raw, **images))


CALIBRATION = {
    "false_reject_rate": 0.01,
    "images": 120,
    "rank": 120,
    "interval": [0.0, 0.03],
    "observed_rate": 0.0,
    "image_scoring": "cls",
    "data_digest": "0" * 64,
    "created": "2026-01-01T00:00:00+00:00",
}


def test_version_1_has_none_of_the_fields_of_version_2(raw: dict[str, Any]) -> None:
    old = as_version_1(raw)
    for change in (
        {"demonstration": "a toy"},
        {"products": {"object": {"sentences": [1, 1], "threshold": 0.5,
                                 "calibration": CALIBRATION}}},
    ):  # fmt: skip
        with pytest.raises(BundleSchemaError, match="version 1 does not know"):
            decode({**old, **change})


def test_a_calibration_is_read(raw: dict[str, Any]) -> None:
    raw["products"]["object"] |= {"threshold": 0.75, "calibration": CALIBRATION}
    raw["demonstration"] = "a toy"
    manifest = decode(raw)
    assert manifest.demonstration == "a toy"
    assert manifest.products["object"].threshold == 0.75
    calibration = manifest.products["object"].calibration
    assert calibration is not None
    assert calibration.interval == (0.0, 0.03)
    assert decode_manifest(encode_manifest(manifest), WHERE) == manifest


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": None},
        {"threshold": 1.0000001},
        {"threshold": -0.1},
        {"rank": 121},
        {"rank": 0},
        {"images": 0},
        {"false_reject_rate": 0.0},
        {"false_reject_rate": 1.0},
        {"interval": [0.0]},
        {"interval": [0.0, 1.5]},
        {"image_scoring": "other"},
        {"data_digest": "0" * 63},
        {"surprise": 1},
    ],
    ids=lambda change: "_".join(map(str, change.items())),
)
def test_a_calibration_that_makes_no_sense_is_refused(
    raw: dict[str, Any], change: dict[str, Any]
) -> None:
    entry = {"threshold": 0.75, "calibration": {**CALIBRATION}}
    (entry if "threshold" in change else entry["calibration"]).update(change)
    raw["products"]["object"] |= entry
    with pytest.raises(BundleSchemaError) as caught:
        decode(raw)
    assert WHERE in caught.value.cause


@pytest.mark.parametrize("version", [None, "1", 1.0, True, [1], {}, 0, -1])
def test_a_version_that_never_was_is_refused(raw: dict[str, Any], version: object) -> None:
    with pytest.raises(BundleSchemaError) as caught:
        decode({**raw, "schema_version": version})
    assert WHERE in caught.value.cause


def test_no_version_is_refused(raw: dict[str, Any]) -> None:
    del raw["schema_version"]
    with pytest.raises(BundleSchemaError, match="schema_version"):
        decode(raw)


# A graph of its own for OpenVINO, in bundles of older versions

OPENVINO = "sam_encoder.openvino.onnx"


@pytest.fixture
def with_variant(copied: Path, edit_manifest: Callable[..., Path]) -> Path:
    """A bundle with another graph of the SAM encoder, on the weights of the reference."""
    data = Path(shutil.copyfile(copied / "sam_encoder.onnx", copied / OPENVINO)).read_bytes()
    variant = {
        "target": "openvino", "onnx": OPENVINO, "weights": "sam_encoder.onnx.data", "opset": 23,
        "precision": "fp32", "attention": "extended", "recipe": None,
    }  # fmt: skip

    def add(raw: dict[str, Any]) -> None:
        raw["engines"]["sam_encoder"]["variants"] = [variant]
        raw["files"][OPENVINO] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}

    return edit_manifest(add)


def test_openvino_takes_its_own_graph(with_variant: Path, tiny_bundle: Bundle) -> None:
    bundle = open_bundle(with_variant)
    graph = bundle.graph("sam_encoder", "openvino")
    assert (graph.path, graph.attention) == (with_variant / OPENVINO, "extended")
    assert graph.weights_path == with_variant / "sam_encoder.onnx.data"
    assert set(graph.sha256) == {OPENVINO, "sam_encoder.onnx.data"}
    assert bundle.graph("sam_encoder", "onnxruntime").path == with_variant / "sam_encoder.onnx"
    assert bundle.identity == tiny_bundle.identity


def test_that_graph_is_verified_too(with_variant: Path) -> None:
    (with_variant / OPENVINO).write_bytes(b"")
    with pytest.raises(BundleDamagedError, match=OPENVINO):
        open_bundle(with_variant)
