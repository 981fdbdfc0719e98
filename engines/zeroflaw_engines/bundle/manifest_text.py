"""Manifests as text and back: strict JSON that carries a digest of itself."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from zeroflaw_engines.bundle.manifest import NEWEST_VERSION, Manifest
from zeroflaw_engines.bundle.manifest_checks import check_manifest, unknown_fields
from zeroflaw_engines.errors import BundleDamagedError, BundleSchemaError, ParametersError

# The first version of the schema whose manifests carry a digest.
SEALED_SINCE: Final = 4
DIGEST: Final = "digest"

_FIELD = re.compile(rb'"digest": "([0-9a-f]{64})"')
_NO_DIGEST = "0" * 64


def encode_manifest(manifest: Manifest) -> bytes:
    """Return readable JSON in a fixed order, which since version 4 has a digest of itself.

    A manifest of an older version is one that the zeroflaw of that version reads.
    """
    document = msgspec.to_builtins(manifest)
    for fields in (document, *document["products"].values()):
        for name in unknown_fields(manifest.schema_version):
            fields.pop(name, None)
    return sealed(document) if manifest.schema_version >= SEALED_SINCE else readable(document)


def decode_manifest(data: bytes, where: str) -> Manifest:
    """Read and validate a manifest.

    Args:
        where: Path for error messages.

    Raises:
        BundleDamagedError: It is not JSON, was changed since it was written, has a name twice,
            or a path or digest in it is not acceptable.
        BundleSchemaError: Its version, its fields or their values are not those of this schema.
    """
    document = read_document(data, where, NEWEST_VERSION)
    version = document["schema_version"]
    try:
        manifest = msgspec.convert(document, Manifest)
        _ = manifest.method_parameters
    except (msgspec.ValidationError, ParametersError) as error:
        raise BundleSchemaError(
            f"{where} does not fit schema version {version}: {error}",
            "export the bundle again",
        ) from error
    check_manifest(manifest, document, where)
    return manifest


def sealed(document: Mapping[str, Any]) -> bytes:
    """Give a document as readable JSON with a digest of that text as its last field.

    The digest is the SHA-256 of the text in which it is replaced by 64 zeros, so that not one
    bit of the text can change without notice.

    Args:
        document: The fields; a digest among them is replaced.
    """
    fields = {name: value for name, value in document.items() if name != DIGEST}
    text = readable({**fields, DIGEST: _NO_DIGEST})
    digest = hashlib.sha256(text).hexdigest()
    return text.replace(_field(_NO_DIGEST), _field(digest))


def readable(document: Mapping[str, Any]) -> bytes:
    """Give a document as JSON with a fixed indent."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def read_document(data: bytes, where: str, newest: int) -> dict[str, Any]:
    """Read the text of a manifest: JSON, version, digest, and no field twice.

    Args:
        where: Path for error messages.
        newest: The newest version of the schema that can be read.

    Returns:
        The fields but for the digest.

    Raises:
        BundleDamagedError: It is not JSON, its digest does not fit, or a field is there twice.
        BundleSchemaError: Its version is not one that can be read.
    """
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleDamagedError(
            f"{where} is not valid JSON ({error})", "export the bundle again or copy it anew"
        ) from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise BundleSchemaError(
            f"{where} has no schema_version of 1 or more", "check that this is a zeroflaw bundle"
        )
    if version > newest:
        raise BundleSchemaError(
            f"{where} has schema version {version}, newer than the {newest} read here",
            "upgrade zeroflaw on this machine, or export the bundle with this version",
        )
    fields: dict[str, Any] = document
    if version >= SEALED_SINCE:
        _require_digest(data, fields, where)
        del fields[DIGEST]
    _require_unique(data, where)
    return fields


def _field(digest: str) -> bytes:
    # A quotation mark inside a JSON text is escaped, so that these bytes can only be the field.
    return f'"{DIGEST}": "{digest}"'.encode()


def _require_digest(data: bytes, document: dict[str, Any], where: str) -> None:
    found = _FIELD.findall(data)
    recorded = document.get(DIGEST)
    if len(found) == 1 and recorded == found[0].decode():
        unsealed = data.replace(_field(recorded), _field(_NO_DIGEST))
        if hashlib.sha256(unsealed).hexdigest() == recorded:
            return
    raise BundleDamagedError(
        f"{where} was changed since zeroflaw wrote it: "
        + ("its digest is not that of its text" if recorded else "it has no digest of itself"),
        "copy the bundle anew, or export it again. It is not edited by hand: give method"
        " parameters to an inspection with --set or --parameters, add products with"
        " `zeroflaw products add`, set thresholds with `zeroflaw calibrate`",
    )


def _require_unique(data: bytes, where: str) -> None:
    """Refuse objects with two equal names, of which readers would take the last."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(items)
        if len(fields) < len(items):
            ((name, times),) = Counter(one for one, _ in items).most_common(1)
            raise BundleDamagedError(
                f"{where} has the field {name!r} {times} times",
                "copy the bundle anew, or export it again",
            )
        return fields

    try:
        # Numbers are not looked at, and Python refuses whole ones of thousands of digits.
        json.loads(data.decode(), object_pairs_hook=pairs, parse_int=str, parse_float=str)
    except (ValueError, RecursionError) as error:
        raise BundleDamagedError(
            f"{where} is not valid JSON ({error})", "export the bundle again or copy it anew"
        ) from error
