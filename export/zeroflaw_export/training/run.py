"""A training from weights and a data set to a file of a localizer's weights."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import asdict
from importlib.resources import as_file, files
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP

from zeroflaw_engines.bundle.prompt_ensembles import (
    load_tokenizer,
    product_embeddings,
    read_prompt_ensembles,
)
from zeroflaw_engines.errors import TrainingError
from zeroflaw_export.models.architectures import ClipArchitecture, clip_architecture
from zeroflaw_export.models.load import WeightsSource, load_clip
from zeroflaw_export.models.text_encoder import TextEncoder
from zeroflaw_export.models.tokenizer import write_tokenizer
from zeroflaw_export.training.job import TrainingJob
from zeroflaw_export.training.learners import learnable
from zeroflaw_export.training.samples import ReportProgress
from zeroflaw_export.training.token_cache import FrozenTower, TowerIdentity
from zeroflaw_export.training.train import (
    TextForClass,
    TrainingRecord,
    publish_weights,
    train_localizer,
)
from zeroflaw_export.weights.official import default_cache


def run_training(
    job: TrainingJob,
    out: Path,
    *,
    overwrite: bool = False,
    report: ReportProgress = lambda _: None,
) -> TrainingRecord:
    """Train what a localizer adds to CLIP and write it, with its record beside it.

    The state of the training lies in `<out>.checkpoint` until it is done.

    Args:
        out: `.safetensors`, or `.pth` for APRIL-GAN's layout of adapters.
        overwrite: Whether existing weights may be replaced; otherwise they are a TrainingError.
        report: Called with how far the training is, after each image and each step.

    Returns:
        How the weights were made.

    Raises:
        TrainingError: See `train_localizer`; or `out` exists, or has another suffix; or there is
            no such localizer to train, or not on this tower.
        WeightsError: Weights do not fit.
        ExportError: There is no such architecture, the image size does not fit it, or a parameter
            is not one of the localizer's.
        ProductError: The prompt ensembles cannot be read.
    """
    method = learnable(job.localizer)
    if out.suffix not in method.suffixes:
        raise TrainingError(f"{out} has the suffix {out.suffix!r}", method.suffix_remedy)
    if out.exists() and not overwrite:
        raise TrainingError(f"{out} exists", "name another file, or give --overwrite")
    device = _device(job.device)
    architecture = clip_architecture(job.clip_architecture)
    image_size = architecture.image_size if job.clip_image_size is None else job.clip_image_size
    architecture.check_image_size(image_size)
    method.check(job, architecture, image_size)
    for source in (job.clip_weights, job.initial_weights):
        if source is not None:
            source.require_file()
    clip = load_clip(architecture, image_size, job.clip_weights)
    text_for_class = class_embeddings(clip, job.ensembles)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.settings.seed)
        learner = method.build(job, clip, architecture, image_size, device)
    tower = frozen_tower(clip.to(device), architecture, image_size, job.clip_weights)
    checkpoint = out.with_name(out.name + ".checkpoint")
    record = train_localizer(
        tower,
        learner,
        job.dataset,
        text_for_class,
        job.settings,
        cache=job.token_cache or default_token_cache(tower.identity),
        checkpoint=checkpoint,
        report=report,
    )
    learner.module.cpu()
    publish_weights(learner, record, out, checkpoint)
    return record


def frozen_tower(
    clip: CLIP, architecture: ClipArchitecture, image_size: int, source: WeightsSource
) -> FrozenTower:
    """Take the image tower of a CLIP, with the identity under which its tokens are cached."""
    digest = source.identity().sha256
    return FrozenTower(
        clip,
        TowerIdentity(
            architecture=architecture.name,
            weights=f"random:{source.seed}" if digest is None else f"sha256:{digest}",
            image_size=image_size,
            tapped_blocks=architecture.tapped_blocks,
            activation="quick_gelu" if architecture.uses_quick_gelu(image_size) else "gelu",
        ),
    )


def default_token_cache(tower: TowerIdentity) -> Path:
    """Return the directory of a tower's tokens in the user's cache directory."""
    digest = hashlib.sha256(msgspec.json.encode(asdict(tower))).hexdigest()
    return default_cache() / "tokens" / f"{tower.architecture}-{digest[:16]}"


def class_embeddings(clip: CLIP, ensembles: Path | None = None) -> TextForClass:
    """Make a function that encodes classes with the text tower of a CLIP.

    Args:
        clip: On the CPU.
        ensembles: A file of prompt ensembles; default: WinCLIP's and APRIL-GAN's.

    Returns:
        A function from a class name to float32 [2, E], as the prompt bank of a bundle has it.

    Raises:
        ProductError: The ensembles cannot be read.
    """
    with as_file(files("zeroflaw_export") / "prompt_ensembles.toml") as packaged:
        sentences = read_prompt_ensembles(ensembles or packaged)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        write_tokenizer(path, clip.vocab_size)
        tokenize = load_tokenizer(path, clip.context_length)
    encoder = TextEncoder(clip).eval()

    def encode(tokens: NDArray[np.int32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            # the tower may have been moved to another device since
            ids = torch.from_numpy(tokens).to(encoder.text_projection.device)
            embeddings: NDArray[np.float32] = encoder(ids).cpu().numpy()
        return embeddings

    def text_for_class(name: str) -> torch.Tensor:
        return torch.from_numpy(product_embeddings(name, sentences, tokenize, encode))

    return text_for_class


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(
            f"PyTorch cannot use the device {name!r} here: {reason}",
            "choose cpu, or cuda where there is a GPU and a PyTorch built for it",
        ) from error
    return device
