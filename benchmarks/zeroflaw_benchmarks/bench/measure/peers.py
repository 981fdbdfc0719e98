"""Other ways to do the job, or a part of it, on the same image in the same run."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec
import numpy as np
from PIL import Image

from zeroflaw_benchmarks.bench.machine.spread import spread, times_faster
from zeroflaw_benchmarks.bench.process import peer_graphs as graphs
from zeroflaw_benchmarks.bench.process.cascade_run import CascadeTask
from zeroflaw_benchmarks.bench.process.child_process import run_child
from zeroflaw_benchmarks.bench.process.engine_run import EngineTask
from zeroflaw_benchmarks.bench.process.pipeline_run import PipelineRun, PipelineTimes
from zeroflaw_benchmarks.bench.report.report import Peer
from zeroflaw_engines.builder.differences import largest_difference, mask_iou
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.errors import BenchmarkError, ComparisonError

TORCH: Final = "torch"
TORCH_BF16: Final = "torch-bf16"
SAM_ONNX: Final = "sam-onnx"
SAMEXPORTER: Final = "samexporter"
WINCLIP: Final = "winclip"
PEERS: Final = (TORCH, TORCH_BF16, SAM_ONNX, SAMEXPORTER, WINCLIP)

_CASCADES: Final = 15
_ENGINE_RUNS: Final = 3
_THEIR_WEIGHTS: Final = "random, its own architecture"


@dataclass(frozen=True)
class PeerTask:
    """What every peer is held against.

    Attributes:
        bundle: As `open_bundle` takes it.
        way: Backend, a colon and the precision, of zeroflaw.
        product: That the frame shows.
        threads: Of every way; 0 takes every core.
        frame: Its file.
        cascades: Of three calls each, in each round of each decoder.
    """

    bundle: str
    way: str
    product: str
    threads: int
    frame: str
    cascades: int = _CASCADES


# Runs one way once, in a process of its own: seconds.
_Once = Callable[[], float]


def measure_peers(
    task: PeerTask,
    names: Iterable[str],
    rounds: int,
    directory: Path,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Peer, ...]:
    """Runs zeroflaw and its peers in turn, every run in a process of its own.

    Args:
        task: What they are held against.
        names: Of `PEERS`.
        rounds: How often each way runs.
        directory: For graphs and masks.
        tell: Is told what is being measured.

    Returns:
        A row for each peer and part; one that could not run says why.

    Raises:
        BenchmarkError: There is no such peer.
    """
    chosen = list(dict.fromkeys(names))
    unknown = sorted(set(chosen) - set(PEERS))
    if unknown:
        raise BenchmarkError(f"there is no peer {unknown[0]!r}", f"choose from: {', '.join(PEERS)}")
    rows: list[Peer] = []
    parts = (_inspections, _cascades, _encoders, _clips)
    for part in parts:
        rows += part(task, chosen, rounds, directory, tell)
    return tuple(rows)


def _inspections(
    task: PeerTask, names: list[str], rounds: int, directory: Path, tell: Callable[[str], None]
) -> Iterator[Peer]:
    references = {TORCH: "torch:fp32", TORCH_BF16: "torch:bf16"}
    wanted = {name: way for name, way in references.items() if name in names}
    if not wanted:
        return
    weights = _weights(task)

    def once(way: str) -> _Once:
        mask = str(directory / f"{way.replace(':', '_')}.npy")
        run = PipelineRun(
            task.bundle, way, task.product, task.frame, threads=task.threads, mask=mask
        )
        return lambda: run_child("bench.process.pipeline_run", run, PipelineTimes).seconds[0]

    ways = {"ours": once(task.way), **{name: once(way) for name, way in wanted.items()}}
    seconds, failures = _interleaved(ways, rounds, tell)
    for name, way in wanted.items():
        label = f"PyTorch {_version('torch')} {way.partition(':')[2]}: open_clip, SamPredictor"
        row = Peer(name=label, part="inspection", weights=weights)
        agreement = ""
        if name in seconds and weights.startswith("the bundle"):
            masks = [np.load(directory / f"{w.replace(':', '_')}.npy") for w in (task.way, way)]
            try:
                agreement = f"mask IoU {mask_iou(*masks):.4f}"
            except ComparisonError as error:
                failures[name] = error.cause
        yield _row(row, name, seconds, failures, agreement)


def _cascades(
    task: PeerTask, names: list[str], rounds: int, directory: Path, tell: Callable[[str], None]
) -> Iterator[Peer]:
    labels: dict[str, tuple[str, str]] = {}
    if SAM_ONNX in names:
        labels |= {
            graphs.OFFICIAL_DECODER: ("SamOnnxModel, official export", ""),
            graphs.OFFICIAL_DECODER_LOW_RES: (
                "official export without its mask upscaling",
                "",
            ),
        }
    if SAMEXPORTER in names:
        labels[graphs.SAMEXPORTER_DECODER] = (
            f"samexporter {_version('samexporter')} decoder",
            _missing("samexporter"),
        )
    if not labels:
        return
    ready = tuple(name for name, (_, missing) in labels.items() if not missing)
    failures = {name: missing for name, (_, missing) in labels.items() if missing}
    failures |= _exported(task, ready, directory, tell)
    with Image.open(task.frame) as image:
        size = (image.height, image.width)

    def once(graph: str) -> _Once:
        run = CascadeTask(
            bundle=task.bundle,
            way=task.way,
            graph=str(directory / graph) if graph else "",
            frame=size,
            runs=task.cascades,
            threads=task.threads,
            logits=str(directory / f"{Path(graph).stem or 'ours'}.npy"),
        )
        return lambda: median(run_child("bench.process.cascade_run", run, list[float]))

    ways = {"ours": once(""), **{n: once(n) for n in ready if n not in failures}}
    seconds, more = _interleaved(ways, rounds, tell)
    weights = _weights(task)
    for name, (label, _) in labels.items():
        agreement = ""
        if name in seconds and weights.startswith("the bundle"):
            ours, theirs = (np.load(directory / f"{n}.npy") for n in ("ours", Path(name).stem))
            try:
                apart = largest_difference(theirs, ours, label)
                agreement = f"logits differ by {apart:.1e} at most"
            except ComparisonError as error:
                failures[name] = error.cause
        row = Peer(name=label, part="cascade", weights=weights)
        yield _row(row, name, seconds, failures | more, agreement)


def _encoders(
    task: PeerTask, names: list[str], rounds: int, directory: Path, tell: Callable[[str], None]
) -> Iterator[Peer]:
    if SAMEXPORTER not in names:
        return
    row = Peer(
        name=f"samexporter {_version('samexporter')} encoder",
        part="sam_encoder",
        weights=_weights(task),
    )
    graph = graphs.SAMEXPORTER_ENCODER
    missing = _missing("samexporter")
    failures = {graph: missing} if missing else _exported(task, (graph,), directory, tell)
    if failures:
        yield _not_run(row, failures[graph])
        return
    ours = EngineTask(
        task.bundle, task.way, "sam_encoder", "", task.frame, _ENGINE_RUNS, task.threads
    )
    theirs = replace(ours, peer=str(directory / graph))
    ways = {"ours": _engine(ours), graph: _engine(theirs)}
    seconds, failures = _interleaved(ways, rounds, tell)
    yield _row(row, graph, seconds, failures, "")


def _clips(
    task: PeerTask, names: list[str], rounds: int, _: Path, tell: Callable[[str], None]
) -> Iterator[Peer]:
    if WINCLIP not in names:
        return
    row = Peer(
        name=f"anomalib {_version('anomalib')} WinCLIP, ViT-B/16+ at 240 px",
        part="clip",
        weights=_THEIR_WEIGHTS,
    )
    if missing := _missing("anomalib"):
        yield _not_run(row, missing)
        return
    ours = EngineTask(
        task.bundle, task.way, "clip_encoder", "", task.frame, _ENGINE_RUNS, task.threads
    )
    ways = {"ours": _engine(ours), WINCLIP: _engine(replace(ours, peer=WINCLIP))}
    seconds, failures = _interleaved(ways, rounds, tell)
    yield _row(row, WINCLIP, seconds, failures, "another network: times alone")


def _engine(run: EngineTask) -> _Once:
    return lambda: median(run_child("bench.process.engine_run", run, list[float]))


def _interleaved(
    ways: dict[str, _Once], rounds: int, tell: Callable[[str], None]
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Seconds of each way and round, and why a way failed; ours must not fail."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    failures: dict[str, str] = {}
    for turn in range(rounds):
        for name, once in ways.items():
            if name in failures:
                continue
            tell(f"peers, round {turn + 1} of {rounds}: {name}")
            try:
                seconds[name].append(once())
            except BenchmarkError as error:
                if name == "ours":
                    raise
                failures[name] = error.cause
                seconds.pop(name)
    return seconds, failures


def _exported(
    task: PeerTask, wanted: tuple[str, ...], directory: Path, tell: Callable[[str], None]
) -> dict[str, str]:
    """Exports graphs of the peers, those of one peer together; why one could not be."""
    failures: dict[str, str] = {}
    official = (graphs.OFFICIAL_DECODER, graphs.OFFICIAL_DECODER_LOW_RES)
    others = tuple((name,) for name in wanted if name not in official)
    for together in (tuple(name for name in wanted if name in official), *others):
        if together:
            tell(f"exporting {', '.join(together)}")
            try:
                export = graphs.GraphsTask(task.bundle, str(directory), together)
                run_child("bench.process.peer_graphs", export, str)
            except BenchmarkError as error:
                failures |= dict.fromkeys(together, error.cause)
    return failures


def _row(
    row: Peer,
    name: str,
    seconds: dict[str, list[float]],
    failures: dict[str, str],
    agreement: str,
) -> Peer:
    if name in failures:
        return _not_run(row, failures[name])
    ours, theirs = seconds["ours"], seconds[name]
    return _replaced(
        row,
        seconds=spread(theirs),
        ours=spread(ours),
        times_faster=times_faster(theirs, ours),
        agreement=agreement,
    )


def _not_run(row: Peer, why: str) -> Peer:
    """The row of a peer that did not run."""
    return _replaced(row, why_not=why)


def _replaced(row: Peer, **changes: Any) -> Peer:  # noqa: ANN401 - fields of Peer
    return msgspec.structs.replace(row, **changes)


def _weights(task: PeerTask) -> str:
    from zeroflaw_benchmarks.reference.bundle_originals import weights_note

    return weights_note(open_bundle(task.bundle, verify_digests=False))


def _missing(module: str) -> str:
    if importlib.util.find_spec(module) is not None:
        return ""
    return _INSTALL[module]


_INSTALL: Final = {
    "samexporter": "not installed; its wheel pins other versions of torch, onnx and OpenCV than"
    " ours, so: pip install --no-deps samexporter",
    "anomalib": "not installed: pip install anomalib",
}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
