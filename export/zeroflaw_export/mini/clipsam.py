"""Make `mini_clipsam`: the towers and the SAM of `mini` with ClipSAM's UMCI as localizer.

    python -m zeroflaw_export.mini.clipsam WORK

The towers come out of the bundle that ships and stay as they are. UMCI is trained on frames of the
training split that the towers have never seen. A killed run goes on where it was when the command
is given again. The result is WORK/mini_clipsam.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Final

import msgspec
import numpy as np
import torch
import typer
from PIL import Image

from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.bundle.manifest import Manifest, parameters_record, schema_version
from zeroflaw_engines.bundle.shipped import SHIPPED_NAME
from zeroflaw_engines.bundle.writer import staged_bundle, write_manifest
from zeroflaw_engines.contract import CLIP_ENCODER
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.process.cores import usable_cores
from zeroflaw_engines.process.terminal import err, run_module
from zeroflaw_export.datasets import read_dataset
from zeroflaw_export.engine_writer import EngineWriter
from zeroflaw_export.export import localizer_identity
from zeroflaw_export.mini.crops import draw_crops
from zeroflaw_export.mini.frames import draw_both
from zeroflaw_export.mini.make import DEMONSTRATION, PARAMETERS
from zeroflaw_export.mini.shipped_weights import write_shipped_weights
from zeroflaw_export.mini.stages import run_stages
from zeroflaw_export.mini.training_frames import TrainingFrames
from zeroflaw_export.models.adapters import LinearAdapters, load_adapters
from zeroflaw_export.models.architectures import clip_architecture
from zeroflaw_export.models.load import WeightsSource, load_clip
from zeroflaw_export.models.localizers.clipsam import (
    CLIPSAM,
    build,
    load_stages,
    new_stages,
    save_stages,
)
from zeroflaw_export.models.localizers.umci import ClipSamParameters
from zeroflaw_export.parity import checks as parity
from zeroflaw_export.training.job import TrainingJob
from zeroflaw_export.training.run import run_training
from zeroflaw_export.training.samples import TrainingProgress
from zeroflaw_export.training.train import TrainingSettings

TARGET: Final = "mini_clipsam"
# The towers saw the drawn frames of the seeds 1 to 3000, and the photo frames of seed 1.
FRAMES_SEED: Final = 3001
DRAWN_FRAMES: Final = 800
PHOTO_FRAMES: Final = 800
# The finest grid has 112 x 112 places: each channel costs there what it costs on nine of ViT-L's
# grids, and the towers' tokens have 64.
CHANNELS: Final = ClipSamParameters(hidden_channels=32, head_channels=32)


@dataclass(frozen=True, kw_only=True)
class UmciPhase:
    """A phase of the training; small crops come first, since they show more defects a second.

    Attributes:
        data: Folder of its data set.
        side: Of the towers' input, px.
        settings: Of its training.
    """

    data: str
    side: int
    settings: TrainingSettings


# Ten times the paper's rate for new and far smaller weights, falling to the paper's own.
PHASES: Final = (
    UmciPhase(data="umci_crops", side=224,
              settings=TrainingSettings(epochs=1, batch=8, learning_rate=1e-3, seed=1)),
    UmciPhase(data="umci_crops", side=224,
              settings=TrainingSettings(epochs=1, batch=8, learning_rate=3e-4, seed=2)),
    UmciPhase(data="umci_whole", side=448,
              settings=TrainingSettings(epochs=1, batch=8, learning_rate=1e-4, seed=3)),
)  # fmt: skip
CROPS: Final = 1600
WINDOW: Final = (180.0, 512.0)
WHOLE_FRAMES: Final = 200
SIGNIFICANT_BITS: Final = 6
_SEED_OF_STAGES: Final = 11


def make(
    work: Annotated[Path, typer.Argument(help="Directory for frames, checkpoints and results.")],
    *,
    processes: Annotated[int, typer.Option(min=1, help="Processes that draw frames.")] = (
        usable_cores()
    ),
    threads: Annotated[int, typer.Option(min=1, help="Threads that train.")] = usable_cores(),
    only: Annotated[str | None, typer.Option(help="One stage: frames, umci or bundle.")] = None,
) -> None:
    """Draw the frames, train UMCI on the shipped towers, and write the bundle."""
    stages: dict[str, Callable[[], object]] = {
        "frames": lambda: make_frames(work, processes),
        "umci": lambda: make_umci(work),
        "bundle": lambda: make_bundle(work),
    }
    run_stages(stages, only, work=work, threads=threads)


def make_frames(work: Path, processes: int) -> None:
    """Draw the frames that are not there yet, as a data set in MVTec-AD's layout."""
    frames = draw_both(
        work, DRAWN_FRAMES, PHOTO_FRAMES, prefix="umci_", seed=FRAMES_SEED, processes=processes
    )
    # Every so many-th: drawn frames and photo frames in equal parts.
    whole = range(0, len(frames), len(frames) // WHOLE_FRAMES)
    write_frames_as_dataset(draw_all_crops(frames), work / "umci_crops")
    write_frames_as_dataset(_of(frames, whole), work / "umci_whole")


def draw_all_crops(frames: TrainingFrames) -> TrainingFrames:
    """Draw the crops of the first phase, as the towers' own training draws them."""
    rng = np.random.default_rng(FRAMES_SEED)
    images, shares, indices = draw_crops(
        frames, rng, CROPS, side=PHASES[0].side, window=WINDOW, cell=1, defective=0.6
    )
    return TrainingFrames(
        list(images), list(shares > 0.5), [frames.surfaces[index] for index in indices]
    )


def _of(frames: TrainingFrames, indices: Iterable[int]) -> TrainingFrames:
    return TrainingFrames(
        [frames.images[i] for i in indices],
        [frames.masks[i] for i in indices],
        [frames.surfaces[i] for i in indices],
    )


def write_frames_as_dataset(frames: TrainingFrames, root: Path) -> None:
    """Write frames in MVTec-AD's layout, each surface a class; those that are there are kept."""
    numbers: Counter[tuple[str, str]] = Counter()
    for image, mask, surface in zip(frames.images, frames.masks, frames.surfaces, strict=True):
        kind = "defect" if mask.any() else "good"
        stem = f"{numbers[surface, kind]:04d}"
        numbers[surface, kind] += 1
        file = root / surface / "test" / kind / f"{stem}.png"
        truth = root / surface / "ground_truth" / kind / f"{stem}_mask.png"
        if file.exists():
            continue
        for path in (file, truth) if kind == "defect" else (file,):
            path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "defect":
            Image.fromarray(np.asarray(mask, np.uint8) * 255).save(truth, compress_level=1)
        # The image comes last and in one rename: where it is, the mask is too, and both are whole.
        partial_image = file.with_suffix(".partial")
        Image.fromarray(np.asarray(image)).save(partial_image, format="PNG", compress_level=1)
        partial_image.replace(file)


def make_umci(work: Path) -> None:
    """Train UMCI on the tokens of the shipped towers, in phases of falling rates."""
    clip_path, adapters_path = work / "mini_clip.safetensors", work / "mini_adapters.safetensors"
    write_shipped_weights(clip_path, adapters_path)
    before = work / "umci_initial.safetensors"
    if not before.exists():
        write_initial_weights(clip_path, adapters_path, before)
    for number, phase in enumerate(PHASES, start=1):
        out = work / f"umci_{number}.safetensors"
        if not out.exists():
            job = TrainingJob(
                dataset=read_dataset(work / phase.data, layout="mvtec"),
                settings=phase.settings,
                clip_architecture="mini",
                clip_image_size=phase.side,
                clip_weights=_weights(clip_path),
                localizer=CLIPSAM.name,
                localizer_parameters=asdict(CHANNELS),
                initial_weights=_weights(before),
                token_cache=work / f"umci_tokens_{phase.side}",
            )
            run_training(job, out, report=_Reporter(f"phase {number}"))
        before = out


def write_initial_weights(clip_path: Path, adapters_path: Path, path: Path) -> None:
    """Write the weights that the training begins with.

    The projection of each level begins as the adapter of `mini`, which is what brings tokens into
    the space of the texts; the rest has PyTorch's initial values.
    """
    architecture = clip_architecture("mini")
    clip = load_clip(architecture, architecture.image_size, _weights(clip_path))
    torch.manual_seed(_SEED_OF_STAGES)
    stages = new_stages(clip, architecture, architecture.image_size, CHANNELS)
    adapters = LinearAdapters(
        len(architecture.tapped_blocks), architecture.token_width, architecture.embedding_size
    )
    load_adapters(adapters, adapters_path)
    for stage, layer in zip(stages.modules_of_stages(), adapters.fc, strict=True):
        stage.project.load_state_dict(layer.state_dict())
    save_stages(stages, path)


def make_bundle(work: Path) -> None:
    """Write the bundle: that of `mini` with another CLIP encoder."""
    shipped = open_bundle(SHIPPED_NAME)
    architecture = clip_architecture("mini")
    trained = work / f"umci_{len(PHASES)}.safetensors"
    shipped_weights = work / "umci.safetensors"
    write_rounded(trained, shipped_weights)
    tower = CLIPSAM.load_tower(
        architecture,
        architecture.image_size,
        clip_weights=_weights(work / "mini_clip.safetensors"),
        weights=_weights(shipped_weights),
    )
    built = build(tower, CHANNELS)
    own = shipped.manifest.engines[CLIP_ENCODER]
    with staged_bundle(work / TARGET, overwrite=True) as staging:
        for name in shipped.manifest.files:
            if name not in {own.onnx, own.weights}:
                (staging / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(shipped.path / name, staging / name)
        writer = EngineWriter(staging, shipped.manifest.sizes, "fp32", err.print)
        texts = shipped.text_embeddings("object")
        part = writer.write(
            CLIP_ENCODER,
            built.encoder,
            lambda session, accepted: parity.check_clip_encoder(
                session, built.reference, texts, accepted
            ),
        )
        kept = [f for f in shipped.manifest.parity if f.engine != CLIP_ENCODER]
        write_manifest(
            staging,
            msgspec.structs.replace(
                _with_method(shipped.manifest, _weights(shipped_weights)),
                engines={**shipped.manifest.engines, **part.engines},
                parity=(*part.parity, *kept),
                files={},
            ),
        )


def write_rounded(source: Path, target: Path) -> None:
    """Write weights rounded to half precision, and to fewer bits than that.

    The wheel then stays below its 30 MB: zeros at the end of every number compress to nothing.
    """
    architecture = clip_architecture("mini")
    clip = architecture.build(architecture.image_size)
    stages = new_stages(clip, architecture, architecture.image_size, CHANNELS)
    load_stages(stages, _weights(source))
    stages.load_state_dict({name: rounded(value) for name, value in stages.state_dict().items()})
    save_stages(stages, target)


def rounded(values: torch.Tensor) -> torch.Tensor:
    """Round numbers to `SIGNIFICANT_BITS` binary digits, and to what half precision holds."""
    mantissa, exponent = torch.frexp(values)
    steps = 2.0**SIGNIFICANT_BITS
    return torch.ldexp((mantissa * steps).round() / steps, exponent).half().float()


def _with_method(manifest: Manifest, weights: WeightsSource) -> Manifest:
    method = localizer_identity(CLIPSAM, CHANNELS)
    parameters: MethodParameters = replace(PARAMETERS, refiner="mmr")
    return msgspec.structs.replace(
        manifest,
        schema_version=schema_version(1, localizer=method, parameters=parameters),
        clip=msgspec.structs.replace(manifest.clip, adapters=weights.identity()),
        localizer=method,
        parameters=parameters_record(parameters),
        demonstration=DEMONSTRATION,
    )


def _weights(path: Path) -> WeightsSource:
    return WeightsSource(name=path.name, path=path)


class _Reporter:
    """Prints every twenty-fifth step with its mean loss, and the tower's every hundredth image."""

    def __init__(self, phase: str) -> None:
        self._phase, self._began = phase, time.monotonic()
        self._losses: list[float] = []

    def __call__(self, now: TrainingProgress) -> None:
        seconds = time.monotonic() - self._began
        if now.loss is None:
            if now.done % 100 == 0:
                err.print(f"{self._phase}, {now.stage}: {now.done} of {now.total}, {seconds:.0f} s")
            return
        self._losses.append(now.loss)
        if now.done % 25 == 0 or now.done == now.total:
            mean = sum(self._losses) / len(self._losses)
            err.print(
                f"{self._phase}, step {now.done} of {now.total}: loss {mean:.4f}, {seconds:.0f} s"
            )
            self._losses.clear()


if __name__ == "__main__":
    run_module(make)
