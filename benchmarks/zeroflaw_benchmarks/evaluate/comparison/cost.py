"""What each method costs on this machine: milliseconds, multiply-accumulates, bytes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from zeroflaw import Inspector
from zeroflaw.sessions import Sessions, load_sessions
from zeroflaw_benchmarks.bench.machine.graph_macs import graph_cost
from zeroflaw_benchmarks.evaluate.job import EvaluationJob, Progress
from zeroflaw_benchmarks.evaluate.passes.reference_pass import read_bank
from zeroflaw_benchmarks.evaluate.shots.drawing import ShotBank
from zeroflaw_benchmarks.linked_bundle import linked_bundle
from zeroflaw_benchmarks.passive_session import PassiveSession
from zeroflaw_engines.backends import BACKENDS, BackendChoice, choose_backend
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.graph_entries import GraphTarget
from zeroflaw_engines.bundle.manifest import Reference, ReferencePhoto
from zeroflaw_engines.bundle.products.writer import set_reference
from zeroflaw_engines.contract import (
    CLIP_ENCODER,
    ENGINES_OF_REFINER,
    FRAME_RESIZER,
    IMAGES,
    REFERENCE_MATCHER,
    EngineName,
)
from zeroflaw_engines.image_files.frame import Frame
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, Tensor
from zeroflaw_engines.sessions.session import Outputs, Session
from zeroflaw_export.datasets import read_sample_image

_FRAMES: Final = 12

# An engine's name, and how many images or prompts one call of it takes.
Call = tuple[EngineName, int]


@dataclass(frozen=True)
class Cost:
    """What one inspection costs.

    Attributes:
        milliseconds: Median of `Inspector.inspect`.
        quartiles: The first and the third.
        runs: Inspections that were timed.
        calls: Mean calls of each engine in an inspection.
        gmac: Multiply-accumulates of these calls, 1e9; None where a graph records no shapes.
        megabytes: Graphs and weights of the engines, 1e6 bytes.
    """

    milliseconds: float
    quartiles: tuple[float, float]
    runs: int
    calls: dict[str, float]
    gmac: float | None
    megabytes: float


@dataclass(frozen=True, eq=False)
class _Timed:
    """One row that is timed: an Inspector, and one on counting engines."""

    inspector: Inspector
    counting: Inspector
    counts: Counter[Call]
    products: Mapping[str, str]


def measured_costs(
    jobs: Sequence[EvaluationJob], runs: int, progress: Progress
) -> list[dict[int, Cost]]:
    """Time inspections of the data set's frames, alone and in turns: drift hits all alike.

    Engines take every core, as a station runs them.

    Args:
        jobs: One for each method.
        runs: Inspections of each row, at least 1.

    Returns:
        For each method its costs by number of reference photos, 0 among them.

    Raises:
        EngineError: An engine cannot be loaded, or failed.
        BundleError: A copy of a bundle, for a bank, cannot be written.
    """
    with ExitStack() as opened:
        rows = [(place, shots, row) for place, job, shots, row in _loaded(jobs, opened)]
        frames = _frames(jobs[0], min(runs, _FRAMES))
        # Engines warm up here, and their calls are counted.
        for _, _, row in rows:
            for name, frame in frames:
                row.counting.inspect(frame, product=row.products[name])
        times: list[list[float]] = [[] for _ in rows]
        for run in range(runs):
            name, frame = frames[run % len(frames)]
            for turn in range(len(rows)):
                place = (run + turn) % len(rows)
                row = rows[place][2]
                begin = time.perf_counter()
                row.inspector.inspect(frame, product=row.products[name])
                times[place].append(1e3 * (time.perf_counter() - begin))
            progress("timing", run + 1, runs)
        costs: list[dict[int, Cost]] = [{} for _ in jobs]
        for (place, shots, row), found in zip(rows, times, strict=True):
            calls = {call: n / len(frames) for call, n in sorted(row.counts.items())}
            counts: dict[str, float] = {}
            for (name, _), number in calls.items():
                counts[name] = counts.get(name, 0) + number
            first, middle, third = np.quantile(found, (0.25, 0.5, 0.75))
            costs[place][shots] = Cost(
                float(middle),
                (float(first), float(third)),
                len(found),
                counts,
                gmac_of(jobs[place].bundle, calls),
                megabytes_of(jobs[place], with_bank=REFERENCE_MATCHER in counts),
            )
    return costs


def gmac_of(bundle: Bundle, calls: Mapping[Call, float]) -> float | None:
    """Return the multiply-accumulates of some calls of engines, 1e9; None if a graph hides them."""
    total = 0.0
    for (name, items), number in calls.items():
        if name == FRAME_RESIZER:
            continue
        try:
            cost = graph_cost(bundle.onnx_path(name), {"batch": items, IMAGES: items})
        except ValueError:
            return None
        total += number * cost.flops / 2e9
    return total


def megabytes_of(job: EvaluationJob, *, with_bank: bool) -> float:
    """Return the bytes of the graphs and weights that a method loads, 1e6."""
    backend = BACKENDS[job.options.backend]
    target: GraphTarget = "onnxruntime"
    if backend.name == "openvino":
        target = "openvino"
    elif backend.on_gpu and backend.precisions[0] == "fp16":
        target = "tensorrt"
    of_refiner = ENGINES_OF_REFINER[job.parameters.refiner]
    engines: list[EngineName] = [CLIP_ENCODER, *of_refiner]
    if with_bank:
        engines.append(REFERENCE_MATCHER)
    total = 0
    for engine in engines:
        graph = job.bundle.graph(engine, target)
        files = [graph.path, *([graph.weights_path] if graph.weights_path else [])]
        total += sum(file.stat().st_size for file in files)
    return total / 1e6


def _loaded(
    jobs: Sequence[EvaluationJob], opened: ExitStack
) -> Iterator[tuple[int, EvaluationJob, int, _Timed]]:
    """Load each bundle once, for all of its refiners, and make the Inspectors of every row."""
    by_bundle: dict[Path, list[int]] = {}
    for place, job in enumerate(jobs):
        by_bundle.setdefault(job.bundle.path, []).append(place)
    for places in by_bundle.values():
        some = [jobs[place] for place in places]
        bundles = {0: some[0].bundle}
        for shots in some[0].options.shots:
            bundles[shots] = opened.enter_context(_with_banks(some[0], shots))
        options = some[0].options
        # The refiner with the most engines: those of the others are among them.
        most = max(
            (job.parameters.refiner for job in some), key=lambda r: len(ENGINES_OF_REFINER[r])
        )
        largest = bundles[max(bundles)]
        choice = choose_backend(
            options.backend, bundle=largest, engines=(CLIP_ENCODER, *ENGINES_OF_REFINER[most]),
            device=options.device,
        )  # fmt: skip
        sessions = load_sessions(largest, choice, refiner=most, device=options.device)
        opened.callback(sessions.close)
        for place in places:
            for shots, bundle in bundles.items():
                yield place, jobs[place], shots, _timed(jobs[place], bundle, sessions, choice)


def _timed(job: EvaluationJob, bundle: Bundle, sessions: Sessions, choice: BackendChoice) -> _Timed:
    counts: Counter[Call] = Counter()
    counting = replace(
        sessions,
        **{
            one.name: CountingSession(session, counts)
            for one in fields(sessions)
            if (session := getattr(sessions, one.name)) is not None
        },
    )
    make = partial(Inspector, bundle, parameters=job.parameters, choice=choice)
    products = {name: job.samples_of(name)[0].product for name in job.class_names}
    return _Timed(make(sessions), make(counting), counts, products)


class CountingSession(PassiveSession):
    """An engine whose calls are counted, each with the images or prompts that it takes."""

    def __init__(self, session: Session, counts: Counter[Call]) -> None:
        super().__init__(session.contract, session.backend)
        self._session, self._counts = session, counts

    def upload(self, name: str, array: Tensor) -> Tensor | DeviceTensor:
        """Leave it to the engine."""
        return self._session.upload(name, array)

    def execute(
        self, inputs: Mapping[str, Tensor | DeviceTensor], *, keep: Collection[str] = ()
    ) -> Outputs:
        """Count the call, and run it."""
        several = [
            inputs[one.name].shape[0]
            for one in self.contract.inputs
            if isinstance(one.shape[0], str) and one.name in inputs
        ]
        self._counts[self.contract.name, several[0] if several else 1] += 1
        return self._session.execute(inputs, keep=keep)


def _frames(job: EvaluationJob, count: int) -> list[tuple[str, Frame]]:
    """Take frames spread evenly over the data set, each with its class."""
    samples = job.samples
    places = [(2 * i + 1) * len(samples) // (2 * count) for i in range(min(count, len(samples)))]
    return [(samples[at].class_name, read_sample_image(samples[at].sample)) for at in places]


@contextmanager
def _with_banks(job: EvaluationJob, shots: int) -> Iterator[Bundle]:
    """Give a copy of a bundle whose products have the banks of the first draw."""
    with TemporaryDirectory(dir=job.options.cache, prefix="with-photos-") as folder:
        bundle = linked_bundle(job.bundle, Path(folder) / job.bundle.path.name)
        for bank in job.shot_banks:
            if (bank.shots, bank.seed) == (shots, 0) and bank.class_name in job.class_names:
                bundle = _learned(job, bundle, bank)
        yield bundle


def _learned(job: EvaluationJob, bundle: Bundle, drawn: ShotBank) -> Bundle:
    product = job.samples_of(drawn.class_name)[0].product
    bank = read_bank(drawn.source, bundle)
    reference = Reference(
        bank="",
        rows=bank.rows,
        photos=tuple(
            ReferencePhoto(name=photo.image.name, sha256="0" * 64) for photo in drawn.photos
        ),
        tower=bank.tower,
        backend=job.backend_version,
        precision="",
        created="",
    )
    return set_reference(
        bundle, product, bank, reference, None, None,
        embeddings=bundle.text_embeddings(product), before=bundle.reference_digest(product),
    )  # fmt: skip
