"""How closely FP16 storage keeps SAM's low-res logits, at any size and with any weights.

    python -m zeroflaw_benchmarks.verify.fp16.logits BUNDLE

With random weights the final masks say little: thresholds cut noise. The logits that are
thresholded say it all the same, so encoder and decoder run one after the other with true FP16
storage (see `storage`), and their logits are compared with those of the FP32 graphs.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from zeroflaw_benchmarks.verify.fp16.engines import StoredSession
from zeroflaw_benchmarks.verify.fp16.storage import StoredTensor
from zeroflaw_engines.builder.differences import cosine, relative_difference
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.contract import SAM_DECODER, SAM_ENCODER, EngineName
from zeroflaw_engines.errors import ComparisonError
from zeroflaw_engines.process.terminal import run_module
from zeroflaw_engines.sessions.batches import stacked, taken_apart
from zeroflaw_engines.sessions.onnxruntime_session import OnnxRuntimeSession
from zeroflaw_engines.sessions.session import Session
from zeroflaw_export.parity import checks as parity

MIN_COSINE: Final = 0.9995

_Logits = NDArray[np.float32]


@dataclass(frozen=True)
class LogitsAgreement:
    """FP16 storage against FP32 on one image.

    Attributes:
        image: Which of the images that exports are checked with.
        prompts: Prompts that the decoder was given, each with four masks.
        min_cosine: Of the low-res logits of one mask, the least of all; NaN where they cannot
            be compared, such as logits that are not finite.
        largest_difference: Over the largest logit of the same prompt; NaN as above.
        flipped: Share of all logits that change their sign.
    """

    image: parity.ImageKind
    prompts: int
    min_cosine: float
    largest_difference: float
    flipped: float


@dataclass(frozen=True)
class LogitsReport:
    """Of one bundle.

    Attributes:
        agreements: One for each image.
        stored: The largest magnitude of each tensor that is stored in FP16, by engine.
    """

    agreements: tuple[LogitsAgreement, ...]
    stored: dict[EngineName, list[StoredTensor]]

    @property
    def accepted(self) -> bool:
        """Say whether every mask's logits agree, and nothing overflowed."""
        overflow = any(tensor.overflows for scan in self.stored.values() for tensor in scan)
        # A NaN is refused as well.
        return not overflow and all(it.min_cosine >= MIN_COSINE for it in self.agreements)


def compare_logits(bundle: Bundle, images: Sequence[parity.ImageKind]) -> LogitsReport:
    """Run SAM's two engines in FP32 and with FP16 storage."""
    full_features = _features(_reference(bundle, SAM_ENCODER), images)
    full = _reference(bundle, SAM_DECODER)
    with tempfile.TemporaryDirectory() as folder:
        encoder = StoredSession(bundle, SAM_ENCODER, Path(folder))
        half_features = _features(encoder, images)
        half = StoredSession(bundle, SAM_DECODER, Path(folder))
        agreements = []
        for image in images:
            pairs = list(
                zip(
                    _logits(full, full_features[image]),
                    _logits(half, half_features[image]),
                    strict=True,
                )
            )
            agreements.append(agreement_of(image, pairs))
    full.close()
    half.close()
    return LogitsReport(tuple(agreements), {SAM_ENCODER: encoder.scan(), SAM_DECODER: half.scan()})


def agreement_of(
    image: parity.ImageKind, pairs: Sequence[tuple[_Logits, _Logits]]
) -> LogitsAgreement:
    """Compute the figures of one image.

    Args:
        pairs: Of each prompt, what was wanted and what was got, float32 [1, 4, L, L].
    """
    what = f"low-res logits of the {image} image"
    try:
        min_cosine = min(
            cosine(got_mask, want_mask, what)
            for want, got in pairs
            for want_mask, got_mask in zip(want[0], got[0], strict=True)
        )
        largest = max(relative_difference(got, want, what) for want, got in pairs)
    except ComparisonError:
        min_cosine = largest = math.nan
    return LogitsAgreement(
        image=image,
        prompts=len(pairs),
        min_cosine=min_cosine,
        largest_difference=largest,
        flipped=float(np.mean([((want > 0) != (got > 0)).mean() for want, got in pairs])),
    )


def _reference(bundle: Bundle, engine: EngineName) -> OnnxRuntimeSession:
    return OnnxRuntimeSession(bundle.onnx_path(engine), bundle.contract(engine))


def _features(
    encoder: Session, images: Sequence[parity.ImageKind]
) -> dict[parity.ImageKind, NDArray[np.float32]]:
    contract = encoder.contract
    side = int(contract.inputs[0].shape[1])
    found = {}
    for image in images:
        one = parity.sam_encoder_inputs(parity.sam_content(image, side), contract)
        (got,) = taken_apart(contract, encoder.execute(stacked(contract, [one])), 1)
        found[image] = got["features"]
    encoder.close()
    return found


def _logits(decoder: Session, features: NDArray[np.float32]) -> list[_Logits]:
    max_prompts, low = decoder.contract.inputs[1].shape[1], decoder.contract.inputs[3].shape[3]
    prompts = parity.decoder_prompts(int(low), int(max_prompts))
    return [decoder.execute({"features": features, **it})["low_res_logits"] for it in prompts]


def main(
    bundle: Annotated[str, typer.Argument(help="A bundle, with any weights, or mini.")],
    *,
    image: Annotated[
        list[str] | None, typer.Option(help="real or noise; repeatable. Default: both.")
    ] = None,
) -> None:
    """Compare low-res logits of FP16 storage with FP32; exit code 1 if they differ too much."""
    unknown = set(image or ()) - set(parity.IMAGE_KINDS)
    if unknown:
        raise typer.BadParameter(f"{min(unknown)!r} is none of {', '.join(parity.IMAGE_KINDS)}")
    images = [kind for kind in parity.IMAGE_KINDS if kind in (image or parity.IMAGE_KINDS)]
    report = compare_logits(open_bundle(bundle), images)
    table = Table("image", "prompts", "least cosine", "largest difference", "signs", box=None)
    for it in report.agreements:
        table.add_row(
            it.image,
            str(it.prompts),
            f"{it.min_cosine:.6f}",
            f"{it.largest_difference:.1e}",
            f"{it.flipped:.2%}",
        )
    out = Console()
    out.print(table)
    for engine, scan in report.stored.items():
        out.print(
            f"{engine}: {len(scan)} tensors stored in FP16, the largest magnitude "
            f"{max(tensor.largest for tensor in scan):.1f}"
        )
    out.print(f"{'accepted' if report.accepted else 'NOT accepted'} (cosine {MIN_COSINE})")
    raise typer.Exit(0 if report.accepted else 1)


if __name__ == "__main__":
    run_module(main)
