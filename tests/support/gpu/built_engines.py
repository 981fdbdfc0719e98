"""Engines as the cache holds them, without a compiler: any bytes will do for a plan."""

from __future__ import annotations

import hashlib

from zeroflaw_engines.built_engines.cache import (
    EnginePaths,
    engine_paths,
    file_to_publish,
    locked_for_build,
    publish_engine,
)
from zeroflaw_engines.built_engines.key import key_parts
from zeroflaw_engines.built_engines.options import BuildOptions
from zeroflaw_engines.built_engines.precision_report import precision_report
from zeroflaw_engines.built_engines.sidecar import SIDECAR_VERSION, EngineParity, EngineSidecar
from zeroflaw_engines.bundle.bundle import Bundle

VERSION = "1.7.1.116"
PLAN = b"a plan that no one deserializes" * 100


def sidecar_for(
    bundle: Bundle, engine="sam_decoder", *, plan=PLAN, version=VERSION, gpu=None, **options
) -> EngineSidecar:
    chosen = BuildOptions(
        **{
            "backend": "tensorrt-rtx",
            "architectures": ("sm86", "sm89"),
            "precision": "fp32",
            **options,
        }
    )
    parts = key_parts(bundle, engine, chosen, backend_version=version, gpu=gpu)
    report = precision_report("plan", [("gemm", "float32")])
    return EngineSidecar(
        schema_version=SIDECAR_VERSION,
        key=parts.key,
        parts=parts,
        engine_sha256=hashlib.sha256(plan).hexdigest(),
        engine_bytes=len(plan),
        created="2026-11-25T12:00:00+00:00",
        zeroflaw_version="0",
        build_seconds=1.5,
        peak_memory_bytes=None,
        warnings=(),
        census=report,
        network_census=report,
        parity=EngineParity(status="not run", reason="no GPU here"),
    )


def publish(bundle: Bundle, engine="sam_decoder", *, plan=PLAN, **options) -> EnginePaths:
    sidecar = sidecar_for(bundle, engine, plan=plan, **options)
    parts = sidecar.parts
    target = "-".join(parts.architectures) or "this-gpu"
    paths = engine_paths(bundle, engine, parts.backend, target)
    with locked_for_build(bundle, paths), file_to_publish(paths) as file:
        file.write_bytes(plan)
        publish_engine(paths, file, sidecar)
    return paths
