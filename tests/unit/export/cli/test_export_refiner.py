"""Which SAM `zeroflaw export` takes for a refiner."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from zeroflaw_export import export as module
from zeroflaw_export.cli.export import export as command

app = typer.Typer()
app.command()(command)
OPTIONS = ("--clip", "tiny", "--random-weights", "0")


@pytest.mark.parametrize(
    ("options", "refiner", "sam"),
    [
        ((), "cascade", "vit_h"),
        (("--refiner", "mmr"), "mmr", "vit_h"),
        (("--refiner", "mmr", "--sam", "tiny"), "mmr", "tiny"),
        (("--refiner", "none"), "none", None),
        (("--set", "refiner=none"), "none", None),
        (("--refiner", "none", "--sam", "tiny"), "none", "tiny"),
    ],
)
def test_without_sam_there_is_none_unless_it_is_named(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], refiner: str, sam: str | None
) -> None:
    jobs = []

    def export(job: object, *_: object, **__: object) -> SimpleNamespace:
        jobs.append(job)
        figure = SimpleNamespace(value=0.0, tolerance=1.0)
        return SimpleNamespace(
            manifest=SimpleNamespace(parity=[figure], engines={}, products={"object": None})
        )

    monkeypatch.setattr(module, "export_bundle", export)
    result = CliRunner().invoke(app, ["bundle", *OPTIONS, *options])
    assert result.exit_code == 0, result.output
    (job,) = jobs
    assert job.parameters.refiner == refiner
    assert job.sam_architecture == sam
    assert (job.sam_weights is None) is (sam is None)
    assert len(job.sources) == 2 + (sam is not None)
