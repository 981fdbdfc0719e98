"""Peers on the CPU: PyTorch, what others export of SAM, WinCLIP."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from msgspec.structs import replace as replaced
from PIL import Image

from zeroflaw_benchmarks.bench.measure.race import OURS, Contender, Once, Race
from zeroflaw_benchmarks.bench.process import peer_graphs as graphs
from zeroflaw_benchmarks.bench.process.cascade_run import CascadeTask
from zeroflaw_benchmarks.bench.process.child_process import RunTimes, run_child
from zeroflaw_benchmarks.bench.process.engine_run import WINCLIP, EngineTask
from zeroflaw_benchmarks.bench.process.pipeline_run import PipelineTask
from zeroflaw_benchmarks.bench.process.run_on import TORCH, RunOn
from zeroflaw_benchmarks.bench.report.peer import Peer
from zeroflaw_engines.builder.differences import cosine, largest_difference, mask_iou
from zeroflaw_engines.errors import BenchmarkError

TORCH_BF16: Final = "torch-bf16"
SAM_ENCODER: Final = "sam-encoder"
SAM_ONNX: Final = "sam-onnx"
SAMEXPORTER: Final = "samexporter"
CPU_PEERS: Final = (TORCH, TORCH_BF16, SAM_ENCODER, SAM_ONNX, SAMEXPORTER, WINCLIP)

_ENGINE_RUNS: Final = 3
_THEIR_WEIGHTS: Final = "random, its own architecture"
_PRECISIONS: Final = {TORCH: "fp32", TORCH_BF16: "bf16"}
_INSTALL: Final = {
    SAMEXPORTER: "not installed; its wheel pins other versions of torch, onnx and OpenCV than"
    " ours, so: pip install --no-deps samexporter",
    "anomalib": "not installed: pip install anomalib",
}


def cpu_peer_rows(race: Race) -> Iterator[Peer]:
    """Run the peers of this module, part by part."""
    for part in (_inspections, _cascades, _encoders, _clips):
        yield from part(race)


def _inspections(race: Race) -> Iterator[Peer]:
    task, part = race.task, "inspection"

    def once(name: str, run_on: RunOn) -> Once:
        mask = race.file(f"{part}_{name}")
        run = PipelineTask(task.bundle, run_on, task.product, task.frame, mask)
        return lambda: run_child("process.pipeline_run", run, RunTimes)

    peers = {}
    for name, precision in _PRECISIONS.items():
        if name in race.names:
            label = f"PyTorch {version_of('torch')} {precision}: open_clip, SamPredictor"
            row = Peer(name=label, part="inspection", weights=race.weights)
            peers[name] = Contender(row, once(name, _torch(race, name)))
    yield from race.rows(
        part,
        once(OURS, task.run_on),
        peers,
        lambda theirs, ours: f"mask IoU {mask_iou(ours, theirs):.4f}",
    )


def _cascades(race: Race) -> Iterator[Peer]:
    task, part = race.task, "cascade"
    official = (graphs.OFFICIAL_DECODER, graphs.OFFICIAL_DECODER_LOW_RES)
    labels: dict[str, str] = {}
    failures: dict[str, str] = {}
    if SAM_ONNX in race.names:
        labels |= zip(
            official,
            ("SamOnnxModel, official export", "official export without its mask upscaling"),
            strict=True,
        )
        failures |= dict.fromkeys(official, _exported(race, *official))
    if SAMEXPORTER in race.names:
        graph = graphs.SAMEXPORTER_DECODER
        labels[graph] = f"samexporter {version_of(SAMEXPORTER)} decoder"
        failures[graph] = _missing(SAMEXPORTER) or _exported(race, graph)
    if not labels:
        return
    with Image.open(task.frame) as image:
        size = (image.height, image.width)

    def once(graph: str) -> Once:
        run = CascadeTask(
            bundle=task.bundle,
            run_on=task.run_on,
            graph=_graph(race, graph) if graph else "",
            frame=size,
            runs=task.cascades,
            logits=race.file(f"{part}_{graph or OURS}"),
        )
        return lambda: run_child("process.cascade_run", run, RunTimes)

    peers = {
        graph: Contender(
            Peer(name=label, part="cascade", weights=race.weights), once(graph), failures[graph]
        )
        for graph, label in labels.items()
    }
    yield from race.rows(
        part,
        once(""),
        peers,
        lambda theirs, ours: (
            f"logits differ by {largest_difference(theirs, ours, 'logits'):.1e} at most"
        ),
    )


def _encoders(race: Race) -> Iterator[Peer]:
    task, part = race.task, "sam_encoder"
    ours = EngineTask(
        bundle=task.bundle,
        run_on=task.run_on,
        engine="sam_encoder",
        peer="",
        frame=task.frame,
        runs=_ENGINE_RUNS,
        features=race.file(f"{part}_{OURS}"),
    )
    row = Peer(name="", part="sam_encoder", weights=race.weights)
    peers: dict[str, Contender] = {}

    def add(name: str, label: str, why_not: str = "", **changes: Any) -> None:  # noqa: ANN401
        run = replace(ours, features=race.file(f"{part}_{name}"), **changes)
        peers[name] = Contender(replaced(row, name=label), _engine(run), why_not)

    if SAM_ENCODER in race.names:
        for name, precision in _PRECISIONS.items():
            label = f"PyTorch {version_of('torch')} {precision}: encoder, eager"
            add(name, label, run_on=_torch(race, name))
        graph = graphs.PLAIN_ENCODER
        why_not = _exported(race, graph)
        add(graph, "plain export, defaults of our backend", why_not, peer=_graph(race, graph))
    if SAMEXPORTER in race.names:
        graph = graphs.SAMEXPORTER_ENCODER
        why_not = _missing(SAMEXPORTER) or _exported(race, graph)
        run_on = RunOn(threads=task.run_on.threads)
        label = f"samexporter {version_of(SAMEXPORTER)} encoder"
        add(graph, label, why_not, run_on=run_on, peer=_graph(race, graph))
    yield from race.rows(part, _engine(ours), peers, _features_agree)


def _features_agree(theirs: Any, ours: Any) -> str:  # noqa: ANN401 - arrays
    return f"cosine of features {cosine(ours, theirs, 'features'):.6f}"


def _clips(race: Race) -> Iterator[Peer]:
    if WINCLIP not in race.names:
        return
    row = Peer(
        name=f"anomalib {version_of('anomalib')} WinCLIP, ViT-B/16+ at 240 px",
        part="clip",
        weights=_THEIR_WEIGHTS,
        agreement="another network: times alone",
    )
    task = race.task
    ours = EngineTask(task.bundle, task.run_on, "clip_encoder", "", task.frame, _ENGINE_RUNS)
    theirs = Contender(row, _engine(replace(ours, peer=WINCLIP)), _missing("anomalib"))
    yield from race.rows("clip", _engine(ours), {WINCLIP: theirs}, lambda *_: "")


def _torch(race: Race, name: str) -> RunOn:
    """Run on PyTorch in the precision of a peer."""
    return RunOn(TORCH, _PRECISIONS[name], race.task.run_on.threads)


def _graph(race: Race, name: str) -> str:
    """Where a peer's graph lies."""
    return str(race.directory / name)


def _exported(race: Race, *wanted: str) -> str:
    """Export graphs of one peer; why they could not be, if they could not."""
    race.report(f"exporting {', '.join(wanted)}")
    try:
        export = graphs.GraphsTask(race.task.bundle, str(race.directory), wanted)
        run_child("process.peer_graphs", export, str)
    except BenchmarkError as error:
        return error.cause
    return ""


def _engine(run: EngineTask) -> Once:
    return lambda: run_child("process.engine_run", run, RunTimes)


def _missing(module: str) -> str:
    return "" if importlib.util.find_spec(module) is not None else _INSTALL[module]


def version_of(name: str) -> str:
    """Return the version of an installed package; empty if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
