"""`zeroflaw bundle`: look into a bundle, verify it, copy it, upgrade it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from zeroflaw.cli.json_lines import (
    JsonLinesOption,
    encodable,
    json_option,
    print_json,
    print_json_text,
)
from zeroflaw.cli.options import BundleArgument, open_and_announce
from zeroflaw.cli.products.texts import threshold_text
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.graph_entries import EngineFile, GraphVariant
from zeroflaw_engines.bundle.manifest_text import encode_manifest
from zeroflaw_engines.bundle.writer import copy_bundle, upgrade_bundle
from zeroflaw_engines.errors import BundleError
from zeroflaw_engines.process.terminal import err, out

bundle_app = typer.Typer(
    help="Look into a bundle, verify it, copy it, upgrade it.", no_args_is_help=True
)


@bundle_app.command()
def verify(bundle: BundleArgument, *, as_json: JsonLinesOption = False) -> None:
    """Check the schema, every file, its size and its SHA-256."""
    try:
        opened = open_and_announce(bundle)
    except BundleError as error:
        if as_json:
            problem = {"code": error.code, "cause": error.cause, "remedy": error.remedy}
            print_json(_verdict(bundle, problem={k: encodable(v) for k, v in problem.items()}))
        raise
    if as_json:
        print_json(_verdict(bundle, opened))
        return
    manifest = opened.manifest
    total = sum(entry.bytes for entry in manifest.files.values())
    out.print(
        f"{bundle} is whole: schema version {manifest.schema_version},"
        f" {len(manifest.files)} files, {total / 1e6:.1f} MB, identity {opened.identity[:12]}",
        markup=False,
    )


@bundle_app.command()
def copy(
    bundle: BundleArgument,
    target: Annotated[Path, typer.Argument(help="Directory to write; it must not exist yet.")],
    *,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing bundle.")] = False,
) -> None:
    """Copy a bundle and verify the copy, for example to add products to that of zeroflaw.

    zeroflaw bundle copy mini my_bundle
    """
    opened = open_and_announce(bundle, verify_digests=False)
    with err.status(f"copying {bundle}"):
        copied = copy_bundle(opened, target, overwrite=overwrite)
    out.print(f"{target} is a copy of {bundle}: identity {copied.identity[:12]}", markup=False)


@bundle_app.command()
def upgrade(bundle: BundleArgument) -> None:
    """Bring the manifest of an older bundle to the current schema; no other file changes.

    It then carries a digest of itself, so that no bit of it can change without notice. Versions
    of zeroflaw that are older than the schema refuse it.

        zeroflaw bundle upgrade my_bundle
    """
    opened = open_and_announce(bundle)
    upgraded = upgrade_bundle(opened)
    out.print(
        f"{bundle}: schema version {opened.manifest.schema_version} is now"
        f" {upgraded.manifest.schema_version}, identity {upgraded.identity[:12]}",
        markup=False,
    )


@bundle_app.command()
def info(
    bundle: BundleArgument,
    *,
    as_json: Annotated[bool, json_option("Print the manifest as JSON.")] = False,
) -> None:
    """Say what is in a bundle: models, products, parameters, parity of the export."""
    opened = open_and_announce(bundle, verify_digests=False)
    manifest = opened.manifest
    if as_json:
        print_json_text(encode_manifest(manifest))
        return
    clip, sam = manifest.clip, manifest.sam
    models = (
        f"{clip.architecture} at {clip.image_size} px, {clip.activation}, "
        f"blocks {', '.join(map(str, clip.tapped_blocks))}, "
        f"weights {clip.weights.name}, adapters {clip.adapters.name}"
    )
    localizer_parameters = (
        [] if manifest.localizer is None
        else [f"{name}={value}" for name, value in manifest.localizer.parameters.items()]
    )  # fmt: skip
    text_engine = "yes" if manifest.text else "no"
    if not manifest.takes_texts:
        text_engine = "none needed: the localizer takes no texts"
    rows = [
        ("identity", opened.identity),
        ("exported", f"{manifest.created} by zeroflaw {manifest.zeroflaw_version}"),
        ("CLIP", models),
        ("localizer", " ".join((manifest.localizer_name, *localizer_parameters))),
        (
            "SAM",
            "none: for refiners that run without"
            if sam is None
            else f"{sam.architecture} at {sam.image_size} px, weights {sam.weights.name}",
        ),
        *(
            [
                (
                    "box proposer",
                    f"{found.weights.name} at {found.image_size} px, {found.boxes} boxes",
                )
            ]
            if (found := manifest.proposals) is not None
            else []
        ),
        ("text engine", text_engine),
        ("parameters", ", ".join(f"{k}={v}" for k, v in manifest.parameters.items())),
    ]
    if manifest.demonstration is not None:
        rows.insert(0, ("demonstration", manifest.demonstration))
    default = manifest.method_parameters.decision_threshold
    for name, product in sorted(manifest.products.items()):
        rows.append(("product", f"{name}: {threshold_text(product, default)}"))
    for engine, entry in sorted(manifest.engines.items()):
        graphs: tuple[EngineFile | GraphVariant, ...] = (entry, *entry.variants)
        for graph in graphs:
            files = [graph.onnx, *([graph.weights] if graph.weights else [])]
            size = sum(manifest.files[name].bytes for name in files)
            text = f"{graph.precision}, opset {graph.opset}, {size / 1e6:.1f} MB"
            if isinstance(graph, GraphVariant):
                text += f", for {graph.target}" + (f", recipe {graph.recipe}" * bool(graph.recipe))
            rows.append((engine, text))
    table = Table(show_header=False, box=None)
    for row in rows:
        table.add_row(*map(Text, row))
    out.print(table)
    parity = Table(
        "engine", "for", "image", "parity with the original", "value", "accepted", box=None
    )
    for figure in manifest.parity:
        parity.add_row(
            figure.engine,
            figure.target,
            figure.image,
            figure.quantity,
            f"{figure.value:.1e}",
            f"{figure.tolerance:.0e}",
        )
    out.print(parity)


def _verdict(
    bundle: str, opened: Bundle | None = None, *, problem: dict[str, str] | None = None
) -> dict[str, object]:
    """Return what `verify --json` prints; docs/inspection.md describes it."""
    manifest = None if opened is None else opened.manifest
    return {
        "bundle": encodable(bundle),
        "ok": problem is None,
        "schema_version": None if manifest is None else manifest.schema_version,
        "identity": None if opened is None else opened.identity,
        "files": None if manifest is None else manifest.files,
        "problems": [] if problem is None else [problem],
    }
