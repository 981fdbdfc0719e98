"""What the kit runs on the GPU machine, in the order of importance."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zeroflaw_benchmarks.verify.gpu_kit.installation import Place

# Of `rtx_probe` and `served`: the backend does not serve this GPU.
EXIT_REFUSED: Final = 3
_VERIFY: Final = "zeroflaw_benchmarks.verify"
_FULL_SIZE: Final = ("vit_l_14_336", "vit_h")
_TINY: Final = ("tiny", "tiny")
# Those that come to their first run soon, and the one that compiles for minutes.
_QUICK_PEERS: Final = ("torch-eager-fp16", "torch-cuda-graph-fp16")
_COMPILED_PEERS: Final = ("torch-compile-fp16",)


@dataclass(frozen=True, kw_only=True)
class Step:
    """Commands that show one thing.

    Attributes:
        name: Of the step, its log and its reports.
        shows: In words.
        commands: Run one after the other until one fails.
        limit_s: Seconds that all of them may take.
        needs: Steps that must have passed.
        parts: Parts of the kit that must be in place.
        modules: Python modules without which there is nothing to show.
        background: Whether the steps after it run beside it.
        gpu_only: Whether it is left out where no GPU is to be verified.
        verdict: The report of a GPU acceptance that it writes; None if it writes none.
    """

    name: str
    shows: str
    commands: tuple[tuple[str, ...], ...]
    limit_s: float
    needs: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    background: bool = False
    gpu_only: bool = False
    verdict: Path | None = None


def steps_for(place: Place, *, dry_run: bool = False) -> tuple[Step, ...]:
    """Return the steps of a kit.

    Args:
        dry_run: On CPUs: ONNX Runtime in place of its CUDA provider, tiny networks in place of
            the full size, and no step that needs a GPU.
    """
    kit = _Kit(place, dry_run=dry_run)
    clip, sam = _TINY if dry_run else _FULL_SIZE
    mini, full, learned = (str(place.work / name) for name in ("mini", "full", "learned"))
    screws = place.tree / "examples" / "ball_screws"
    return (
        Step(
            name="export_full",
            shows=f"CLIP {clip} and SAM {sam} with random weights, exported here",
            commands=(
                kit.zeroflaw(
                    "export", full, "--clip", clip, "--sam", sam, "--random-weights", "3",
                    "--product", "object", "--no-text-encoder",
                    *(() if dry_run else ("--precision", "fp16")),
                ),
            ),
            limit_s=900,
            background=True,
        ),
        Step(
            name="machine",
            shows="the GPU, the packages, and what `zeroflaw doctor` says",
            commands=(kit.module("gpu_kit.machine_report"), kit.zeroflaw("doctor")),
            limit_s=60,
        ),
        Step(
            name="copy_mini",
            shows="mini with FP16 graphs",
            commands=(
                kit.zeroflaw("bundle", "copy", "mini", mini, "--overwrite"),
                kit.zeroflaw("add-fp16", mini),
            ),
            limit_s=90,
        ),
        Step(
            name="attention_kernels",
            shows="which attention kernels of ONNX Runtime are right",
            commands=(kit.module("attention_kernels", "--backend", kit.onnxruntime),),
            limit_s=90,
            parts=kit.onnxruntime_parts,
            gpu_only=True,
        ),
        kit.acceptance("mini_fp32", mini, "fp32", needs=("copy_mini",)),
        kit.acceptance("full_fp16", full, "fp16", needs=("export_full",), limit_s=180),
        kit.acceptance("full_fp32", full, "fp32", needs=("export_full",), limit_s=180),
        kit.acceptance("mini_fp16", mini, "fp16", needs=("copy_mini",)),
        kit.bench("bench_full_fp16", full, "fp16", needs=("export_full",)),
        kit.peers("peers_full_fp16", full, _QUICK_PEERS, needs=("export_full",), limit_s=240),
        kit.built("tensorrt_mini", mini, "tensorrt", needs=("copy_mini",)),
        kit.built("tensorrt_full", full, "tensorrt", needs=("export_full",), limit_s=300),
        Step(
            name="rtx_probe",
            shows="whether TensorRT-RTX runs a small network on this GPU",
            commands=(kit.module("gpu_kit.rtx_probe"),),
            limit_s=60,
            parts=("rtx",),
            gpu_only=True,
        ),
        Step(
            name="learned_product",
            shows="a product learned and accepted: the reference_matcher",
            commands=(
                kit.zeroflaw("bundle", "copy", "mini", learned, "--overwrite"),
                kit.zeroflaw(
                    "products", "learn", learned, "ball_screw", str(screws / "good"),
                    "--texts-of", "object", "--false-reject-rate", "0.1",
                    "--backend", kit.onnxruntime,
                ),
                kit.accept(
                    "learned_product", learned, kit.onnxruntime, "fp32",
                    "--product", "ball_screw", "--images", str(screws / "defective"),
                ),
            ),
            limit_s=120,
            parts=kit.onnxruntime_parts,
            verdict=kit.report("learned_product"),
        ),
        kit.built("rtx_mini", mini, "tensorrt-rtx", needs=("copy_mini", "rtx_probe")),
        kit.bench("bench_mini_fp32", mini, "fp32", needs=("copy_mini",)),
        kit.built(
            "rtx_full", full, "tensorrt-rtx", needs=("export_full", "rtx_probe"), limit_s=300
        ),
        kit.peers(
            "compiled_peers_full_fp16", full, _COMPILED_PEERS, needs=("export_full",), limit_s=480
        ),
    )  # fmt: skip


class _Kit:
    """The commands of the steps, in one place and of one kind of run."""

    def __init__(self, place: Place, *, dry_run: bool) -> None:
        self._place, self._dry_run = place, dry_run
        self.onnxruntime = "onnxruntime" if dry_run else "onnxruntime-cuda"
        self.onnxruntime_parts = () if dry_run else ("ort",)

    def module(self, name: str, *words: str) -> tuple[str, ...]:
        return (sys.executable, "-m", f"{_VERIFY}.{name}", *words)

    def zeroflaw(self, *words: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "zeroflaw.cli.app", *words)

    def report(self, name: str) -> Path:
        return self._place.reports / f"{name}.json"

    def accept(
        self, name: str, bundle: str, backend: str, precision: str, *words: str
    ) -> tuple[str, ...]:
        soak = "60" if self._dry_run else "300"
        return self.module(
            "gpu_acceptance", bundle, "--backend", backend, "--precision", precision,
            "--soak-runs", soak, "--out", str(self.report(name)), *words,
        )  # fmt: skip

    def acceptance(
        self, name: str, bundle: str, precision: str, *, needs: tuple[str, ...],
        limit_s: float = 100,
    ) -> Step:  # fmt: skip
        return Step(
            name=name,
            shows=f"acceptance of {self.onnxruntime} in {precision}",
            commands=(self.accept(name, bundle, self.onnxruntime, precision, *self._frames()),),
            limit_s=limit_s,
            needs=needs,
            parts=self.onnxruntime_parts,
            gpu_only=precision == "fp16",
            verdict=self.report(name),
        )

    def built(
        self, name: str, bundle: str, backend: str, *, needs: tuple[str, ...], limit_s: float = 150
    ) -> Step:
        module = backend.replace("-", "_")
        return Step(
            name=name,
            shows=f"engines of {backend} built here, and their acceptance",
            # zeroflaw's own table decides, also where the probe ran: loading would refuse the card.
            commands=(
                self.module("gpu_kit.served", backend),
                self.accept(name, bundle, backend, "fp16", *self._frames()),
            ),
            limit_s=limit_s,
            needs=needs,
            parts=("rtx",) if backend == "tensorrt-rtx" else (),
            modules=(module,),
            gpu_only=True,
            verdict=self.report(name),
        )

    def bench(self, name: str, bundle: str, precision: str, *, needs: tuple[str, ...]) -> Step:
        return Step(
            name=name,
            shows="`zeroflaw bench`: latency, the GPU's limits, streams, clones",
            commands=(
                self._bench(name, bundle, precision, "3" if self._dry_run else "50", "--stream"),
            ),
            limit_s=150,
            needs=needs,
            parts=self.onnxruntime_parts,
            gpu_only=precision == "fp16",
        )

    def peers(
        self, name: str, bundle: str, peers: Sequence[str], *, needs: tuple[str, ...],
        limit_s: float,
    ) -> Step:  # fmt: skip
        # Apart from the bench: it writes at its end, and slow peers would take all with them.
        named = [word for peer in peers for word in ("--peers", peer)]
        return Step(
            name=name,
            shows=f"beside {', '.join(peers)} on the same GPU",
            commands=(self._bench(name, bundle, "fp16", "10", "--no-roofline", *named),),
            limit_s=limit_s,
            needs=needs,
            parts=self.onnxruntime_parts,
            modules=("torch", "open_clip", "segment_anything"),
            gpu_only=True,
        )

    def _bench(
        self, name: str, bundle: str, precision: str, runs: str, *words: str
    ) -> tuple[str, ...]:
        return self.zeroflaw(
            "bench", bundle, "--backend", self.onnxruntime, "--precision", precision,
            "--runs", runs, "--rounds", "1", *words, "--out", str(self._place.reports / name),
        )  # fmt: skip

    def _frames(self) -> tuple[str, ...]:
        return ("--images", str(self._place.tree / "examples" / "frames"))
