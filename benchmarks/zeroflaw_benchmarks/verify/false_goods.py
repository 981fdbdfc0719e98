"""Never a false good: tampered engine outputs and odd frames, and what became of them.

    python -m zeroflaw_benchmarks.verify.false_goods examples --outputs 500 --frames 300

A tampered or odd frame may be accepted only if the frame that it was made of is.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from zeroflaw.cli.left_out import search_and_report
from zeroflaw.inspector import Inspector
from zeroflaw.pictures.images import read_image
from zeroflaw_benchmarks.verify.odd_frames import ODDITIES, Oddity
from zeroflaw_benchmarks.verify.tampered_outputs import tampered_inspectors
from zeroflaw_engines.bundle.shipped import SHIPPED_NAME
from zeroflaw_engines.errors import ZeroflawError
from zeroflaw_engines.image_files.frame import Frame, rgb_frame
from zeroflaw_engines.process.terminal import run_module

REFUSED = "refused"


@dataclass(frozen=True)
class Original:
    """A frame as it is, and its decision."""

    frame: Frame
    decision: str


@dataclass(eq=False)
class Tally:
    """What became of tampered frames, by kind.

    Attributes:
        outcomes: Numbers of `accept`, `reject`, `hold` and `refused` (an error) by kind.
        false_goods: How many were accepted whose original is not.
    """

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    false_goods: int = 0

    def add(self, kind: str, outcome: str, original: Original) -> None:
        """Count one frame."""
        self.outcomes.setdefault(kind, Counter())[outcome] += 1
        self.false_goods += outcome == "accept" and original.decision != "accept"


def outcome_of(inspector: Inspector, image: Any, product: str | None) -> str:  # noqa: ANN401
    """Inspect whatever is given: its decision, or `refused`."""
    try:
        return inspector.inspect(image, product=product).decision
    except ZeroflawError:
        return REFUSED


def originals_of(
    inspector: Inspector, frames: Iterable[Frame], product: str | None
) -> list[Original]:
    """Inspect frames as they are."""
    return [Original(frame, outcome_of(inspector, frame, product)) for frame in frames]


def try_tampered_outputs(
    inspector: Inspector, originals: list[Original], product: str | None, count: int, seed: int = 0
) -> Tally:
    """Inspect frames with engines whose outputs are tampered with."""
    rng = np.random.default_rng(seed)

    def forever() -> Iterator[tuple[str, Inspector, Oddity]]:
        while True:
            for kind, tampered in tampered_inspectors(inspector, rng):
                yield kind, tampered, lambda frame, _: frame

    return _tally(itertools.islice(forever(), count), originals, product, rng)


def try_odd_frames(
    inspector: Inspector, originals: list[Original], product: str | None, count: int, seed: int = 0
) -> Tally:
    """Inspect what cameras give that see nothing or are set up wrongly."""
    odd = ((kind, inspector, make) for kind, make in itertools.cycle(ODDITIES.items()))
    return _tally(itertools.islice(odd, count), originals, product, np.random.default_rng(seed))


def _tally(
    trials: Iterable[tuple[str, Inspector, Oddity]],
    originals: list[Original],
    product: str | None,
    rng: np.random.Generator,
) -> Tally:
    """Inspect what trials make of the originals, taken in turn."""
    tally = Tally()
    for (kind, inspector, make), original in zip(trials, itertools.cycle(originals), strict=False):
        tally.add(kind, outcome_of(inspector, make(original.frame, rng), product), original)
    return tally


def table_of(title: str, tally: Tally) -> Table:
    """Lay out what became of the frames, by kind."""
    columns = ("accept", "reject", "hold", REFUSED)
    table = Table("", *columns, title=title, box=None, title_justify="left")
    for kind, found in sorted(tally.outcomes.items()):
        table.add_row(kind, *(str(found[column]) for column in columns))
    total = sum(tally.outcomes.values(), Counter[str]())
    table.add_row("all", *(str(total[column]) for column in columns))
    return table


def main(
    images: Annotated[list[Path], typer.Argument(help="Image files and folders of them.")],
    *,
    bundle: Annotated[str, typer.Option(help="The bundle.")] = SHIPPED_NAME,
    product: Annotated[str, typer.Option("--product", "-p", help="The product.")] = "object",
    threshold: Annotated[
        float, typer.Option(help="Decision threshold: high, so that much would be accepted.")
    ] = 0.9,
    outputs: Annotated[int, typer.Option(min=0, help="Tampered engine outputs.")] = 500,
    frames: Annotated[int, typer.Option(min=0, help="Odd frames.")] = 300,
) -> None:
    """Print what becomes of tampered outputs and odd frames; exit with 1 at a false good."""
    console = Console(highlight=False)
    with Inspector.load(bundle) as loaded:
        parameters = loaded.parameters.replace(decision_threshold=threshold)
        inspector = Inspector(loaded.bundle, loaded.sessions, parameters=parameters)
        pictures = search_and_report(images).pictures
        seen = [rgb_frame(read_image(picture.path)) for picture in pictures]
        originals = originals_of(inspector, seen, product)
        found = dict(Counter(original.decision for original in originals))
        console.print(f"{len(originals)} originals: {found}")
        tallies = {
            "tampered engine outputs": try_tampered_outputs(inspector, originals, product, outputs),
            "odd frames": try_odd_frames(inspector, originals, product, frames),
        }
    for title, tally in tallies.items():
        console.print(table_of(title, tally))
    false_goods = sum(tally.false_goods for tally in tallies.values())
    console.print(f"accepted though the original is not: {false_goods}")
    if false_goods:
        raise typer.Exit(1)


if __name__ == "__main__":
    run_module(main)
