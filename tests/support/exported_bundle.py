"""Bundles of random weights: what to export, and what an export by the command line cost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from support.command_line import ZEROFLAW, Cost, run_measured
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.bundle.manifest import parameters_record, schema_version
from zeroflaw_engines.bundle.writer import write_manifest
from zeroflaw_engines.contract import BOX_PROPOSER
from zeroflaw_engines.parameters import MethodParameters

if TYPE_CHECKING:
    from zeroflaw_export.export import ExportJob

# Of the random weights of every bundle that the command line exports here.
SEED = 3
# Of those of the fixture `tiny_bundle`.
TINY_SEED = 7


@dataclass(frozen=True)
class Exported:
    """A bundle, and what its export cost."""

    path: Path
    cost: Cost


def export(path: Path, clip: str, sam: str, *options: str) -> Exported:
    cost = run_measured(
        ZEROFLAW, "export", path, "--clip", clip, "--sam", sam, "--random-weights", SEED, *options
    )
    return Exported(path, cost)


def tiny_job(*products: str) -> ExportJob:
    """Tiny CLIP and SAM of random weights; torch is imported here and not with the module."""
    from zeroflaw_export.export import ExportJob, WeightsSource

    source = WeightsSource(name="random", path=None, seed=TINY_SEED)
    return ExportJob(
        clip_architecture="tiny",
        sam_architecture="tiny",
        clip_weights=source,
        localizer_weights=source,
        sam_weights=source,
        products=products,
        bank_bytes=2**20,
    )


def add_proposer(bundle: Path, graph: Path, **parameters: object) -> None:
    """Makes a bundle one that was exported with a proposal graph, which takes long.

    The export package is imported here and not with the module.
    """
    from zeroflaw_export.graphs.box_proposer import adopt_box_proposer

    opened = open_bundle(bundle)
    adopted = adopt_box_proposer(graph, bundle)
    manifest = opened.manifest
    recorded = MethodParameters(refiner="box_proposals", **parameters)
    write_manifest(
        bundle,
        msgspec.structs.replace(
            manifest,
            schema_version=schema_version(manifest.max_batch, parameters=recorded),
            engines={**manifest.engines, BOX_PROPOSER: adopted.engine},
            proposals=adopted.identity,
            parameters=parameters_record(recorded),
        ),
    )
