"""Training of what a localizer adds to CLIP, as the linear adapters of APRIL-GAN.

Both towers stay frozen. Patch tokens are computed once and kept in a token cache; text
embeddings are constants. What trains, and by which losses, is a `Learner`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from zeroflaw_engines.errors import TrainingError
from zeroflaw_engines.version import __version__
from zeroflaw_export.datasets import Dataset, dataset_digest
from zeroflaw_export.models.clip_encoder import bilinear_matrix
from zeroflaw_export.training.checkpoint import (
    TrainingPosition,
    read_checkpoint,
    write_checkpoint,
)
from zeroflaw_export.training.learner import Batch, Learner
from zeroflaw_export.training.samples import (
    ReportProgress,
    TrainingProgress,
    TrainingSample,
    TrainingSamples,
    prepare_samples,
)
from zeroflaw_export.training.token_cache import (
    FrozenTower,
    TokenCache,
    TowerIdentity,
    open_token_cache,
    unpack_mask,
)

# Class name in; float32 [2, E], L2-normalised, row 0 normal, row 1 abnormal.
TextForClass = Callable[[str], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The recipe. Everything that decides the result besides data and weights.

    Attributes:
        epochs: Passes over the images, at least 1.
        batch: Images of one step, at least 1; the last of an epoch may have fewer.
        learning_rate: Of the optimizer, constant, above 0.
        mosaic: Share of an epoch's images that a 2x2 mosaic of their class replaces, in [0, 1].
        seed: Of the order of images and of the mosaics, at least 0.
    """

    epochs: int
    batch: int = 16
    learning_rate: float = 1e-3
    mosaic: float = 0.0
    seed: int = 111

    def __post_init__(self) -> None:
        for name, good, range_ in (
            ("epochs", self.epochs >= 1, "at least 1"),
            ("batch", self.batch >= 1, "at least 1"),
            ("learning_rate", 0 < self.learning_rate < float("inf"), "above 0"),
            ("mosaic", 0 <= self.mosaic <= 1, "between 0 and 1"),
            ("seed", self.seed >= 0, "at least 0"),
        ):
            if not good:
                raise TrainingError(
                    f"{name} cannot be {getattr(self, name)}", f"choose a value {range_}"
                )


@dataclass(frozen=True)
class ClassCount:
    """What one class gave: good and defective images, and the pool of mosaics."""

    good: int
    defective: int
    mosaics: int


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """How weights of a localizer were made; lies beside them as JSON.

    Attributes:
        created: UTC.
        localizer: Name of the method.
        parameters: Of the localizer and of its losses.
        versions: Of zeroflaw and torch; results are the same to the bit only with the same ones.
        tower: The frozen tower.
        layout: Of the data set.
        split: Of the data set.
        dataset: Digest of the images and masks that were used.
        classes: What each class gave.
        skipped: Files that could not be used, with the reason.
        initial_weights: Digest of the weights before the training.
        weights: Digest of the weights after it.
        losses: Mean loss of each epoch, summed over the blocks.
    """

    created: str
    localizer: str
    parameters: Mapping[str, Any]
    versions: dict[str, str]
    tower: TowerIdentity
    settings: TrainingSettings
    layout: str
    split: str
    dataset: str
    classes: dict[str, ClassCount]
    skipped: dict[str, str]
    initial_weights: str
    weights: str
    losses: tuple[float, ...]


def train_localizer(
    tower: FrozenTower,
    learner: Learner,
    dataset: Dataset,
    text_for_class: TextForClass,
    settings: TrainingSettings,
    *,
    cache: Path,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 60.0,
    report: ReportProgress = lambda _: None,
) -> TrainingRecord:
    """Train the module of a learner in place.

    Interrupted and started again with the same arguments it goes on where it was, and gives the
    same weights to the bit (on the same machine with the same number of threads). The final
    state stays in the checkpoint until `publish_weights` has written the weights.

    Args:
        tower: Frozen; runs on the device that it is on.
        learner: With its initial values; its module is changed in place.
        dataset: What to train on: by the published recipes, the test split of another data set
            than the one that the weights are for.
        text_for_class: Gives float32 [2, E] for the name of a class: row 0 normal, row 1 abnormal.
        cache: Directory of the token cache.
        checkpoint: File in which the state is kept, after every epoch and within one.
        checkpoint_seconds: Shortest time between two checkpoints within an epoch, s.
        report: Called with how far the training is, after each image and each step.

    Returns:
        How the weights were made.

    Raises:
        TrainingError: There is nothing to train on, too little space, the cache or the
            checkpoint belongs to something else, or the training diverges.
    """
    tokens = open_token_cache(cache, tower)
    samples = prepare_samples(
        dataset, tower, tokens, mosaic=settings.mosaic, seed=settings.seed, report=report
    )
    device, module = learner.device, learner.module
    texts = {
        product.name: text_for_class(product.name).detach().float().to(device)
        for product in samples.dataset.classes
    }
    initial = _digest(module.state_dict())
    digest = dataset_digest(samples.dataset)
    run: dict[str, Any] = {
        **asdict(settings),
        **{f"tower's {name}": value for name, value in asdict(tower.identity).items()},
        "localizer": learner.localizer,
        **learner.parameters,
        "dataset": digest,
        "initial weights": initial,
        "text embeddings": _digest(texts),
    }
    optimizer = learner.optimizer(settings.learning_rate)
    position = TrainingPosition()
    if checkpoint is not None:
        position = read_checkpoint(checkpoint, run, module, optimizer)
    size = tower.identity.image_size
    upsample = tuple(
        bilinear_matrix(grid, size, align_corners=learner.align_corners).to(device)
        for grid in tower.grids
    )
    saved = time.monotonic()
    steps = -(-len(samples.images) // settings.batch)
    while position.epoch < settings.epochs:
        before = position.epoch
        todo = _batches_of_epoch(samples, settings, position.epoch)[position.step :]
        for batch, (values, masks) in zip(todo, _read_ahead(tokens, todo), strict=True):
            loss = _step(
                learner,
                optimizer,
                Batch(
                    _by_block(values.to(device), tower.grids),
                    torch.stack([texts[sample.product] for sample in batch]),
                    masks.to(device),
                    upsample,
                ),
            )
            position = position.after_step(loss, steps)
            report(
                TrainingProgress(
                    "training",
                    position.epoch * steps + position.step,
                    settings.epochs * steps,
                    epoch=position.epoch,
                    loss=position.losses[-1] if position.epoch > before else loss,
                )
            )
            due = time.monotonic() - saved >= checkpoint_seconds or position.epoch > before
            if checkpoint is not None and due:
                write_checkpoint(checkpoint, run, position, module, optimizer)
                saved = time.monotonic()
    return TrainingRecord(
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        localizer=learner.localizer,
        parameters=learner.parameters,
        versions={"zeroflaw": __version__, "torch": str(torch.__version__)},
        tower=tower.identity,
        settings=settings,
        layout=dataset.layout,
        split=dataset.split,
        dataset=digest,
        classes=_counts(samples),
        skipped={str(skip.path): skip.reason for skip in samples.dataset.skipped},
        initial_weights=initial,
        weights=_digest(module.state_dict()),
        losses=position.losses,
    )


def publish_weights(
    learner: Learner, record: TrainingRecord, out: Path, checkpoint: Path | None = None
) -> Path:
    """Write trained weights and their record; then the checkpoint has served.

    Args:
        out: `.safetensors`, or `.pth` for APRIL-GAN's layout of adapters.
        checkpoint: Is deleted at the end.

    Returns:
        The record's file: `out` with `.json` added.

    Raises:
        TrainingError: They cannot be written.
    """
    beside = out.with_name(out.name + ".json")
    partial = out.with_name(f".partial-{out.name}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        learner.save(partial)
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
        partial.replace(out)
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise TrainingError(
            f"{out} cannot be written: {error}",
            "check the directory and its space, and start again; the training is kept",
        ) from error
    return beside


def _step(learner: Learner, optimizer: torch.optim.Optimizer, batch: Batch) -> float:
    """Take one step of the optimizer.

    Returns:
        The loss, summed over the stages.

    Raises:
        TrainingError: It is not finite.
    """
    optimizer.zero_grad()
    total = 0.0
    # Stage by stage, a batch of 16 at 518 px needs under 1 GB for adapters.
    for loss in learner.losses(batch):
        torch.autograd.backward(loss)
        total += float(loss.detach())
    if not np.isfinite(total):
        raise TrainingError(
            "the training diverged: its loss is not finite", "choose a lower learning rate"
        )
    optimizer.step()
    return total


def _by_block(tokens: torch.Tensor, grids: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    """Split cached tokens, float16 [batch, …, width], by tapped block or level."""
    ends = np.cumsum([grid**2 for grid in grids]).tolist()
    flat = tokens.flatten(1, 2)
    return tuple(flat[:, begin:end] for begin, end in pairwise([0, *ends]))


def _batches_of_epoch(
    samples: TrainingSamples, settings: TrainingSettings, epoch: int
) -> list[list[TrainingSample]]:
    # from seed and epoch alone, so that a run that is taken up needs no state of a generator
    random = np.random.default_rng([settings.seed, epoch])
    chosen = []
    for index in random.permutation(len(samples.images)):
        sample = samples.images[index]
        pool = samples.mosaics.get(sample.product, ())
        if pool and random.random() < settings.mosaic:
            sample = pool[random.integers(len(pool))]
        chosen.append(sample)
    return [chosen[i : i + settings.batch] for i in range(0, len(chosen), settings.batch)]


def _read_ahead(
    cache: TokenCache, batches: Sequence[Sequence[TrainingSample]]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Read each batch while the one before it is trained on."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        ahead: Future[tuple[torch.Tensor, torch.Tensor]] | None = None
        for batch in batches:
            ready, ahead = ahead, pool.submit(_read_batch, cache, batch)
            if ready is not None:
                yield ready.result()
        if ahead is not None:
            yield ahead.result()


def _read_batch(
    cache: TokenCache, batch: Sequence[TrainingSample]
) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = np.stack([cache.read_tokens(sample.tokens) for sample in batch])
    masks = np.stack([unpack_mask(sample.mask, cache.image_size) for sample in batch])
    return torch.from_numpy(tokens), torch.from_numpy(masks)


def _counts(samples: TrainingSamples) -> dict[str, ClassCount]:
    counts = {}
    for product in samples.dataset.classes:
        defective = sum(sample.anomalous for sample in product.samples)
        mosaics = len(samples.mosaics.get(product.name, ()))
        counts[product.name] = ClassCount(len(product.samples) - defective, defective, mosaics)
    return counts


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {list(value.shape)} {value.dtype}\n".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
