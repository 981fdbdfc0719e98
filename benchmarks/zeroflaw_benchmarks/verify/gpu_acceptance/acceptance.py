"""The acceptance as a whole: every check in its order, and a report whatever happens."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Final

import msgspec
import psutil

from zeroflaw.inspector import Inspector
from zeroflaw.sessions import load_sessions
from zeroflaw.station.diagnosis import diagnose
from zeroflaw_benchmarks.bench.measure.roofline import random_inputs
from zeroflaw_benchmarks.verify.gpu_acceptance.checks import (
    captured_parity,
    latency,
    overlap,
    soak,
)
from zeroflaw_benchmarks.verify.gpu_acceptance.cold_start import cold_start
from zeroflaw_benchmarks.verify.gpu_acceptance.device_memory import device_memory
from zeroflaw_benchmarks.verify.gpu_acceptance.options import AcceptanceOptions
from zeroflaw_benchmarks.verify.gpu_acceptance.parity import engine_parity, mask_parity
from zeroflaw_benchmarks.verify.gpu_acceptance.report import AcceptanceReport, Check, verdict_of
from zeroflaw_benchmarks.verify.gpu_acceptance.resizer_parity import RESIZER_PARITY, resizer_parity
from zeroflaw_engines.backends import BACKENDS, choose_backend
from zeroflaw_engines.builder.parity import fixed_inputs
from zeroflaw_engines.contract import (
    BOX_PROPOSER,
    CLIP_ENCODER,
    FRAME_RESIZER,
    REFERENCE_MATCHER,
    SAM_DECODER,
    SAM_ENCODER,
    TEXT_EMBEDDINGS,
    EngineName,
    frame_resizer_contract,
)
from zeroflaw_engines.sessions.cuda import Cuda, CudaGpu
from zeroflaw_engines.sessions.device_tensor import Tensor

_OVERLAP_RUNS: Final = 20
_AFTER_BUILD: Final = (
    "cold start", "load", "CUDA graphs", "encoders overlap", "parity of engines",
    "parity of masks", "soak", RESIZER_PARITY, "latency",
)  # fmt: skip
_NO_BUILD: Final = "a backend that needs no built engines"

Build = Callable[[AcceptanceOptions, str], Check]
Save = Callable[[AcceptanceReport], object]


def accept(
    options: AcceptanceOptions,
    *,
    build: Build | None = None,
    open_cuda: Callable[[], Cuda] | None = None,
    save: Save = lambda _report: None,
) -> AcceptanceReport:
    """Run every check; one that raises has failed, and those that rest on it are left out.

    Args:
        build: Builds the engines; None for a backend that needs none built.
        open_cuda: Opens the GPU that runs the engines; None where none does.
        save: Is given the report as it stands before each check, with that check as failed: a
            process that is killed leaves it behind.
    """
    return _Acceptance(options, save).run(build, open_cuda)


class _Acceptance:
    """The checks so far, and what their report says beside them."""

    def __init__(self, options: AcceptanceOptions, save: Save) -> None:
        self._options, self._save = options, save
        self._checks: list[Check] = []
        self._gpu: CudaGpu | None = None
        self._backend = f"{options.backend} {options.precision or ''}".strip()
        diagnosis = diagnose()
        self._machine = msgspec.to_builtins(diagnosis.machine)
        self._versions = {"zeroflaw": diagnosis.zeroflaw, **diagnosis.versions}

    def run(self, build: Build | None, open_cuda: Callable[[], Cuda] | None) -> AcceptanceReport:
        cuda: Cuda | None = None
        if open_cuda is not None:
            opened: list[Cuda] = []
            if not self._check("GPU", lambda: self._found_gpu(opened, open_cuda)):
                return self._left_out(("build", *_AFTER_BUILD), "there is no GPU to be used")
            (cuda,) = opened
        gpu = self._gpu
        if build is None or gpu is None:
            self._add(Check(name="build", outcome="not applicable", detail=_NO_BUILD))
        elif not self._check("build", lambda: build(self._options, gpu.architecture)):
            return self._left_out(_AFTER_BUILD, "the build failed")
        self._check("cold start", lambda: cold_start(self._options))
        closing = ExitStack()
        self._run_loaded(cuda, closing)
        try:
            closing.close()
        except Exception as error:
            self._add(_raised("close", error))
        return self._report(self._checks)

    def _run_loaded(self, cuda: Cuda | None, closing: ExitStack) -> None:
        options = self._options
        loaded: list[Inspector] = []
        if not self._check("load", lambda: self._loaded(loaded, closing)):
            self._left_out(_AFTER_BUILD[2:], "the engines were not loaded")
            return
        (candidate,) = loaded
        sessions, inputs = candidate.sessions, engine_inputs(options)
        graphs = cuda is not None and BACKENDS[options.backend].builds is not None
        # Before anything captures: `capture` is what is checked.
        self._check("CUDA graphs", lambda: captured_parity(sessions, inputs, graphs=graphs))
        self._check("encoders overlap", lambda: _warm_overlap(candidate, inputs, graphs))
        references: list[Inspector] = []

        def reference() -> Inspector:
            if not references:
                one = Inspector.load(options.bundle.path, "onnxruntime", threads=options.threads)
                references.append(closing.enter_context(one))
            return references[0]

        given = (options.frames, options.product)
        self._check("parity of engines", lambda: engine_parity(reference(), candidate, *given))
        self._check("parity of masks", lambda: mask_parity(reference(), candidate, *given))
        timings: list[dict[str, float]] = []
        self._check("soak", lambda: _soaked(options, candidate, cuda, timings))
        # After all that inspects: it looks at what came of the frames there, too.
        on_gpu, threads = BACKENDS[options.backend].on_gpu, options.threads
        self._check(
            RESIZER_PARITY,
            lambda: resizer_parity(candidate, options.frames, on_gpu=on_gpu, threads=threads),
        )
        self._check("latency", lambda: latency(timings))

    def _found_gpu(self, opened: list[Cuda], open_cuda: Callable[[], Cuda]) -> Check:
        cuda = open_cuda()
        self._gpu = cuda.gpu()
        opened.append(cuda)
        return Check(name="GPU", outcome="passed", detail=f"{self._gpu}, CUDA {self._gpu.cuda}")

    def _loaded(self, loaded: list[Inspector], closing: ExitStack) -> Check:
        options, start = self._options, time.perf_counter()
        choice = choose_backend(
            options.backend, options.precision, bundle=options.bundle, device=options.device
        )
        sessions = load_sessions(
            options.bundle,
            choice,
            precision=options.precision,
            threads=options.threads,
            device=options.device,
        )
        loaded.append(closing.enter_context(Inspector(options.bundle, sessions)))
        seconds = time.perf_counter() - start
        self._backend = loaded[0].backend
        detail = f"{self._backend} in {seconds:.2f} s"
        return Check(name="load", outcome="passed", detail=detail, figures={"seconds": seconds})

    def _check(self, name: str, work: Callable[[], Check]) -> bool:
        """Run a check and say whether it did not fail."""
        unfinished = Check(name=name, outcome="failed", detail="was begun and not finished")
        self._save(self._report([*self._checks, unfinished]))
        try:
            found = work()
        except Exception as error:
            found = _raised(name, error)
        self._add(found)
        return found.outcome != "failed"

    def _add(self, check: Check) -> None:
        self._checks.append(check)

    def _left_out(self, names: tuple[str, ...], why: str) -> AcceptanceReport:
        for name in names:
            self._add(Check(name=name, outcome="not applicable", detail=why))
        return self._report(self._checks)

    def _report(self, checks: list[Check]) -> AcceptanceReport:
        gpu, options = self._gpu, self._options
        named = None if gpu is None else f"{gpu}, CUDA driver {gpu.cuda}"
        verdict, accepted, verified = verdict_of(tuple(checks), named, self._backend)
        return AcceptanceReport(
            verdict=verdict,
            accepted=accepted,
            gpu_verified=verified,
            bundle=options.bundle.identity,
            backend=self._backend,
            created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            machine=self._machine,
            versions=self._versions,
            settings={
                "product": options.product,
                "frames": len(options.frames),
                "soak inspections": options.soak_runs,
                "threads": options.threads,
                "device": options.device,
            },
            checks=tuple(checks),
        )


def _raised(name: str, error: Exception) -> Check:
    text = " ".join(str(error).split()) or "no reason was given"
    return Check(name=name, outcome="failed", detail=f"{type(error).__name__}: {text}")


def _warm_overlap(
    candidate: Inspector, inputs: Mapping[str, Mapping[str, Tensor]], streams: bool
) -> Check:
    candidate.warm_up()
    return overlap(candidate.sessions, inputs, streams=streams, runs=_OVERLAP_RUNS)


def _soaked(
    options: AcceptanceOptions,
    candidate: Inspector,
    cuda: Cuda | None,
    timings: list[dict[str, float]],
) -> Check:
    process = psutil.Process()
    check, measured = soak(
        lambda frame: candidate.inspect(frame, product=options.product),
        options.frames,
        runs=options.soak_runs,
        host_memory=lambda: int(process.memory_info().rss),
        device_memory=None if cuda is None else device_memory(cuda),
    )
    timings += measured
    return check


def engine_inputs(options: AcceptanceOptions) -> Mapping[str, Mapping[str, Tensor]]:
    """Make inputs of every engine that are not zeros: noise, from a fixed seed."""
    bundle = options.bundle
    of_sam: tuple[EngineName, ...] = (SAM_ENCODER, SAM_DECODER)
    engines = (CLIP_ENCODER, *(name for name in of_sam if name in bundle.manifest.engines))
    inputs: dict[str, dict[str, Tensor]] = {
        engine: random_inputs(bundle.contract(engine)) for engine in engines
    }
    inputs[FRAME_RESIZER] = fixed_inputs(frame_resizer_contract())
    if TEXT_EMBEDDINGS in inputs[CLIP_ENCODER]:
        inputs[CLIP_ENCODER][TEXT_EMBEDDINGS] = bundle.text_embeddings(options.product)
    if SAM_ENCODER in inputs:
        inputs[SAM_ENCODER]["image_size"][...] = bundle.manifest.sizes.sam_image_size
    others: tuple[EngineName, ...] = (REFERENCE_MATCHER, BOX_PROPOSER)
    for name in others:
        if name in bundle.manifest.engines:
            inputs[name] = fixed_inputs(bundle.contract(name))
    return inputs
