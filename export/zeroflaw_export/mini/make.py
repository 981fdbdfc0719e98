"""Make `mini`, the bundle that ships with the wheel: frames in, trained bundle out.

    python -m zeroflaw_export.mini.make WORK

A killed run goes on where it was when the command is given again. The result is WORK/mini, with
WORK/shuffled beside it: the same weights with the values of every tensor in random order, the
baseline of every figure. Copied to `engines/zeroflaw_engines/bundle/mini`, the first is what ships.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Final

import torch
import typer
from safetensors.torch import load_file, save_file
from torch import nn

from zeroflaw_engines.bundle.prompt_ensembles import load_tokenizer, read_prompt_ensembles
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.process.cores import usable_cores
from zeroflaw_engines.process.terminal import err, run_module
from zeroflaw_export.export import ExportJob, export_bundle
from zeroflaw_export.mini.clip_training import ClipTraining, Towers, new_towers, train_towers
from zeroflaw_export.mini.frames import draw_both
from zeroflaw_export.mini.pretrained_trunk import pretrained_trunk
from zeroflaw_export.mini.sam_training import SamTraining, new_sam, train_sam
from zeroflaw_export.mini.stages import run_stages
from zeroflaw_export.mini.text_training import Sentences
from zeroflaw_export.mini.training_frames import TrainingFrames
from zeroflaw_export.models.adapters import load_adapters, save_adapters
from zeroflaw_export.models.architectures import clip_architecture, sam_architecture
from zeroflaw_export.models.load import WeightsSource, load_clip
from zeroflaw_export.models.tokenizer import write_tokenizer
from zeroflaw_export.training.run import class_embeddings

DRAWN_FRAMES: Final = 3000
PHOTO_FRAMES: Final = 3000
FRAMES_SEED: Final = 1
SHUFFLE_SEED: Final = 3
BANK_BYTES: Final = 2**20

DEMONSTRATION: Final = (
    "small networks of CLIP's and SAM's kinds on EfficientNet-lite0's ImageNet weights"
    " (Apache-2.0), fine-tuned on drawn frames and free photos to show what zeroflaw does;"
    " neither CLIP nor SAM, and not for a production line"
)
# The bundle that ships knows surfaces of its test set by name, and `object` for all else.
PRODUCTS: Final = ("object", "casting", "glass", "gravel", "printed_board")
# The paper's figures are pixels of a 518 px map; these are the same lengths on mini's 448 px map.
# At the threshold, about one in ten good frames of held-out photos and training families is
# rejected, and four in five of the defective ones.
PARAMETERS: Final = MethodParameters(
    spacing_pixels=299, dilation_size=21, image_scoring="cls", decision_threshold=0.97
)


def make(
    work: Annotated[Path, typer.Argument(help="Directory for frames, checkpoints and results.")],
    *,
    processes: Annotated[int, typer.Option(min=1, help="Processes that draw frames.")] = (
        usable_cores()
    ),
    threads: Annotated[int, typer.Option(min=1, help="Threads that train.")] = usable_cores(),
    only: Annotated[
        str | None, typer.Option(help="One stage: frames, towers, sam or bundles.")
    ] = None,
) -> None:
    """Draw the frames, train the towers and SAM, and export the bundles."""
    stages: dict[str, Callable[[], object]] = {
        "frames": lambda: all_frames(work, processes),
        "towers": lambda: make_towers(work, all_frames(work, processes)),
        "sam": lambda: make_sam(work, all_frames(work, processes)),
        "bundles": lambda: make_bundles(work),
    }
    run_stages(stages, only, work=work, threads=threads)


def all_frames(work: Path, processes: int) -> TrainingFrames:
    """Draw the frames that are not there yet; see `draw_both`."""
    return draw_both(work, DRAWN_FRAMES, PHOTO_FRAMES, seed=FRAMES_SEED, processes=processes)


def make_towers(work: Path, frames: TrainingFrames) -> None:
    """Train both CLIP towers and the adapters."""
    architecture, settings = clip_architecture("mini"), ClipTraining()
    towers = new_towers(architecture, pretrained_trunk(work), settings.seed)
    tokenizer = work / "tokenizer.json"
    write_tokenizer(tokenizer, towers.clip.vocab_size)
    with as_file(files("zeroflaw_export") / "prompt_ensembles.toml") as path:
        ensembles = read_prompt_ensembles(path)
    tokenize = load_tokenizer(tokenizer, towers.clip.context_length)
    sentences = Sentences(towers.clip, ensembles, tokenize, sorted(set(frames.surfaces)))
    train_towers(
        towers,
        architecture,
        frames,
        sentences,
        settings=settings,
        folder=work,
        report=_Losses().report,
    )
    save_rounded(towers.clip, work / "mini_clip.safetensors")
    round_to_half(towers.adapters)
    save_adapters(towers.adapters, work / "mini_adapters.safetensors")


def make_sam(work: Path, frames: TrainingFrames) -> None:
    """Train SAM on the trained towers."""
    architecture, settings = clip_architecture("mini"), SamTraining()
    clip = load_clip(
        architecture, architecture.image_size, _weights(work / "mini_clip.safetensors")
    )
    towers = Towers(clip, architecture)
    load_adapters(towers.adapters, work / "mini_adapters.safetensors")
    normal, abnormal = class_embeddings(clip)("object")
    sam = new_sam(sam_architecture("mini"), towers, settings.seed)
    train_sam(
        sam,
        towers.eval(),
        abnormal - normal,
        frames,
        settings=settings,
        folder=work,
        report=_Losses().report,
    )
    save_rounded(sam, work / "mini_sam.safetensors")


def make_bundles(work: Path) -> None:
    """Export the trained weights, and the shuffled ones beside them."""
    names = ("mini_clip", "mini_adapters", "mini_sam")
    for name in names:
        shuffle_weights(
            work / f"{name}.safetensors", work / f"shuffled_{name}.safetensors", SHUFFLE_SEED
        )
    for target, prefix, demonstration in (
        ("mini", "", DEMONSTRATION),
        ("shuffled", "shuffled_", "the weights of mini in random order: a baseline"),
    ):
        clip, adapters, sam = (work / f"{prefix}{name}.safetensors" for name in names)
        export_bundle(
            ExportJob(
                clip_architecture="mini",
                sam_architecture="mini",
                clip_weights=_weights(clip),
                localizer_weights=_weights(adapters),
                sam_weights=_weights(sam),
                products=PRODUCTS,
                parameters=PARAMETERS,
                demonstration=demonstration,
                bank_bytes=BANK_BYTES,
            ),
            work / target,
            overwrite=True,
            report=partial(err.print, f"{target}:"),
        )


def shuffle_weights(source: Path, target: Path, seed: int) -> None:
    """Write weights whose tensors of two and more dimensions hold their values in random order.

    Args:
        source: A safetensors file.
        target: A safetensors file to write.
    """
    generator = torch.Generator().manual_seed(seed)
    state = load_file(source)
    for name in sorted(state):
        if state[name].ndim > 1:
            values = state[name].flatten()
            order = torch.randperm(len(values), generator=generator)
            state[name] = values[order].reshape(state[name].shape)
    save_file(state, target)


def save_rounded(module: nn.Module, path: Path) -> None:
    """Round the weights of a module to half precision, in place, and write them as float32."""
    round_to_half(module)
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, path)


def round_to_half(module: nn.Module) -> None:
    """Round the weights of a module to half precision, in place.

    An FP16 graph then has the same weights as the FP32 one, and the wheel is a third smaller.
    """
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point():
                value.copy_(value.half().float())


def _weights(path: Path) -> WeightsSource:
    return WeightsSource(name=path.name, path=path)


class _Losses:
    """The mean loss of every fifty steps, printed."""

    def __init__(self) -> None:
        self._since: list[float] = []
        self._began = time.monotonic()

    def report(self, phase: str, step: int, loss: float) -> None:
        self._since.append(loss)
        if step % 50 == 0:
            mean = sum(self._since) / len(self._since)
            err.print(f"{phase} {step}: loss {mean:.4f}, {time.monotonic() - self._began:.0f} s")
            self._since.clear()


if __name__ == "__main__":
    run_module(make)
