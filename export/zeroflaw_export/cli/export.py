"""`zeroflaw export`, which joins the command line through an entry point."""

from __future__ import annotations

from enum import StrEnum
from functools import cache as cache_calls
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from zeroflaw_engines.contract import ENGINES_OF_REFINER, SAM_ENCODER
from zeroflaw_engines.errors import ExportError, MissingExtraError
from zeroflaw_engines.parameters import Refiner, named_values
from zeroflaw_engines.process.terminal import err

if TYPE_CHECKING:
    from zeroflaw_export.models.load import WeightsSource


class GraphPrecision(StrEnum):
    """The graphs that an export writes."""

    FP32 = "fp32"
    FP16 = "fp16"


def export(
    bundle: Annotated[Path, typer.Argument(help="Directory to write; it must not exist yet.")],
    *,
    sam: Annotated[
        str | None,
        typer.Option(
            help="SAM: vit_h, vit_l, vit_b (or tiny, for tests). Default: vit_h; none with a"
            " refiner that runs without it."
        ),
    ] = None,
    clip: Annotated[
        str, typer.Option(help="CLIP: vit_l_14_336, vit_b_16_plus_240 (or tiny, for tests).")
    ] = "vit_l_14_336",
    sam_weights: Annotated[
        str | None, typer.Option(help="File or official name; default: the official ones.")
    ] = None,
    clip_weights: Annotated[
        str | None, typer.Option(help="File or official name; default: OpenAI's.")
    ] = None,
    localizer: Annotated[
        str, typer.Option(help="What gives the anomaly map: april_gan, clipsam, …")
    ] = "april_gan",
    localizer_weights: Annotated[
        str | None,
        typer.Option(
            "--localizer-weights",
            "--adapters",
            help="What the localizer adds to CLIP: a file, or an official name as april_gan_visa"
            " (the default of april_gan) or anomalyclip_visa; with _mvtec, trained on MVTec-AD.",
        ),
    ] = None,
    localizer_set: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A parameter of the localizer; repeatable."),
    ] = None,
    refiner: Annotated[
        Refiner | None,
        typer.Option(help="What turns the map into a mask; default: cascade."),
    ] = None,
    proposals: Annotated[
        Path | None,
        typer.Option(
            metavar="GRAPH.onnx",
            help="The detector of --refiner box_proposals: docs/bundle.md has its contract.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A method parameter to record; repeatable."
        ),
    ] = None,
    random_weights: Annotated[
        int | None,
        typer.Option(metavar="SEED", help="Random weights instead of any: finds nothing."),
    ] = None,
    clip_image_size: Annotated[
        int | None,
        typer.Option(help="Side of CLIP's input, px; default: the architecture's, as 518."),
    ] = None,
    product: Annotated[
        list[str] | None, typer.Option("--product", "-p", help="Product name; repeatable.")
    ] = None,
    ensembles: Annotated[
        Path | None, typer.Option(help="TOML file of sentences; default: WinCLIP's.")
    ] = None,
    text_encoder: Annotated[
        bool, typer.Option(help="Add the text engine, so that stations can add products.")
    ] = True,
    precision: Annotated[
        GraphPrecision, typer.Option(help="fp16 adds strongly typed graphs for TensorRT.")
    ] = GraphPrecision.FP32,
    bank_mb: Annotated[
        float, typer.Option(min=0.1, max=1024, help="What a product's reference bank may take, MB.")
    ] = 16,
    max_batch: Annotated[
        int,
        typer.Option(
            min=1, max=8, help="Images that one call of the encoders may take, for re-inspection."
        ),
    ] = 1,
    cache: Annotated[Path | None, typer.Option(help="Where downloads are kept.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing bundle.")] = False,
) -> None:
    """Export weights into a bundle: ONNX engines, a prompt bank and a manifest.

    Every engine is checked against its PyTorch original before anything is published; the
    figures go into the manifest. Official weights are downloaded once and their digests checked.

    With official weights, with files that you have, and without any:

        zeroflaw export my_bundle --product metal_nut

        zeroflaw export my_bundle --sam-weights sam_vit_h_4b8939.pth --adapters my_adapters.pth

        zeroflaw export toy --sam vit_b --random-weights 0

    With --refiner none the bundle is one without SAM, unless --sam or --sam-weights is given:

        zeroflaw export my_bundle --refiner none
    """
    try:
        from zeroflaw_export.export import ExportJob, export_bundle
        from zeroflaw_export.models.architectures import clip_architecture
        from zeroflaw_export.models.load import WeightsSource
        from zeroflaw_export.models.localizers.registry import localizer as find_localizer
    except ImportError as error:
        raise MissingExtraError(
            f"`zeroflaw export` needs libraries that are not installed ({error.name})",
            "install zeroflaw[export] on this workstation; stations do not need it",
        ) from error
    if random_weights is not None and (sam_weights or clip_weights or localizer_weights):
        raise ExportError(
            "both random weights and weights files were given", "give one or the other"
        )

    @cache_calls
    def source(name: str) -> WeightsSource:
        return weights_source(name, random_weights, cache)

    method = find_localizer(localizer)
    own_name = localizer_weights or method.default_weights
    if localizer_weights and not method.takes_weights:
        raise ExportError(
            f"{localizer_weights} was given as the weights of {localizer}, which takes none",
            "leave --localizer-weights out, or choose the localizer that they are of",
        )
    if own_name is None and method.takes_weights and random_weights is None:
        raise ExportError(
            f"the localizer {localizer} has no published weights to fall back on",
            "name a file with --localizer-weights",
        )
    parameters = method.recorded_parameters(
        named_values(settings or ()) | ({} if refiner is None else {"refiner": refiner})
    )
    if sam is None and (sam_weights or SAM_ENCODER in ENGINES_OF_REFINER[parameters.refiner]):
        sam = "vit_h"
    # All that may be wrong comes before gigabytes are downloaded: files that were named, too.
    architecture, own_values = clip_architecture(clip), named_values(localizer_set or ())
    method.check(
        architecture,
        architecture.image_size if clip_image_size is None else clip_image_size,
        method.parameters_from(own_values),
    )
    for name in filter(None, (clip_weights, localizer_weights, sam_weights)):
        source(name)
    job = ExportJob(
        clip_architecture=clip,
        sam_architecture=sam,
        clip_weights=source(clip_weights or f"clip_{clip}"),
        localizer=localizer,
        localizer_parameters=own_values,
        localizer_weights=source(own_name or "random")
        if method.takes_weights
        else WeightsSource("none", None, 0),
        sam_weights=None if sam is None else source(sam_weights or f"sam_{sam}"),
        clip_image_size=clip_image_size,
        products=tuple(product or ("object",)),
        ensembles=ensembles,
        text_encoder=text_encoder,
        precision=precision.value,
        bank_bytes=int(1e6 * bank_mb),
        max_batch=max_batch,
        proposals=proposals,
        parameters=parameters,
    )
    if random_weights is not None:
        err.print(
            f"[bold yellow]warning:[/] {bundle} will have random weights (seed {random_weights}):"
            " its results will mean nothing"
        )
    with err.status("starting") as status:

        def report(step: str) -> None:
            status.update(step)
            if not err.is_terminal:
                err.print(step)

        exported = export_bundle(job, bundle, overwrite=overwrite, report=report)
    worst = max(figure.value / figure.tolerance for figure in exported.manifest.parity)
    typer.echo(
        f"{bundle}: {len(exported.manifest.engines)} engines, parity with PyTorch within"
        f" {worst:.1%} of what is accepted, products {', '.join(exported.manifest.products)}"
    )


def weights_source(name: str, seed: int | None, cache: Path | None) -> WeightsSource:
    """Find the weights of an option; official ones are downloaded, with a bar.

    Args:
        name: A file or an official name.
        seed: Of random weights, which then stand in for any.
        cache: Directory of downloads; default: see `default_cache`.

    Raises:
        WeightsError: There is neither such a file nor such a name.
        DownloadError: The download failed.
    """
    from zeroflaw_export.models.load import WeightsSource
    from zeroflaw_export.weights.official import weights_file

    if seed is not None:
        return WeightsSource(name="random", path=None, seed=seed)
    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(name, total=None, visible=False)
        path = weights_file(
            name,
            cache,
            lambda have, total: progress.update(task, completed=have, total=total, visible=True),
        )
    return WeightsSource(name=path.name, path=path)
