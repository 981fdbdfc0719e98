"""A training from weights and a data set to a file of adapters."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import asdict, dataclass
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
from zeroflaw_export.datasets import Dataset
from zeroflaw_export.models.adapters import LinearAdapters
from zeroflaw_export.models.architectures import ClipArchitecture, clip_architecture
from zeroflaw_export.models.load import WeightsSource, load_clip, load_linear_adapters
from zeroflaw_export.models.text_encoder import TextEncoder
from zeroflaw_export.models.tokenizer import write_tokenizer
from zeroflaw_export.training.samples import ReportProgress
from zeroflaw_export.training.token_cache import FrozenTower, TowerIdentity
from zeroflaw_export.training.train import (
    TextForClass,
    TrainingRecord,
    TrainingSettings,
    publish_adapters,
    train_adapters,
)
from zeroflaw_export.weights.official import default_cache


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What to train.

    Attributes:
        dataset: The data set.
        clip_architecture: Name in the registry.
        clip_weights: Of both towers.
        clip_image_size: Side of CLIP's input, px; default: the architecture's.
        initial_adapters: To start from; default: PyTorch's initial values, from the seed.
        ensembles: A file of prompt ensembles; default: WinCLIP's and APRIL-GAN's.
        token_cache: Directory; default: one for each tower in the user's cache directory.
        device: On which tower and adapters run, as PyTorch calls it.
    """

    dataset: Dataset
    settings: TrainingSettings
    clip_architecture: str
    clip_weights: WeightsSource
    clip_image_size: int | None = None
    initial_adapters: WeightsSource | None = None
    ensembles: Path | None = None
    token_cache: Path | None = None
    device: str = "cpu"


def run_training(
    job: TrainingJob,
    out: Path,
    *,
    overwrite: bool = False,
    report: ReportProgress = lambda _: None,
) -> TrainingRecord:
    """Train adapters and write them, with their record beside them.

    The state of the training lies in `<out>.checkpoint` until it is done.

    Args:
        out: `.safetensors`, or `.pth` for APRIL-GAN's layout.
        overwrite: Whether existing adapters may be replaced; otherwise they are a TrainingError.
        report: Called with how far the training is, after each image and each step.

    Returns:
        How the adapters were made.

    Raises:
        TrainingError: See `train_adapters`; or `out` exists, or has another suffix; or the tower
            is a pyramid.
        WeightsError: Weights do not fit.
        ExportError: There is no such architecture, or the image size does not fit it.
        ProductError: The prompt ensembles cannot be read.
    """
    if out.suffix not in {".safetensors", ".pth"}:
        raise TrainingError(
            f"{out} has the suffix {out.suffix!r}",
            "name a .safetensors file, or a .pth file for APRIL-GAN's layout",
        )
    if out.exists() and not overwrite:
        raise TrainingError(f"{out} exists", "name another file, or give --overwrite")
    device = _device(job.device)
    architecture = clip_architecture(job.clip_architecture)
    if architecture.has_pyramid:
        raise TrainingError(
            f"the adapters of {architecture.name} are trained with its tower, not on a frozen one",
            "train it by `python -m zeroflaw_export.mini.make`, or name a CLIP with a ViT tower",
        )
    image_size = architecture.image_size if job.clip_image_size is None else job.clip_image_size
    architecture.check_image_size(image_size)
    for source in (job.clip_weights, job.initial_adapters):
        if source is not None:
            source.require_file()
    clip = load_clip(architecture, image_size, job.clip_weights)
    text_for_class = class_embeddings(clip, job.ensembles)
    adapters = _initial_adapters(job, architecture).to(device)
    tower = frozen_tower(clip.to(device), architecture, image_size, job.clip_weights)
    checkpoint = out.with_name(out.name + ".checkpoint")
    record = train_adapters(
        tower,
        adapters,
        job.dataset,
        text_for_class,
        job.settings,
        cache=job.token_cache or default_token_cache(tower.identity),
        checkpoint=checkpoint,
        report=report,
    )
    publish_adapters(adapters.cpu(), record, out, checkpoint)
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


def _initial_adapters(job: TrainingJob, architecture: ClipArchitecture) -> LinearAdapters:
    if job.initial_adapters is not None:
        return load_linear_adapters(architecture, job.initial_adapters)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.settings.seed)
        return LinearAdapters(
            len(architecture.tapped_blocks),
            architecture.token_width,
            architecture.embedding_size,
        )


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
