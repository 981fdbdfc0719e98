"""The key of a built engine: everything that its bytes depend on, and one digest over it."""

from __future__ import annotations

import hashlib
import platform
import sys
from typing import Any, Final

import msgspec

from zeroflaw_engines.built_engines.options import BuildOptions, ProfileShapes
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.graph_entries import Graph, graph_target
from zeroflaw_engines.contract import EngineName
from zeroflaw_engines.machine import Gpu
from zeroflaw_engines.tensorrt_bindings import BuildBackend

# Raised whenever the builder makes another network or configuration of the same parts.
BUILDER_REVISION: Final = 2


class KeyParts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a built engine depends on.

    Attributes:
        engine: Which engine.
        graph: SHA-256 of the ONNX file and of its weights, by file name.
        precision: Of the graph.
        attention: How the graph writes attention.
        recipe: Identity of the precision recipe; None for FP32.
        backend: Whose compiler.
        backend_version: Of that compiler, as `1.7.1.116`.
        architectures: GPU architectures in the engine; empty where it is for `gpu` alone.
        gpu: Name and architecture of the GPU that it was built on, as `NVIDIA L4 (sm89)`; None
            where architectures were named.
        profile: Shapes of the inputs with dynamic axes.
        flags: Every other option of the build.
        platform: Operating system and processor, as `linux-x86_64`.
        builder_revision: `BUILDER_REVISION` of the zeroflaw that built it.
    """

    engine: EngineName
    graph: dict[str, str]
    precision: str
    attention: str
    recipe: str | None
    backend: BuildBackend
    backend_version: str
    architectures: tuple[str, ...]
    gpu: str | None
    profile: dict[str, ProfileShapes]
    flags: dict[str, bool | int | str | None]
    platform: str
    builder_revision: int = BUILDER_REVISION

    @property
    def key(self) -> str:
        """SHA-256 over all parts in a fixed order."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()


class KeyDifference(msgspec.Struct, frozen=True, kw_only=True):
    """One part of two keys that differs.

    Attributes:
        part: Its name; of an entry in a part, as `graph.sam_encoder.onnx`.
        old: Value in the first key; None where it has none.
        new: Value in the second key.
    """

    part: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.part}: {_brief(self.old)} -> {_brief(self.new)}"


def key_parts(
    bundle: Bundle,
    engine: EngineName,
    options: BuildOptions,
    *,
    backend_version: str,
    gpu: Gpu | None,
) -> KeyParts:
    """Compute the key of an engine to be built.

    Args:
        backend_version: Full version of the installed backend.
        gpu: The GPU of this machine, if the engine is for it.

    Raises:
        EngineError: The bundle has no graph of that precision.
    """
    graph = bundle_graph(bundle, engine, options.precision)
    return KeyParts(
        engine=engine,
        graph=dict(graph.sha256),
        precision=graph.precision,
        attention=graph.attention,
        recipe=graph.recipe,
        backend=options.backend,
        backend_version=backend_version,
        architectures=options.architectures,
        gpu=None if options.architectures or gpu is None else str(gpu),
        profile=options.profile(bundle.contract(engine)),
        flags={
            "hardware_compatibility": options.hardware_compatibility,
            "strip_weights": options.strip_weights,
            "tf32": options.tf32,
            "version_compatible": options.version_compatible,
            "workspace_mib": options.workspace_mib,
        },
        platform=this_platform(),
    )


def parts_now(parts: KeyParts, bundle: Bundle, backend_version: str) -> KeyParts:
    """Compute the key that the same build would have today, with this bundle and this backend.

    Raises:
        EngineError: The bundle has no graph of that precision any more.
    """
    graph = bundle_graph(bundle, parts.engine, parts.precision)
    return msgspec.structs.replace(
        parts,
        graph=dict(graph.sha256),
        precision=graph.precision,
        attention=graph.attention,
        recipe=graph.recipe,
        backend_version=backend_version,
        platform=this_platform(),
        builder_revision=BUILDER_REVISION,
    )


def bundle_graph(bundle: Bundle, engine: EngineName, precision: str) -> Graph:
    """Return the graph that TensorRT builds an engine of a precision from.

    Raises:
        EngineError: The bundle has none.
    """
    return bundle.graph(engine, graph_target(precision))


def key_differences(old: KeyParts, new: KeyParts) -> tuple[KeyDifference, ...]:
    """Return where two keys differ, entry by entry, in the order of the parts."""
    differences = []
    before, after = msgspec.to_builtins(old), msgspec.to_builtins(new)
    for part in KeyParts.__struct_fields__:
        a, b = before[part], after[part]
        if a == b:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            differences += [
                KeyDifference(part=f"{part}.{name}", old=a.get(name), new=b.get(name))
                for name in sorted(a.keys() | b.keys())
                if a.get(name) != b.get(name)
            ]
        else:
            differences.append(KeyDifference(part=part, old=a, new=b))
    return tuple(differences)


def this_platform() -> str:
    """Return the operating system and processor of this machine, as `linux-x86_64`."""
    return f"{sys.platform}-{platform.machine().lower()}"


def _brief(value: object) -> str:
    """Write a value on one line; digests by their first 12 digits."""
    if value is None:
        return "nothing"
    if isinstance(value, list | tuple):
        return "-".join(map(str, value)) or "nothing"
    text = str(value)
    return text[:12] if len(text) == 64 else text
