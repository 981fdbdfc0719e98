"""`zeroflaw train-localizer`, which joins the command line through an entry point."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from zeroflaw_engines.errors import TrainingError
from zeroflaw_engines.parameters import named_values
from zeroflaw_export.cli.export import weights_source
from zeroflaw_export.cli.training import (
    CacheOption,
    ClassOption,
    ClipImageSizeOption,
    ClipOption,
    ClipWeightsOption,
    DatasetArgument,
    DeviceOption,
    EnsemblesOption,
    LayoutOption,
    OverwriteOption,
    RandomWeightsOption,
    SplitOption,
    UnmaskedOption,
    WhiteLevelOption,
    check_weights,
    require_training,
    train,
)
from zeroflaw_export.datasets import read_dataset


def train_localizer(
    localizer: Annotated[str, typer.Argument(help="What to train: clipsam, or april_gan.")],
    dataset: DatasetArgument,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .safetensors.")],
    localizer_set: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A parameter of the localizer; repeatable."),
    ] = None,
    stage_weight: Annotated[
        list[float] | None,
        typer.Option(
            help="Weight of the loss of each stage, once for each; default: 0.1 0.1 0.1 0.7, and"
            " equal ones for the levels of a pyramid."
        ),
    ] = None,
    clip: ClipOption = "vit_l_14_336",
    clip_weights: ClipWeightsOption = None,
    random_weights: RandomWeightsOption = None,
    clip_image_size: ClipImageSizeOption = None,
    layout: LayoutOption = None,
    class_: ClassOption = None,
    split: SplitOption = "test",
    unmasked: UnmaskedOption = "error",
    epochs: Annotated[int | None, typer.Option(help="Default: the paper's.")] = None,
    batch: Annotated[
        int | None, typer.Option(help="Images of one step; default: the paper's.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of the optimizer; default: the paper's.")
    ] = None,
    mosaic: Annotated[
        float | None, typer.Option(help="Share of mosaics; default: the paper's.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of initial values, order and mosaics.")] = 111,
    init_from: Annotated[
        str | None, typer.Option(help="Weights to start from: a file of this localizer.")
    ] = None,
    ensembles: EnsemblesOption = None,
    cache: CacheOption = None,
    white_level: WhiteLevelOption = None,
    device: DeviceOption = "cpu",
    overwrite: OverwriteOption = False,
) -> None:
    """Train what a localizer adds to CLIP's towers, on a data set with masks.

    The tower runs once over each image; its tokens are kept in the cache, and an epoch only
    reads them. A killed run goes on where it was when the same command is given again. Train on
    another data set than the one that you inspect: the localizer must not have seen it.

    ClipSAM's UMCI, by the paper's settings (AdamW at 1e-4, batches of 8, 6 epochs), and a bundle
    with it:

        zeroflaw train-localizer clipsam VisA/ --out umci.safetensors

        zeroflaw export my_bundle --localizer clipsam --localizer-weights umci.safetensors
    """
    require_training("train-localizer")
    from zeroflaw_export.training.job import TrainingJob
    from zeroflaw_export.training.learners import learnable

    check_weights(clip_weights, random_weights)
    method = learnable(localizer)
    if stage_weight and not method.has_stage_weights:
        raise TrainingError(f"{localizer} has no weights of stages", "leave --stage-weight out")
    data = read_dataset(
        dataset,
        layout=layout,
        split=split,
        classes=class_,
        unmasked=unmasked,
        white_level=white_level,
    )
    given: dict[str, Any] = {
        "epochs": epochs, "batch": batch, "learning_rate": learning_rate, "mosaic": mosaic,
        "seed": seed,
    }  # fmt: skip
    settings = {name: value for name, value in given.items() if value is not None}
    job = TrainingJob(
        dataset=data,
        settings=replace(method.recipe(data.layout), **settings),
        clip_architecture=clip,
        clip_weights=weights_source(clip_weights or f"clip_{clip}", random_weights, None),
        clip_image_size=clip_image_size,
        localizer=localizer,
        localizer_parameters=named_values(localizer_set or ()),
        stage_weights=tuple(stage_weight) if stage_weight else None,
        initial_weights=weights_source(init_from, None, None) if init_from else None,
        ensembles=ensembles,
        token_cache=cache,
        device=device,
    )
    train(job, out, overwrite=overwrite)
