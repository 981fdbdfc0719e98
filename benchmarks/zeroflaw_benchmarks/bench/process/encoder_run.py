"""One way of running SAM's image encoder, in a process of its own: time and memory of each run.

    python -m zeroflaw_benchmarks.bench.process.encoder_run '{"way": "openvino bf16, ours", ...}'

`encoder_speed` starts it; it prints one line of JSON.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from zeroflaw_benchmarks.bench.process.child_process import answer, peak_rss
from zeroflaw_engines.contract import SAM_ENCODER, EngineContract, EngineSizes, engine_contract

Library = Literal["torch", "onnxruntime", "openvino"]
Precision = Literal["fp32", "bf16"]
Graph = Literal["none", "plain", "ours"]

SEED: Final = 3
_HINTS: Final = {"fp32": "f32", "bf16": "bf16"}
_Encode = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class EncoderRun:
    """What is to be run.

    Attributes:
        library: Whose kernels.
        precision: Of the arithmetic: `bf16` is autocast in torch and a hint in OpenVINO.
        graph: `none` for torch's eager modules, the `plain` export, or `ours`.
        architecture: Name of the SAM.
        path: The ONNX file; empty for torch.
        side: Of the image, px.
        channels: Of the features.
        runs: Runs that are timed.
        features: Where the features of the last run are written, `.npy`; empty: nowhere.
    """

    library: Library
    precision: Precision
    graph: Graph
    architecture: str
    path: str
    side: int
    channels: int
    runs: int
    features: str = ""

    @property
    def name(self) -> str:
        """As the tables name it."""
        how = {"none": "eager", "plain": "plain export", "ours": "zeroflaw"}[self.graph]
        return f"{self.library} {self.precision}, {how}"


@dataclass(frozen=True)
class EncoderTimes:
    """What was seen.

    Attributes:
        seconds: Of each run.
        peak_rss: Largest resident memory of the process, bytes.
    """

    seconds: list[float] = field(default_factory=list)
    peak_rss: int = 0


def run_encoder(run: EncoderRun) -> EncoderTimes:
    """Loads the encoder, runs it once for warm-up and then as often as asked."""
    rng = np.random.default_rng(SEED)
    image = rng.integers(0, 256, (1, run.side, run.side, 3), dtype=np.uint8)
    load = {"torch": _torch, "onnxruntime": _onnxruntime, "openvino": _openvino}[run.library]
    encode = load(run)
    features = encode(image)
    seconds = []
    for _ in range(run.runs):
        start = time.perf_counter()
        features = encode(image)
        seconds.append(time.perf_counter() - start)
    if run.features:
        np.save(run.features, features)
    return EncoderTimes(seconds, peak_rss())


def _torch(run: EncoderRun) -> _Encode:
    """segment_anything as it is, under autocast for bf16."""
    import torch

    from zeroflaw_export.models.architectures import sam_architecture
    from zeroflaw_export.models.random_weights import randomise_weights

    sam = sam_architecture(run.architecture).build()
    randomise_weights(sam, SEED)

    def encode(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        planes = torch.from_numpy(image).permute(0, 3, 1, 2).float()
        with (
            torch.inference_mode(),
            torch.autocast("cpu", dtype=torch.bfloat16, enabled=run.precision == "bf16"),
        ):
            features: NDArray[np.float32] = (
                sam.image_encoder(sam.preprocess(planes)).float().numpy()
            )
        return features

    return encode


def _onnxruntime(run: EncoderRun) -> _Encode:
    """Our session for our graph; ONNX Runtime's defaults for the plain export."""
    inputs = _inputs(run)
    if run.graph == "ours":
        from zeroflaw_engines.sessions.onnxruntime_session import OnnxRuntimeSession

        session = OnnxRuntimeSession(Path(run.path), encoder_contract(run.side, run.channels))
        return lambda image: session.execute(inputs(image))["features"]
    from zeroflaw_engines.sessions.quiet_onnxruntime import ort, quiet_settings

    options = quiet_settings()
    plain = ort.InferenceSession(run.path, options, providers=["CPUExecutionProvider"])
    return lambda image: plain.run(None, inputs(image))[0]


def _openvino(run: EncoderRun) -> _Encode:
    """The settings are the same for both graphs: OpenVINO's defaults and the precision."""
    from zeroflaw_engines.sessions.openvino_session import load_openvino

    inputs = _inputs(run)
    compiled = (
        load_openvino()
        .Core()
        .compile_model(
            run.path,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": _HINTS[run.precision],
                "PERFORMANCE_HINT": "LATENCY",
            },
        )
    )
    request = compiled.create_infer_request()
    return lambda image: np.array(request.infer(inputs(image))[0])


def _inputs(run: EncoderRun) -> Callable[[NDArray[np.uint8]], dict[str, Any]]:
    if run.graph == "plain":
        return lambda image: {"image": image}
    size = np.array([run.side, run.side], np.int32)
    return lambda image: {"image": image, "image_size": size}


def encoder_contract(side: int, channels: int) -> EngineContract:
    """The contract of a SAM encoder for images of `side` px that gives `channels` features."""
    sizes = EngineSizes(
        clip_image_size=side,
        embedding_size=1,
        sam_image_size=side,
        sam_feature_size=side // 16,
        sam_feature_channels=channels,
        max_prompts=1,
    )
    return engine_contract(SAM_ENCODER, sizes)


if __name__ == "__main__":
    answer(EncoderRun, run_encoder)
