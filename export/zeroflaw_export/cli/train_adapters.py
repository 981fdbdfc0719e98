"""`zeroflaw train-adapters`, which joins the command line through an entry point."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zeroflaw_export.cli.train_localizer import train_localizer
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
    require_training,
)


def train_adapters(
    dataset: DatasetArgument,
    *,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="File to write: .safetensors, or .pth as APRIL-GAN's."),
    ],
    clip: ClipOption = "vit_l_14_336",
    clip_weights: ClipWeightsOption = None,
    random_weights: RandomWeightsOption = None,
    clip_image_size: ClipImageSizeOption = None,
    layout: LayoutOption = None,
    class_: ClassOption = None,
    split: SplitOption = "test",
    unmasked: UnmaskedOption = "error",
    epochs: Annotated[
        int | None, typer.Option(help="Default: 3 on MVTec-AD's layout, 15 on others.")
    ] = None,
    mosaic: Annotated[
        float | None,
        typer.Option(help="Share of mosaics; default: 0.2 on MVTec-AD's layout, 0 on others."),
    ] = None,
    batch: Annotated[int, typer.Option(help="Images of one step.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of initial values, order and mosaics.")] = 111,
    init_from: Annotated[
        str | None, typer.Option(help="Adapters to start from: a file or an official name.")
    ] = None,
    ensembles: EnsemblesOption = None,
    cache: CacheOption = None,
    white_level: WhiteLevelOption = None,
    device: DeviceOption = "cpu",
    overwrite: OverwriteOption = False,
) -> None:
    """Train the linear adapters of CLIP on a data set with masks, after APRIL-GAN.

    The tower runs once over each image; its tokens are kept in the cache, and an epoch only
    reads them. A killed run goes on where it was when the same command is given again. Train on
    another data set than the one that you inspect: the adapters must not have seen it.

    Epochs, mosaics and the other defaults are those with which APRIL-GAN's adapters were trained.
    VisA's adapters, which serve MVTec-AD and anything else, and MVTec-AD's, which serve VisA:

        zeroflaw train-adapters VisA/ --out visa.safetensors

        zeroflaw train-adapters mvtec_anomaly_detection/ --out mvtec.safetensors

    On your own images/ and masks/, and then a bundle with the result:

        zeroflaw train-adapters my_parts/ --out mine.safetensors --init-from april_gan_visa

        zeroflaw export my_bundle --adapters mine.safetensors --product "my part"
    """
    require_training("train-adapters")
    train_localizer(
        "april_gan",
        dataset,
        out=out,
        clip=clip,
        clip_weights=clip_weights,
        random_weights=random_weights,
        clip_image_size=clip_image_size,
        layout=layout,
        class_=class_,
        split=split,
        unmasked=unmasked,
        epochs=epochs,
        batch=batch,
        learning_rate=learning_rate,
        mosaic=mosaic,
        seed=seed,
        init_from=init_from,
        ensembles=ensembles,
        cache=cache,
        white_level=white_level,
        device=device,
        overwrite=overwrite,
    )
