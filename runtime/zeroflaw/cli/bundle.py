"""`zeroflaw bundle`: look into a bundle and verify it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from zeroflaw.cli.terminal import open_and_announce, out

bundle_app = typer.Typer(help="Look into a bundle and verify it.", no_args_is_help=True)

BundlePath = Annotated[Path, typer.Argument(help="Directory that `zeroflaw export` wrote.")]


@bundle_app.command()
def verify(bundle: BundlePath) -> None:
    """Check the schema, every file, its size and its SHA-256."""
    opened = open_and_announce(bundle)
    manifest = opened.manifest
    total = sum(entry.bytes for entry in manifest.files.values())
    out.print(
        f"{bundle} is whole: schema version {manifest.schema_version},"
        f" {len(manifest.files)} files, {total / 1e6:.1f} MB, identity {opened.identity[:12]}"
    )


@bundle_app.command()
def info(
    bundle: BundlePath,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Say what is in a bundle: models, products, parameters, parity of the export."""
    opened = open_and_announce(bundle, verify_digests=False)
    manifest = opened.manifest
    if as_json:
        typer.echo(msgspec.json.encode(manifest))
        return
    clip, sam = manifest.clip, manifest.sam
    models = (
        f"{clip.architecture} at {clip.image_size} px, {clip.activation}, "
        f"blocks {', '.join(map(str, clip.tapped_blocks))}, "
        f"weights {clip.weights.name}, adapters {clip.adapters.name}"
    )
    rows = [
        ("identity", opened.identity),
        ("exported", f"{manifest.created} by zeroflaw {manifest.zeroflaw_version}"),
        ("CLIP", models),
        ("SAM", f"{sam.architecture} at {sam.image_size} px, weights {sam.weights.name}"),
        ("text engine", "yes" if manifest.text else "no"),
        ("products", ", ".join(sorted(manifest.products))),
        ("parameters", ", ".join(f"{k}={v}" for k, v in manifest.parameters.items())),
    ]
    for engine, entry in sorted(manifest.engines.items()):
        files = [entry.onnx, *([entry.weights] if entry.weights else [])]
        size = sum(manifest.files[name].bytes for name in files)
        rows.append((engine, f"{entry.precision}, opset {entry.opset}, {size / 1e6:.1f} MB"))
    table = Table(show_header=False, box=None)
    for row in rows:
        table.add_row(*row)
    out.print(table)
    parity = Table("engine", "image", "parity with PyTorch", "value", "accepted", box=None)
    for figure in manifest.parity:
        parity.add_row(
            figure.engine,
            figure.image,
            figure.quantity,
            f"{figure.value:.1e}",
            f"{figure.tolerance:.0e}",
        )
    out.print(parity)
