"""`zeroflaw engines`: the built engines of a bundle, and why one may not be used."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from zeroflaw.cli.build import proofs
from zeroflaw.cli.json_lines import json_option, print_json
from zeroflaw.cli.options import BundleArgument, open_and_announce
from zeroflaw_engines.built_engines.lookup import EngineStatus, engine_statuses
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.process.terminal import out

EXIT_NOT_USABLE = 1

engines_app = typer.Typer(
    help="The built engines of a bundle, and why one may not be used.", no_args_is_help=True
)


@engines_app.command(name="list")
def list_engines(
    bundle: BundleArgument,
    *,
    as_json: Annotated[bool, json_option("Print every sidecar as JSON.")] = False,
) -> None:
    """List the built engines: size, kernels compiled by stations, key, status, census.

    Files of the cache are verified, and keys compared with this bundle and the backends that are
    installed here; nothing is built.
    """
    opened = open_and_announce(bundle, verify_digests=False)
    statuses = engine_statuses(opened)
    if as_json:
        print_json([one.sidecar for one in statuses if one.sidecar])
        return
    if not statuses:
        out.print(_none_built(opened), markup=False)
        return
    table = Table("engine", "backend", "target", "MB", "kernels MB", "key", "status", box=None)
    for one in statuses:
        sidecar = one.sidecar
        cache = one.paths.runtime_cache
        kernels = f"{cache.stat().st_size / 1e6:.1f}" if cache.exists() else ""
        row = (
            one.paths.engine,
            f"{sidecar.parts.backend} {sidecar.parts.backend_version}" if sidecar else "?",
            one.paths.directory.name,
            f"{sidecar.engine_bytes / 1e6:.1f}" if sidecar else "?",
            kernels,
            sidecar.key[:12] if sidecar else "?",
            one.status,
        )
        table.add_row(*map(Text, row))
    out.print(table)
    for one in statuses:
        if one.sidecar:
            out.print(proofs(one.sidecar), markup=False)


@engines_app.command()
def explain(bundle: BundleArgument) -> None:
    """Say why an engine is stale or damaged: which part of its key differs, old and new.

    Exit code 1 if any engine may not be used.
    """
    opened = open_and_announce(bundle)
    statuses = engine_statuses(opened)
    if not statuses:
        out.print(_none_built(opened), markup=False)
        return
    for one in statuses:
        out.print(f"{one.paths.plan}: {one.status}", markup=False)
        for text in _reasons(one):
            out.print(f"  {text}", markup=False)
    if any(one.status != "up to date" for one in statuses):
        raise typer.Exit(EXIT_NOT_USABLE)


def _reasons(status: EngineStatus) -> list[str]:
    if status.differences:
        return [str(difference) for difference in status.differences]
    return [status.reason] if status.reason else []


def _none_built(opened: Bundle) -> str:
    return f"{opened.path} has no built engines; `zeroflaw build {opened.path}` makes some"
