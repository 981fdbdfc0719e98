"""The sidecar of a built engine: what it is, where it comes from, and what was proven of it."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from zeroflaw_engines.built_engines.key import KeyParts
from zeroflaw_engines.built_engines.precision_report import PrecisionReport
from zeroflaw_engines.errors import EngineDamagedError

SIDECAR_VERSION: Final = 1


class EngineParity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Outputs of the engine beside those of the FP32 reference on fixed inputs.

    Attributes:
        status: Whether they were compared.
        reason: Why not, if they were not.
        cosine: Cosine similarity by output, the lowest of all inputs.
    """

    status: Literal["passed", "not run"]
    reason: str = ""
    cosine: dict[str, float] = {}


class EngineSidecar(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `<engine>.json` beside `<engine>.engine`.

    Attributes:
        schema_version: Version of this schema.
        key: Digest over `parts`.
        parts: What the engine depends on.
        engine_sha256: Of the engine's file.
        engine_bytes: Size of the engine's file.
        created: UTC time, ISO 8601.
        zeroflaw_version: Version that built it.
        build_seconds: Parsing and building.
        peak_memory_bytes: Highest resident memory of the building process; None where the
            system does not say.
        warnings: What the compiler warned of, each once.
        census: Precision report of the engine.
        network_census: That of the network it was built from.
        parity: Comparison with the FP32 reference.
    """

    schema_version: int
    key: str
    parts: KeyParts
    engine_sha256: str
    engine_bytes: int
    created: str
    zeroflaw_version: str
    build_seconds: float
    peak_memory_bytes: int | None
    warnings: tuple[str, ...]
    census: PrecisionReport
    network_census: PrecisionReport
    parity: EngineParity


def encode_sidecar(sidecar: EngineSidecar) -> bytes:
    """Return the sidecar as readable JSON with a fixed order of names."""
    return msgspec.json.format(msgspec.json.encode(sidecar), indent=2) + b"\n"


def decode_sidecar(data: bytes, where: str, *, remedy: str) -> EngineSidecar:
    """Read and validate a sidecar.

    Args:
        where: Its path, for error messages.
        remedy: What rebuilds the engine.

    Raises:
        EngineDamagedError: It is not one, is of another schema version, or its key is not the
            digest of its parts.
    """
    try:
        sidecar = msgspec.json.decode(data, type=EngineSidecar)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        version = _version_of(data)
        if version is not None and version != SIDECAR_VERSION:
            raise EngineDamagedError(
                f"{where} has schema version {version}, not the {SIDECAR_VERSION} read here", remedy
            ) from error
        raise EngineDamagedError(f"{where} is not a sidecar ({error})", remedy) from error
    if sidecar.schema_version != SIDECAR_VERSION:
        raise EngineDamagedError(
            f"{where} has schema version {sidecar.schema_version}, not the {SIDECAR_VERSION} read"
            " here",
            remedy,
        )
    if sidecar.key != sidecar.parts.key:
        raise EngineDamagedError(f"{where} was altered: its key is not that of its parts", remedy)
    return sidecar


def _version_of(data: bytes) -> object:
    try:
        raw = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return raw.get("schema_version") if isinstance(raw, dict) else None
