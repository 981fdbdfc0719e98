"""Paths and digests of a manifest: nothing outside the bundle is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.manifests import WHERE, decode, written
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.bundle.manifest_checks import check_relative_path
from zeroflaw_engines.errors import (
    BundleDamagedError,
)

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
