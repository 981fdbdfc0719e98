"""Other ways to do the job, or a part of it, on the same image in the same run."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from msgspec.structs import replace as replaced
from PIL import Image

from zeroflaw_benchmarks.bench.machine.spread import spread, times_faster
from zeroflaw_benchmarks.bench.process import peer_graphs as graphs
from zeroflaw_benchmarks.bench.process.cascade_run import CascadeTask
from zeroflaw_benchmarks.bench.process.child_process import RunTimes, run_child
from zeroflaw_benchmarks.bench.process.engine_run import WINCLIP, EngineTask
from zeroflaw_benchmarks.bench.process.pipeline_run import PipelineTask
from zeroflaw_benchmarks.bench.process.run_on import TORCH, RunOn
from zeroflaw_benchmarks.bench.report.report import Peer
from zeroflaw_engines.builder.differences import cosine, largest_difference, mask_iou
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.errors import BenchmarkError, ComparisonError

TORCH_BF16: Final = "torch-bf16"
SAM_ENCODER: Final = "sam-encoder"
SAM_ONNX: Final = "sam-onnx"
SAMEXPORTER: Final = "samexporter"
PEERS: Final = (TORCH, TORCH_BF16, SAM_ENCODER, SAM_ONNX, SAMEXPORTER, WINCLIP)

_OURS: Final = "ours"
_CASCADES: Final = 15
_ENGINE_RUNS: Final = 3
_THEIR_WEIGHTS: Final = "random, its own architecture"
_PRECISIONS: Final = {TORCH: "fp32", TORCH_BF16: "bf16"}
_INSTALL: Final = {
    SAMEXPORTER: "not installed; its wheel pins other versions of torch, onnx and OpenCV than"
    " ours, so: pip install --no-deps samexporter",
    "anomalib": "not installed: pip install anomalib",
}


@dataclass(frozen=True)
class PeerTask:
    """What every peer is held against.

    Attributes:
        bundle: As `open_bundle` takes it.
        run_on: What runs zeroflaw; its threads are those of every peer.
        product: That the frame shows.
        frame: Path of the image file.
        cascades: Of three calls each, in each round of each decoder.
    """

    bundle: str
    run_on: RunOn
    product: str
    frame: str
    cascades: int = _CASCADES


# Runs one contender once, in a process of its own.
_Once = Callable[[], RunTimes]
# How near what a peer left in a file is to what ours left, in words.
_Agreement = Callable[[Any, Any], str]


def measure_peers(
    task: PeerTask,
    names: Iterable[str],
    rounds: int,
    directory: Path,
    report: Callable[[str], None] = lambda _: None,
) -> tuple[Peer, ...]:
    """Run zeroflaw and its peers in turn, every run in a process of its own.

    Returns:
        A row for each peer and part; one that could not run says why.

    Raises:
        BenchmarkError: There is no such peer.
    """
    chosen = tuple(dict.fromkeys(names))
    unknown = sorted(set(chosen) - set(PEERS))
    if unknown:
        raise BenchmarkError(f"there is no peer {unknown[0]!r}", f"choose from: {', '.join(PEERS)}")
    race = _Race(task, chosen, rounds, directory, report)
    parts = (_inspections, _cascades, _encoders, _clips)
    return tuple(row for part in parts for row in part(race))


@dataclass(frozen=True)
class _Contender:
    """A peer that does one part: its row, how it runs, or why it cannot."""

    row: Peer
    once: _Once
    why_not: str = ""


@dataclass
class _Race:
    task: PeerTask
    names: tuple[str, ...]
    rounds: int
    directory: Path
    report: Callable[[str], None]
    weights: str = field(init=False, default="")

    def __post_init__(self) -> None:
        if set(self.names) - {WINCLIP}:
            from zeroflaw_benchmarks.reference.reference_models import weights_note

            self.weights = weights_note(open_bundle(self.task.bundle, verify_digests=False))

    def torch(self, name: str) -> RunOn:
        """Run on PyTorch in the precision of a peer."""
        return RunOn(TORCH, _PRECISIONS[name], self.task.run_on.threads)

    def graph(self, name: str) -> str:
        """Return where a peer's graph lies."""
        return str(self.directory / name)

    def file(self, name: str) -> str:
        """Return where a contender leaves what is compared."""
        return str(self.directory / f"{Path(name).stem}.npy")

    def rows(
        self, part: str, ours: _Once, peers: dict[str, _Contender], agreement: _Agreement
    ) -> Iterator[Peer]:
        """Run ours and the peers of one part, interleaved, and fill in their rows."""
        failures = {name: peer.why_not for name, peer in peers.items() if peer.why_not}
        runs = {name: peer.once for name, peer in peers.items() if name not in failures}
        times = self._interleaved(part, {_OURS: ours, **runs}, failures) if runs else {}
        for name, peer in peers.items():
            text = ""
            if name in times and peer.row.weights.startswith("the bundle"):
                try:
                    files = (self.file(f"{part}_{who}") for who in (name, _OURS))
                    text = agreement(*map(np.load, files))
                except ComparisonError as error:
                    failures[name] = error.cause
            if name in failures:
                yield replaced(peer.row, why_not=failures[name])
                continue
            seconds, ours_seconds = (
                [median(run.seconds) for run in times[who]] for who in (name, _OURS)
            )
            memory, ours_memory = (max(r.peak_rss for r in times[who]) for who in (name, _OURS))
            yield replaced(
                peer.row,
                seconds=spread(seconds),
                ours=spread(ours_seconds),
                times_faster=times_faster(seconds, ours_seconds),
                agreement=text or peer.row.agreement,
                peak_rss_gb=memory / 1e9,
                ours_peak_rss_gb=ours_memory / 1e9,
            )

    def _interleaved(
        self, part: str, runs: dict[str, _Once], failures: dict[str, str]
    ) -> dict[str, list[RunTimes]]:
        """Times of each round; why a peer failed goes into the failures. Ours must not fail."""
        times: dict[str, list[RunTimes]] = {name: [] for name in runs}
        for turn in range(self.rounds):
            for name, once in runs.items():
                if name in failures:
                    continue
                self.report(f"peers, round {turn + 1} of {self.rounds}: {part}, {name}")
                try:
                    times[name].append(once())
                except BenchmarkError as error:
                    if name == _OURS:
                        raise
                    failures[name] = error.cause
                    times.pop(name)
        return times

    def exported(self, *wanted: str) -> str:
        """Export graphs of one peer; why they could not be, if they could not."""
        self.report(f"exporting {', '.join(wanted)}")
        try:
            export = graphs.GraphsTask(self.task.bundle, str(self.directory), wanted)
            run_child("process.peer_graphs", export, str)
        except BenchmarkError as error:
            return error.cause
        return ""


def _inspections(race: _Race) -> Iterator[Peer]:
    task, part = race.task, "inspection"

    def once(name: str, run_on: RunOn) -> _Once:
        mask = race.file(f"{part}_{name}")
        run = PipelineTask(task.bundle, run_on, task.product, task.frame, mask)
        return lambda: run_child("process.pipeline_run", run, RunTimes)

    peers = {}
    for name, precision in _PRECISIONS.items():
        if name in race.names:
            label = f"PyTorch {_version('torch')} {precision}: open_clip, SamPredictor"
            row = Peer(name=label, part="inspection", weights=race.weights)
            peers[name] = _Contender(row, once(name, race.torch(name)))
    yield from race.rows(
        part,
        once(_OURS, task.run_on),
        peers,
        lambda theirs, ours: f"mask IoU {mask_iou(ours, theirs):.4f}",
    )


def _cascades(race: _Race) -> Iterator[Peer]:
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
        failures |= dict.fromkeys(official, race.exported(*official))
    if SAMEXPORTER in race.names:
        graph = graphs.SAMEXPORTER_DECODER
        labels[graph] = f"samexporter {_version(SAMEXPORTER)} decoder"
        failures[graph] = _missing(SAMEXPORTER) or race.exported(graph)
    if not labels:
        return
    with Image.open(task.frame) as image:
        size = (image.height, image.width)

    def once(graph: str) -> _Once:
        run = CascadeTask(
            bundle=task.bundle,
            run_on=task.run_on,
            graph=race.graph(graph) if graph else "",
            frame=size,
            runs=task.cascades,
            logits=race.file(f"{part}_{graph or _OURS}"),
        )
        return lambda: run_child("process.cascade_run", run, RunTimes)

    peers = {
        graph: _Contender(
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


def _encoders(race: _Race) -> Iterator[Peer]:
    task, part = race.task, "sam_encoder"
    ours = EngineTask(
        bundle=task.bundle,
        run_on=task.run_on,
        engine="sam_encoder",
        peer="",
        frame=task.frame,
        runs=_ENGINE_RUNS,
        features=race.file(f"{part}_{_OURS}"),
    )
    row = Peer(name="", part="sam_encoder", weights=race.weights)
    peers: dict[str, _Contender] = {}

    def add(name: str, label: str, why_not: str = "", **changes: Any) -> None:  # noqa: ANN401
        run = replace(ours, features=race.file(f"{part}_{name}"), **changes)
        peers[name] = _Contender(replaced(row, name=label), _engine(run), why_not)

    if SAM_ENCODER in race.names:
        for name, precision in _PRECISIONS.items():
            label = f"PyTorch {_version('torch')} {precision}: encoder, eager"
            add(name, label, run_on=race.torch(name))
        graph = graphs.PLAIN_ENCODER
        why_not = race.exported(graph)
        add(graph, "plain export, defaults of our backend", why_not, peer=race.graph(graph))
    if SAMEXPORTER in race.names:
        graph = graphs.SAMEXPORTER_ENCODER
        why_not = _missing(SAMEXPORTER) or race.exported(graph)
        run_on = RunOn(threads=task.run_on.threads)
        label = f"samexporter {_version(SAMEXPORTER)} encoder"
        add(graph, label, why_not, run_on=run_on, peer=race.graph(graph))
    yield from race.rows(part, _engine(ours), peers, _features_agree)


def _features_agree(theirs: Any, ours: Any) -> str:  # noqa: ANN401 - arrays
    return f"cosine of features {cosine(ours, theirs, 'features'):.6f}"


def _clips(race: _Race) -> Iterator[Peer]:
    if WINCLIP not in race.names:
        return
    row = Peer(
        name=f"anomalib {_version('anomalib')} WinCLIP, ViT-B/16+ at 240 px",
        part="clip",
        weights=_THEIR_WEIGHTS,
        agreement="another network: times alone",
    )
    task = race.task
    ours = EngineTask(task.bundle, task.run_on, "clip_encoder", "", task.frame, _ENGINE_RUNS)
    theirs = _Contender(row, _engine(replace(ours, peer=WINCLIP)), _missing("anomalib"))
    yield from race.rows("clip", _engine(ours), {WINCLIP: theirs}, lambda *_: "")


def _engine(run: EngineTask) -> _Once:
    return lambda: run_child("process.engine_run", run, RunTimes)


def _missing(module: str) -> str:
    return "" if importlib.util.find_spec(module) is not None else _INSTALL[module]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
