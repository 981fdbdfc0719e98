"""One engine alone, ours or another's, in a process of its own: seconds of each run.

python -m zeroflaw_benchmarks.bench.process.engine_run '{"bundle": "mini", ...}'
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from zeroflaw.pictures.images import read_image
from zeroflaw.pipeline.geometry import squash
from zeroflaw_benchmarks.bench.process.child_process import RunTimes, answer, time_runs
from zeroflaw_benchmarks.bench.process.peer_graphs import PLAIN_ENCODER
from zeroflaw_benchmarks.bench.process.run_on import TORCH, RunOn
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.process.telemetry import silence_onnxruntime, without_openvino_telemetry
from zeroflaw_engines.sessions.batches import clip_encoder_inputs, stacked

WINCLIP: Final = "winclip"
_WINCLIP_SIDE: Final = 240


@dataclass(frozen=True)
class EngineTask:
    """What is to be run.

    Attributes:
        bundle: As `open_bundle` takes it.
        run_on: What runs it; `torch` for the reference model.
        engine: Which engine is ours, or is to be replaced.
        peer: A graph of another, run with the library's defaults; `winclip` for anomalib's; empty
            for ours.
        frame: Path of the image file.
        runs: That are timed, after one that is not.
        features: Where the features of SAM's encoder are written, `.npy`; empty: nowhere.
    """

    bundle: str
    run_on: RunOn
    engine: Literal["clip_encoder", "sam_encoder"]
    peer: str
    frame: str
    runs: int
    features: str = ""


def run_engine(task: EngineTask) -> RunTimes:
    """Load one engine and run it again and again.

    Resizing is part of the CLIP stage, and of no other.
    """
    frame = np.ascontiguousarray(read_image(Path(task.frame)))
    if task.peer == WINCLIP:
        return time_runs(_winclip(frame, task.run_on.threads), task.runs)
    bundle = open_bundle(task.bundle, verify_digests=False)
    if task.engine == "clip_encoder":
        return time_runs(_clip_encoder(task, bundle, frame), task.runs)
    image = squash(frame, bundle.manifest.sizes.sam_image_size)[None]
    if task.run_on.backend == TORCH:
        encode = _torch_encoder(task, bundle, image)
    else:
        encode = (_graph if task.peer else _sam_encoder)(task, bundle, image)
    times = time_runs(encode, task.runs)
    if task.features:
        np.save(task.features, encode())
    return times


def _clip_encoder(
    task: EngineTask, bundle: Bundle, frame: NDArray[np.uint8]
) -> Callable[[], object]:
    session, side = task.run_on.session(bundle, task.engine), bundle.manifest.sizes.clip_image_size
    texts = bundle.text_embeddings(min(bundle.manifest.products))
    return lambda: session.execute(
        clip_encoder_inputs(session.contract, squash(frame, side)[None], texts)
    )


def _sam_encoder(task: EngineTask, bundle: Bundle, image: NDArray[Any]) -> Callable[[], Any]:
    session = task.run_on.session(bundle, task.engine)
    one = {"image": image, "image_size": np.array(image.shape[1:3], np.int32)}
    inputs = stacked(session.contract, [one])
    return lambda: session.execute(inputs)["features"]


def _graph(task: EngineTask, bundle: Bundle, image: NDArray[Any]) -> Callable[[], Any]:
    """Another's encoder; samexporter's takes an image that is normalised already."""
    run = task.run_on.plain_session(Path(task.peer))
    if Path(task.peer).name == Path(PLAIN_ENCODER).name:
        return lambda: run({"image": image})[0]
    sam = bundle.manifest.sam
    assert sam is not None  # noqa: S101 - its encoder is what is raced
    normalised = (image - np.array(sam.mean)) / np.array(sam.std)
    planes = np.ascontiguousarray(normalised.transpose(0, 3, 1, 2), np.float32)
    return lambda: run({"input_image": planes})[0]


def _torch_encoder(task: EngineTask, bundle: Bundle, image: NDArray[Any]) -> Callable[[], Any]:
    """segment_anything's eager modules, under autocast for bf16."""
    import torch

    from zeroflaw_benchmarks.reference.reference_models import reference_sam

    if task.run_on.threads:
        torch.set_num_threads(task.run_on.threads)
    sam = reference_sam(bundle)
    bf16 = task.run_on.precision == "bf16"

    def encode() -> NDArray[np.float32]:
        planes = torch.from_numpy(image).permute(0, 3, 1, 2).float()
        with (
            torch.inference_mode(),
            torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16),
        ):
            features: NDArray[np.float32] = (
                sam.image_encoder(sam.preprocess(planes)).float().numpy()
            )
        return features

    return encode


def _winclip(frame: NDArray[np.uint8], threads: int) -> Callable[[], object]:
    """Anomalib's WinCLIP, zero-shot, its weights random: they cannot be fetched here."""
    import torch

    silence_onnxruntime()
    with without_openvino_telemetry():
        from anomalib.models.image.winclip import torch_model
    from PIL import Image
    from torchvision.transforms.functional import to_tensor

    if threads:
        torch.set_num_threads(threads)
    # Its name of weights to download; without one open_clip makes random weights.
    weights, torch_model.PRETRAINED = torch_model.PRETRAINED, None  # type: ignore[assignment]
    try:
        model: Any = torch_model.WinClipModel("object").eval()
    finally:
        torch_model.PRETRAINED = weights
    picture = Image.fromarray(frame)

    def work() -> object:
        small = picture.resize((_WINCLIP_SIDE, _WINCLIP_SIDE), Image.Resampling.BICUBIC)
        with torch.inference_mode():
            return model(to_tensor(small)[None])

    return work


if __name__ == "__main__":
    answer(EngineTask, run_engine)
