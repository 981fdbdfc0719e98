"""Other ways to do the job, or a part of it, on the same image in the same run.

An engine on a GPU is held against peers on that GPU, one on the CPU against peers there: a ratio
across devices says nothing of either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from zeroflaw_benchmarks.bench.measure.cpu_peers import CPU_PEERS, cpu_peer_rows
from zeroflaw_benchmarks.bench.measure.gpu_peers import GPU_PEERS, gpu_peer_rows
from zeroflaw_benchmarks.bench.measure.race import PeerTask, Race
from zeroflaw_benchmarks.bench.report.peer import Peer
from zeroflaw_engines.errors import BenchmarkError

ALL: Final = "all"
PEERS: Final = (*CPU_PEERS, *GPU_PEERS)


def measure_peers(
    task: PeerTask,
    names: Iterable[str],
    rounds: int,
    directory: Path,
    report: Callable[[str], None] = lambda _: None,
) -> tuple[Peer, ...]:
    """Run zeroflaw and its peers in turn, every run in a process of its own.

    Args:
        names: Of `PEERS`; `all` takes every one for the device that runs ours.

    Returns:
        A row for each peer and part; one that could not run says why, and so does one for
        another device.

    Raises:
        BenchmarkError: There is no such peer.
    """
    on_gpu = task.run_on.on_gpu
    mine, others = (GPU_PEERS, CPU_PEERS) if on_gpu else (CPU_PEERS, GPU_PEERS)
    chosen: list[str] = []
    for name in names:
        chosen += mine if name == ALL else (name,)
    unknown = sorted(set(chosen) - set(PEERS))
    if unknown:
        raise BenchmarkError(f"there is no peer {unknown[0]!r}", f"choose from: {', '.join(PEERS)}")
    names = tuple(dict.fromkeys(chosen))
    race = Race(task, tuple(name for name in names if name in mine), rounds, directory, report)
    rows = gpu_peer_rows(race) if on_gpu else cpu_peer_rows(race)
    elsewhere = (name for name in names if name in others)
    return (*rows, *_not_compared(elsewhere, mine, on_gpu=on_gpu))


def _not_compared(
    names: Iterable[str], instead: tuple[str, ...], *, on_gpu: bool
) -> Iterator[Peer]:
    ours, theirs = ("a GPU", "the CPU") if on_gpu else ("the CPU", "a GPU")
    why_not = (
        f"it runs on {theirs} and ours on {ours}, which are not compared; choose from:"
        f" {', '.join(instead)}"
    )
    for name in names:
        yield Peer(name=name, part="inspection", weights="", why_not=why_not)
