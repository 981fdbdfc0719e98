"""The PyTorch models behind a bundle, for those that run them beside it."""

from __future__ import annotations

from segment_anything.modeling import Sam

from zeroflaw_benchmarks.reference.reference_pipeline import ReferenceClip
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.errors import BenchmarkError
from zeroflaw_export.models.architectures import clip_architecture, sam_architecture
from zeroflaw_export.models.load import WeightsSource, load_clip, load_linear_adapters, load_sam

_OTHER_SEED = 3


def weights_note(bundle: Bundle) -> str:
    """Say for a reader of a comparison what the weights of the reference models are."""
    if bundle.manifest.random_weights is not None:
        return "the bundle's"
    return "random, same architecture"


def reference_sam(bundle: Bundle) -> Sam:
    """Load SAM: with the bundle's weights if they are random, else with random ones.

    Times are the same with either.

    Raises:
        BenchmarkError: The bundle has no SAM.
    """
    sam = bundle.manifest.sam
    if sam is None:
        raise BenchmarkError(
            f"the bundle {bundle.path} has no SAM to compare with", "take a bundle with SAM"
        )
    return load_sam(sam_architecture(sam.architecture), _source(bundle))


def reference_clip(bundle: Bundle) -> ReferenceClip:
    """Load CLIP and its adapters, with weights as those of `reference_sam`.

    Raises:
        BenchmarkError: The bundle's localizer is not APRIL-GAN's, which alone is written here.
    """
    manifest = bundle.manifest
    if manifest.localizer is not None:
        raise BenchmarkError(
            f"the PyTorch models that {bundle.path} is measured beside are those of april_gan, and"
            f" its localizer is {manifest.localizer.name}",
            "measure it without PyTorch, or export a bundle of april_gan",
        )
    architecture = clip_architecture(manifest.clip.architecture)
    size = manifest.clip.image_size
    model = load_clip(architecture, size, _source(bundle))
    adapters = load_linear_adapters(architecture, _source(bundle))
    return ReferenceClip(model, adapters, architecture.tapped_blocks, size)


def _source(bundle: Bundle) -> WeightsSource:
    seed = bundle.manifest.random_weights
    return WeightsSource(name="random", path=None, seed=_OTHER_SEED if seed is None else seed)
