"""The manifest: every reader's first line of defence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.manifests import as_version_1, as_version_2, written
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.manifest import (
    SCHEMA_VERSION,
    Manifest,
)
from zeroflaw_engines.bundle.manifest_checks import check_relative_path
from zeroflaw_engines.bundle.manifest_text import decode_manifest, encode_manifest
from zeroflaw_engines.errors import (
    BundleDamagedError,
    BundleError,
    BundleSchemaError,
)

WHERE = "/somewhere/bundle.json"
BAD_PATHS = {
    "absolute": "/etc/passwd",
    "network": "//server/share/x",
    "parent": "../prompts.safetensors",
    "parent inside": "sub/../prompts.safetensors",
    "parent at the end": "sub/..",
    "backslash": "sub\\prompts.safetensors",
    "backslash parent": "..\\prompts.safetensors",
    "drive": "C:/prompts.safetensors",
    "drive relative": "C:prompts.safetensors",
    "stream": "prompts.safetensors:stream",
    "empty": "",
    "dot": ".",
    "dot first": "./prompts.safetensors",
    "double slash": "sub//prompts.safetensors",
    "slash at the end": "prompts.safetensors/",
    "zero byte": "prompts\0.safetensors",
}


@pytest.fixture
def raw(tiny_bundle: Bundle) -> dict[str, Any]:
    return json.loads((tiny_bundle.path / "bundle.json").read_text("utf-8"))


def decode(raw: dict[str, Any]) -> Manifest:
    """Reads a manifest as it would be if zeroflaw had written it so: with a digest of itself."""
    return decode_manifest(written(raw), WHERE)


def test_what_is_written_is_read(tiny_bundle: Bundle) -> None:
    data = encode_manifest(tiny_bundle.manifest)
    assert decode_manifest(data, WHERE) == tiny_bundle.manifest
    assert data == (tiny_bundle.path / "bundle.json").read_bytes()


def test_what_is_written_is_plain_json(tiny_bundle: Bundle) -> None:
    raw = json.loads(encode_manifest(tiny_bundle.manifest))
    assert raw["schema_version"] == SCHEMA_VERSION == 4
    assert next(iter(raw)) == "schema_version"
    assert raw["random_weights"] == 7
    assert raw["clip"]["activation"] == "gelu"
    assert set(raw["engines"]) == {"clip_encoder", "sam_encoder", "sam_decoder", "text_encoder"}


@pytest.mark.parametrize("version", [5, 6, 10**6])
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


@pytest.mark.parametrize(
    "where",
    [
        (),
        ("clip",),
        ("sam",),
        ("text",),
        ("clip", "weights"),
        ("engines", "clip_encoder"),
        ("products", "object"),
        ("files", "tokenizer.json"),
        ("parity", 0),
    ],
)
def test_an_unknown_field_is_refused(raw: dict[str, Any], where: tuple) -> None:
    part: Any = raw
    for name in where:
        part = part[name]
    part["surprise"] = 1
    with pytest.raises(BundleSchemaError) as caught:
        decode(raw)
    assert WHERE in caught.value.cause
    assert "surprise" in caught.value.cause


@pytest.mark.parametrize("field", ["clip", "sam", "engines", "prompts", "files", "parameters"])
def test_a_missing_field_is_refused(raw: dict[str, Any], field: str) -> None:
    del raw[field]
    with pytest.raises(BundleSchemaError) as caught:
        decode(raw)
    assert WHERE in caught.value.cause
    assert field in caught.value.cause


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("clip", "image_size"), "224"),
        (("clip", "image_size"), 224.5),
        (("clip", "activation"), "relu"),
        (("clip", "mean"), [0.1, 0.2]),
        (("engines", "clip_encoder", "precision"), "fp8"),
        (("engines", "surprise"), {"onnx": "x", "weights": None, "opset": 23}),
        (("products", "object", "sentences"), [1]),
        (("files", "tokenizer.json", "bytes"), 1.5),
        (("text", "context"), None),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(
    raw: dict[str, Any], path: tuple[str, ...], value: object
) -> None:
    part = raw
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    with pytest.raises(BundleSchemaError) as caught:
        decode(raw)
    assert WHERE in caught.value.cause


@pytest.mark.parametrize("path", BAD_PATHS.values(), ids=BAD_PATHS.keys())
def test_a_path_that_could_lead_out_is_refused(path: str) -> None:
    with pytest.raises(BundleDamagedError) as caught:
        check_relative_path(path, WHERE)
    assert WHERE in caught.value.cause
    assert repr(path) in caught.value.cause
    assert "do not use" in caught.value.remedy


@pytest.mark.parametrize("path", ["x", "sub/x", "..x", "x..y", ".hidden", "größe", "a b"])
def test_a_plain_path_is_accepted(path: str) -> None:
    check_relative_path(path, WHERE)


@pytest.mark.parametrize("path", BAD_PATHS.values(), ids=BAD_PATHS.keys())
def test_a_bad_path_among_the_files_is_refused(raw: dict[str, Any], path: str) -> None:
    raw["files"][path] = raw["files"].pop("prompts.safetensors")
    raw["prompts"] = path
    with pytest.raises(BundleDamagedError, match="not a plain path"):
        decode(raw)


@pytest.mark.parametrize(
    "reference",
    [
        ("prompts",),
        ("text", "tokenizer"),
        ("text", "ensembles"),
        *(("engines", name, "onnx") for name in ("clip_encoder", "sam_encoder", "sam_decoder")),
        *(("engines", name, "weights") for name in ("sam_decoder", "text_encoder")),
    ],
)
@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "..\\x", "C:/x", "not_listed"])
def test_a_bad_reference_is_refused(
    raw: dict[str, Any], reference: tuple[str, ...], path: str
) -> None:
    part = raw
    for name in reference[:-1]:
        part = part[name]
    part[reference[-1]] = path
    with pytest.raises(BundleDamagedError) as caught:
        decode(raw)
    assert WHERE in caught.value.cause
    assert path in caught.value.cause or repr(path) in caught.value.cause


def test_nothing_outside_is_read_through_a_bad_path(copied: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.safetensors"
    (copied / "prompts.safetensors").rename(outside)
    text = (copied / "bundle.json").read_text("utf-8")
    for path in ("../outside.safetensors", str(outside)):
        changed = json.loads(text.replace('"prompts.safetensors"', json.dumps(path)))
        (copied / "bundle.json").write_bytes(written(changed))
        with pytest.raises(BundleDamagedError, match="not a plain path"):
            open_bundle(copied)


@pytest.mark.parametrize(
    "entry",
    [
        {"sha256": "0" * 63, "bytes": 1},
        {"sha256": "0" * 65, "bytes": 1},
        {"sha256": "0" * 63 + "g", "bytes": 1},
        {"sha256": "A" * 64, "bytes": 1},
        {"sha256": "0" * 64 + "\n", "bytes": 1},
        {"sha256": "", "bytes": 1},
        {"sha256": "0" * 64, "bytes": -1},
    ],
)
def test_a_digest_that_is_none_is_refused(raw: dict[str, Any], entry: dict[str, Any]) -> None:
    raw["files"]["tokenizer.json"] = entry
    with pytest.raises(BundleDamagedError) as caught:
        decode(raw)
    assert WHERE in caught.value.cause
    assert "tokenizer.json" in caught.value.cause


@pytest.mark.parametrize("engine", ["clip_encoder", "sam_encoder", "sam_decoder", "text_encoder"])
def test_an_engine_that_is_needed_is_missed(raw: dict[str, Any], engine: str) -> None:
    del raw["engines"][engine]
    with pytest.raises(BundleSchemaError) as caught:
        decode(raw)
    assert WHERE in caught.value.cause
    assert engine in caught.value.cause


def test_the_text_engine_is_optional(raw: dict[str, Any]) -> None:
    del raw["engines"]["text_encoder"]
    raw["text"] = None
    assert decode(raw).text is None


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' * 100_000], ids=["lists", "objects"])
def test_nesting_without_end_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError):
        decode_manifest(data, WHERE)


def test_a_manifest_with_a_bad_product_name_is_a_bad_manifest(raw: dict[str, Any]) -> None:
    raw["products"]["../up"] = raw["products"].pop("object")
    with pytest.raises(BundleError) as caught:
        decode(raw)
    assert WHERE in caught.value.cause


def test_the_method_parameters_are_the_defaults(tiny_bundle: Bundle) -> None:
    parameters = tiny_bundle.manifest.method_parameters
    assert parameters.extreme_threshold == 0.5
    assert (parameters.positive_points, parameters.negative_points) == (3, 3)
    assert parameters.dilation_size == 25
