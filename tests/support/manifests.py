"""Manifests that a test changes, as zeroflaw would have written them."""

from __future__ import annotations

import json
from typing import Any

from zeroflaw_engines.bundle.manifest import Manifest
from zeroflaw_engines.bundle.manifest_text import SEALED_SINCE, decode_manifest, sealed

WHERE = "/somewhere/bundle.json"


def written(raw: dict[str, Any]) -> bytes:
    """The text of a manifest with these fields: with a digest of itself since version 4."""
    version = raw.get("schema_version")
    if isinstance(version, int) and version < SEALED_SINCE:
        return json.dumps({name: raw[name] for name in raw if name != "digest"}).encode()
    return sealed(raw)


def as_version_4(raw: dict[str, Any], version: int = 4) -> dict[str, Any]:
    """The manifest as version 4 wrote it, or version 3: without reference banks."""
    old = {**raw, "schema_version": version}
    old.pop("reference", None)
    old["products"] = {
        name: {key: value for key, value in product.items() if key != "reference"}
        for name, product in raw["products"].items()
    }
    old["parity"] = [one for one in raw["parity"] if one["engine"] != "reference_matcher"]
    for field in ("engines", "parameters"):
        old[field] = {
            name: value for name, value in raw[field].items() if not name.startswith("reference_")
        }
    return old


def as_version_2(raw: dict[str, Any]) -> dict[str, Any]:
    """The manifest as version 2 wrote it: one graph an engine."""
    raw = as_version_4(raw)
    engines = {
        name: {key: value for key, value in engine.items() if key not in {"attention", "variants"}}
        for name, engine in raw["engines"].items()
    }
    return {**raw, "schema_version": 2, "engines": engines}


def as_version_1(raw: dict[str, Any]) -> dict[str, Any]:
    """The manifest as version 1 wrote it: without the fields that came later."""
    old = {**as_version_2(raw), "schema_version": 1}
    del old["demonstration"]
    old["products"] = {
        name: {key: value for key, value in product.items() if key != "calibration"}
        for name, product in old["products"].items()
    }
    return old


def as_version_9(raw: dict[str, Any]) -> dict[str, Any]:
    """The manifest as version 9 writes it: with all that this version knows."""
    products = {name: {"settings": None, **product} for name, product in raw["products"].items()}
    document = {"localizer": None, "proposals": None, **raw}
    if raw["parameters"].get("refiner") == "box_proposals":
        proposer = {**raw["engines"]["clip_encoder"], "variants": []}
        document["engines"] = {**raw["engines"], "box_proposer": proposer}
        weights = {"name": "detector.onnx", "sha256": None}
        document["proposals"] = {"image_size": 32, "boxes": 16, "weights": weights}
    return {**document, "schema_version": 9, "products": products}


def decode(raw: dict[str, Any]) -> Manifest:
    """Reads a manifest as it would be if zeroflaw had written it so: with a digest of itself."""
    return decode_manifest(written(raw), WHERE)
