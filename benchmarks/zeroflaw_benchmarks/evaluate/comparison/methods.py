"""Which methods are compared: bundles, each with its recorded refiner and those asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zeroflaw.sessions import engines_of_refiner
from zeroflaw_benchmarks.evaluate.passes.scorings import INSPECTED_REFINERS
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.errors import EngineError, EvaluationError, ParametersError
from zeroflaw_engines.parameters import MethodParameters, Refiner


@dataclass(frozen=True)
class Method:
    """One method: a bundle's localizer with a refiner.

    Attributes:
        name: Localizer and refiner, and the bundle's name where two methods share these.
        bundle: As `open_bundle` takes it.
        identity: `Bundle.identity`.
        localizer: Name in the registry of the export.
        parameters: Of the refiner.
    """

    name: str
    bundle: str
    identity: str
    localizer: str
    parameters: MethodParameters


def methods_of(
    bundles: Sequence[str],
    refiners: Sequence[Refiner],
    *,
    shots: bool,
    adjusted: Callable[[MethodParameters], MethodParameters] = lambda recorded: recorded,
) -> tuple[Method, ...]:
    """List the methods: each bundle with its recorded refiner, then with the others asked for.

    Args:
        bundles: One that is named twice is listed once.
        shots: Whether they are measured with reference photos as well.
        adjusted: Makes the parameters of a method from the recorded ones with its refiner.

    Raises:
        BundleError: A bundle is missing or damaged.
        EvaluationError: A bundle lacks the engines of a refiner or cannot be measured with it as
            asked for.
    """
    found: list[tuple[Bundle, Method]] = []
    refused: list[str] = []
    seen: set[Path] = set()
    for name in bundles:
        opened = open_bundle(name)
        if opened.path.resolve() in seen:
            continue
        seen.add(opened.path.resolve())
        manifest = opened.manifest
        recorded = manifest.method_parameters
        for refiner in dict.fromkeys((recorded.refiner, *refiners)):
            title = f"{manifest.localizer_name} + {refiner}"
            try:
                engines_of_refiner(opened, refiner)
                parameters = adjusted(recorded.replace(refiner=refiner))
            except (EngineError, ParametersError) as error:
                refused.append(f"{name} with {refiner}: {error.cause}")
                continue
            if parameters.refiner != refiner:
                refused.append(f"{name} with {refiner}: --set says {parameters.refiner} for all")
                continue
            if shots and refiner in INSPECTED_REFINERS:
                refused.append(
                    f"{name} with {refiner}: it takes the frame itself, and --shots measures on"
                    " encodings"
                )
                continue
            method = Method(title, name, opened.identity, manifest.localizer_name, parameters)
            found.append((opened, method))
    if refused:
        raise EvaluationError(
            f"{len(refused)} of the rows cannot be measured: {'; '.join(refused)}",
            "leave these bundles, --refiner or --set out, or compare them without --shots",
        )
    return _told_apart(found)


def _told_apart(found: Sequence[tuple[Bundle, Method]]) -> tuple[Method, ...]:
    named = [method for _, method in found]
    for suffix in (lambda bundle: bundle.path.name, lambda bundle: str(bundle.path)):
        shared = Counter(method.name for method in named)
        named = [
            replace(now, name=f"{was.name} ({suffix(bundle)})") if shared[now.name] > 1 else now
            for now, (bundle, was) in zip(named, found, strict=True)
        ]
    return tuple(named)
