"""The manifest: every reader's first line of defence."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.manifests import WHERE, decode
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.manifest import (
    SCHEMA_VERSION,
)
from zeroflaw_engines.bundle.manifest_text import decode_manifest, encode_manifest
from zeroflaw_engines.errors import (
    BundleError,
    BundleSchemaError,
)


def test_what_is_written_is_read(tiny_bundle: Bundle) -> None:
    data = encode_manifest(tiny_bundle.manifest)
    assert decode_manifest(data, WHERE) == tiny_bundle.manifest
    assert data == (tiny_bundle.path / "bundle.json").read_bytes()


def test_what_is_written_is_plain_json(tiny_bundle: Bundle) -> None:
    raw = json.loads(encode_manifest(tiny_bundle.manifest))
    assert raw["schema_version"] == SCHEMA_VERSION == 6
    assert next(iter(raw)) == "schema_version"
    assert raw["random_weights"] == 7
    assert raw["clip"]["activation"] == "gelu"
    assert set(raw["engines"]) == {
        "clip_encoder", "sam_encoder", "sam_decoder", "text_encoder", "reference_matcher",
    }  # fmt: skip


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


@pytest.mark.parametrize(
    "engine",
    ["clip_encoder", "sam_encoder", "sam_decoder", "text_encoder", "reference_matcher"],
)
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


def test_the_reference_matcher_is_optional(raw: dict[str, Any]) -> None:
    """Together with the sizes of the banks; see the tests of reference banks."""
    del raw["engines"]["reference_matcher"]
    raw["reference"] = None
    assert decode(raw).sizes.reference is None


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
