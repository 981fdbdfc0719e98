"""Peers on the GPU that runs our engines: PyTorch eager, compiled and as a CUDA graph."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from zeroflaw_benchmarks.bench.measure.cpu_peers import version_of
from zeroflaw_benchmarks.bench.measure.race import OURS, Contender, Once, Race
from zeroflaw_benchmarks.bench.process.child_process import RunTimes, run_child
from zeroflaw_benchmarks.bench.process.device_run import COMPARED
from zeroflaw_benchmarks.bench.process.pipeline_run import PipelineTask
from zeroflaw_benchmarks.bench.process.run_on import TORCH, RunOn, TorchMode
from zeroflaw_benchmarks.bench.process.session_run import SessionTask
from zeroflaw_benchmarks.bench.report.peer import Peer, PeerPart
from zeroflaw_engines.builder.differences import cosine, mask_iou

_MODES: Final[tuple[TorchMode, ...]] = ("eager", "compile", "reduce-overhead", "cuda-graph")
_PRECISIONS: Final = ("fp16", "bf16")
_Engine = Literal["clip_encoder", "sam_encoder", "sam_decoder"]
_ENGINES: Final[tuple[_Engine, ...]] = ("clip_encoder", "sam_encoder", "sam_decoder")
_MODULES: Final = ("torch", "open_clip", "segment_anything")


@dataclass(frozen=True)
class TorchPeer:
    """A way to run PyTorch.

    Attributes:
        mode: As `prepared` takes it.
        precision: Of the networks.
    """

    mode: TorchMode
    precision: str


TORCH_PEERS: Final = {
    f"torch-{mode}-{precision}": TorchPeer(mode, precision)
    for mode in _MODES
    for precision in _PRECISIONS
}
GPU_PEERS: Final = tuple(TORCH_PEERS)


def gpu_peer_rows(race: Race) -> Iterator[Peer]:
    """Run the peers of this module: whole inspections, then each engine alone."""
    if not race.names:
        return
    missing = [name for name in _MODULES if importlib.util.find_spec(name) is None]
    why_not = f"{', '.join(missing)} is not installed: pip install 'zeroflaw[export]'"
    yield from _inspections(race, why_not if missing else "")
    for engine in _ENGINES:
        yield from _engine(race, engine, why_not if missing else "")


def _inspections(race: Race, why_not: str) -> Iterator[Peer]:
    task, part = race.task, "inspection"

    def once(name: str, run_on: RunOn, mode: TorchMode = "eager") -> Once:
        run = PipelineTask(
            bundle=task.bundle,
            run_on=run_on,
            product=task.product,
            frame=task.frame,
            mask=race.file(f"{part}_{name}"),
            runs=task.runs,
            warm_ups=task.warm_ups,
            torch_device=_device(race),
            torch_mode=mode,
        )
        return lambda: run_child("process.pipeline_run", run, RunTimes)

    peers = {
        name: Contender(
            _row(race, name, "inspection", why_not),
            once(name, RunOn(TORCH, peer.precision, task.run_on.threads), peer.mode),
            why_not,
        )
        for name, peer in _chosen(race)
    }
    yield from race.rows(part, once(OURS, task.run_on), peers, _masks_agree)


def _engine(race: Race, engine: _Engine, why_not: str) -> Iterator[Peer]:
    task = race.task
    ours = SessionTask(
        bundle=task.bundle,
        run_on=task.run_on,
        engine=engine,
        product=task.product,
        frame=task.frame,
        runs=task.runs,
        warm_ups=task.warm_ups,
        output=race.file(f"{engine}_{OURS}"),
    )

    def once(name: str, peer: TorchPeer) -> Once:
        # As a plain record: its module needs PyTorch, which this process may lack.
        run = {
            "bundle": task.bundle,
            "engine": engine,
            "product": task.product,
            "frame": task.frame,
            "device": _device(race),
            "mode": peer.mode,
            "precision": peer.precision,
            "runs": task.runs,
            "warm_ups": task.warm_ups,
            "output": race.file(f"{engine}_{name}"),
            "threads": task.run_on.threads,
        }
        return lambda: run_child("process.torch_run", run, RunTimes)

    peers = {
        name: Contender(_row(race, name, engine, why_not), once(name, peer), why_not)
        for name, peer in _chosen(race)
    }

    def agreement(theirs: Any, ours: Any) -> str:  # noqa: ANN401 - arrays
        compared = COMPARED[engine]
        return f"cosine of {compared} {cosine(ours, theirs, compared):.6f}"

    yield from race.rows(
        engine, lambda: run_child("process.session_run", ours, RunTimes), peers, agreement
    )


def _chosen(race: Race) -> Iterator[tuple[str, TorchPeer]]:
    return ((name, TORCH_PEERS[name]) for name in race.names)


def _row(race: Race, name: str, part: PeerPart, why_not: str) -> Peer:
    label = f"{name}, PyTorch {version_of('torch')}"
    weights = "" if why_not else race.weights
    return Peer(name=label, part=part, weights=weights, device=_device(race))


def _device(race: Race) -> str:
    return race.task.torch_device or f"cuda:{race.task.run_on.device}"


def _masks_agree(theirs: Any, ours: Any) -> str:  # noqa: ANN401 - arrays
    return f"mask IoU {mask_iou(ours, theirs):.4f}"
