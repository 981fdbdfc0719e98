"""One engine alone, ours or another's graph, in a process of its own: seconds of each run.

python -m zeroflaw_benchmarks.bench.process.engine_run '{"bundle": "mini", ...}'
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from zeroflaw.pictures.images import read_image
from zeroflaw.pipeline.geometry import squash
from zeroflaw_benchmarks.bench.process.child_process import answer
from zeroflaw_engines.backends import load_session
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.process.telemetry import silence_onnxruntime, without_openvino_telemetry

_WINCLIP_SIDE: Final = 240


@dataclass(frozen=True)
class EngineTask:
    """What is to be run.

    Attributes:
        bundle: As `open_bundle` takes it.
        way: Backend, a colon and the precision, of our engine.
        engine: Which engine is ours, or is to be replaced.
        peer: A graph of another, run by ONNX Runtime; `winclip` for anomalib's; empty for ours.
        frame: Its file.
        runs: That are timed, after one that is not.
        threads: CPU threads; 0 takes every core.
    """

    bundle: str
    way: str
    engine: Literal["clip_encoder", "sam_encoder"]
    peer: str
    frame: str
    runs: int
    threads: int


def run_engine(task: EngineTask) -> list[float]:
    """Loads one engine and runs it again and again.

    Returns:
        Seconds of each run; resizing is part of the CLIP stage, and of no other.
    """
    if task.peer == "winclip":
        work = _winclip(task)
    elif task.peer:
        work = _graph(task)
    else:
        work = _ours(task)
    seconds = []
    for run in range(-1, task.runs):
        start = time.perf_counter()
        work()
        if run >= 0:
            seconds.append(time.perf_counter() - start)
    return seconds


def _ours(task: EngineTask) -> Callable[[], object]:
    bundle = open_bundle(task.bundle, verify_digests=False)
    backend, _, precision = task.way.partition(":")
    session = load_session(
        bundle, task.engine, backend=backend, precision=precision or None, threads=task.threads
    )
    sizes = bundle.manifest.sizes
    frame = np.ascontiguousarray(read_image(Path(task.frame)))
    if task.engine == "clip_encoder":
        texts = bundle.text_embeddings(min(bundle.manifest.products))
        return lambda: session.execute(
            {"image": squash(frame, sizes.clip_image_size)[None], "text_embeddings": texts}
        )
    side = sizes.sam_image_size
    image = squash(frame, side)[None]
    size = np.array([side, side], np.int32)
    return lambda: session.execute({"image": image, "image_size": size})


def _graph(task: EngineTask) -> Callable[[], object]:
    """Another's encoder, with that library's own normalisation done beforehand."""
    from zeroflaw_engines.sessions.quiet_onnxruntime import ort, quiet_settings

    options = quiet_settings()
    options.intra_op_num_threads = task.threads
    session = ort.InferenceSession(task.peer, options, providers=["CPUExecutionProvider"])
    (value,) = session.get_inputs()
    rng = np.random.default_rng(0)
    image = rng.standard_normal(value.shape, np.float32)
    return lambda: session.run(None, {value.name: image})


def _winclip(task: EngineTask) -> Callable[[], object]:
    """Anomalib's WinCLIP, zero-shot, its weights random: they cannot be fetched here."""
    import torch

    silence_onnxruntime()
    with without_openvino_telemetry():
        from anomalib.models.image.winclip import torch_model
    from PIL import Image
    from torchvision.transforms.functional import to_tensor

    if task.threads:
        torch.set_num_threads(task.threads)
    # Its name of weights to download; without one open_clip makes random weights.
    weights, torch_model.PRETRAINED = torch_model.PRETRAINED, None  # type: ignore[assignment]
    try:
        model: Any = torch_model.WinClipModel("object").eval()
    finally:
        torch_model.PRETRAINED = weights
    frame = Image.fromarray(read_image(Path(task.frame)))

    def work() -> object:
        small = frame.resize((_WINCLIP_SIDE, _WINCLIP_SIDE), Image.Resampling.BICUBIC)
        with torch.inference_mode():
            return model(to_tensor(small)[None])

    return work


if __name__ == "__main__":
    answer(EngineTask, run_engine)
