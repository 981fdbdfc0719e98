"""The steps' commands, parsed by the programs that they start; none of them is run."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from zeroflaw.cli.commands import all_commands
from zeroflaw_benchmarks.bench.measure.gpu_peers import GPU_PEERS
from zeroflaw_benchmarks.bench.measure.peers import PEERS
from zeroflaw_benchmarks.verify.gpu_kit import machine_report, rtx_probe
from zeroflaw_benchmarks.verify.gpu_kit.installation import Place
from zeroflaw_benchmarks.verify.gpu_kit.steps import Step, steps_for
from zeroflaw_engines.backends import BACKENDS
from zeroflaw_engines.bundle.bundle import open_bundle

ROOT: Final = Path(__file__).resolve().parents[5]
VERIFY: Final = "zeroflaw_benchmarks.verify"
ZEROFLAW: Final = "zeroflaw.cli.app"
# Modules whose `main` takes no words at all.
WITHOUT_WORDS: Final = {
    f"{VERIFY}.gpu_kit.machine_report": machine_report.main,
    f"{VERIFY}.gpu_kit.rtx_probe": rtx_probe.main,
}
# Typer brings a click of its own or takes the installed one, by version.
USAGE_ERROR: Final = typer.BadParameter.__base__


def commands() -> list[tuple[str, tuple[str, ...]]]:
    """Module and words of every command, on a GPU machine and in a dry run."""
    found = []
    for dry_run in (False, True):
        for step in steps_for(Place(Path("/work_of_the_kit"), ROOT), dry_run=dry_run):
            if dry_run and step.gpu_only:
                continue
            for program, dash_m, module, *words in step.commands:
                assert (program, dash_m) == (sys.executable, "-m")
                found.append((module, tuple(words)))
    return list(dict.fromkeys(found))


def parsed(module: str, words: tuple[str, ...]) -> dict[str, Any]:
    """What a command's program reads from its words.

    Raises:
        USAGE_ERROR: There is no such command, option or value.
    """
    command = command_of(module)
    context = command.make_context("it", list(words))
    while hasattr(command, "commands"):
        given = [*context._protected_args, *context.args]
        name, command, left = command.resolve_command(context, given)
        assert command is not None
        context = command.make_context(name, left, parent=context)
    return dict(context.params)


@cache
def command_of(module: str) -> Any:
    if module == ZEROFLAW:
        return typer.main.get_command(all_commands())
    name = f"{module}.__main__" if is_package(module) else module
    app = typer.Typer(add_completion=False)
    app.command()(importlib.import_module(name).main)
    return typer.main.get_command(app)


def is_package(module: str) -> bool:
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.submodule_search_locations is not None


@pytest.mark.parametrize(("module", "words"), commands(), ids=lambda part: str(part)[:70])
def test_every_command_is_one_that_its_program_takes(module: str, words: tuple[str, ...]) -> None:
    assert importlib.util.find_spec(module) is not None
    if is_package(module):
        assert importlib.util.find_spec(f"{module}.__main__") is not None
    if module in WITHOUT_WORDS:
        assert words == ()
        return
    given = parsed(module, words)
    if "backend" in given:
        backend = BACKENDS[given["backend"]]
        assert given.get("precision") in {None, *backend.precisions}
    for peer in given.get("peers") or ():
        assert peer in PEERS
    for image in given.get("images") or ():
        assert Path(image).exists()


def test_words_that_no_program_takes_are_noticed() -> None:
    for module, words in (
        (ZEROFLAW, ("bench", "mini", "--pears", "torch")),
        (ZEROFLAW, ("bunch", "mini")),
        (ZEROFLAW, ("bundle", "copie", "mini", "other")),
        (f"{VERIFY}.gpu_acceptance", ("mini", "--soak-runs", "many")),
        (f"{VERIFY}.attention_kernels", ("--backends", "onnxruntime")),
    ):
        with pytest.raises(USAGE_ERROR):
            parsed(module, words)


def test_peers_of_a_gpu_are_in_the_precision_of_ours() -> None:
    named = []
    for module, words in commands():
        if "--peers" in words:
            given = parsed(module, words)
            named += list(given["peers"])
            assert all(peer.endswith(f"-{given['precision']}") for peer in given["peers"])
    assert set(named) == {"torch-eager-fp16", "torch-cuda-graph-fp16", "torch-compile-fp16"}
    assert set(named) <= set(GPU_PEERS)
    assert len(named) == len(set(named))


@pytest.mark.parametrize("dry_run", [False, True])
def test_steps_name_each_other_and_fit_a_call(dry_run: bool) -> None:
    place = Place(Path("/work_of_the_kit"))
    steps = steps_for(place, dry_run=dry_run)
    names = [step.name for step in steps]
    assert len(names) == len(set(names))
    for number, step in enumerate(steps):
        assert set(step.needs) <= set(names[:number])
        assert set(step.parts) <= {"ort", "rtx"}
        # Else no call of the default budget could end it.
        assert step.limit_s < 570 or step.background
        if step.verdict is not None:
            assert step.verdict.parent == place.reports
            assert str(step.verdict) in step.commands[-1]
    assert [step.name for step in steps if step.background] == ["export_full"]


def test_reports_are_written_where_they_are_packed_and_once() -> None:
    place = Place(Path("/work_of_the_kit"))
    outs = [out for step in steps_for(place) for out in outs_of(step)]
    assert len(outs) == len(set(outs))
    assert {out.parent for out in outs} == {place.reports}


def outs_of(step: Step) -> list[Path]:
    return [
        Path(after)
        for command in step.commands
        for word, after in pairwise(command)
        if word == "--out"
    ]


def test_a_dry_run_has_no_backend_of_a_gpu() -> None:
    for step in steps_for(Place(Path("/work_of_the_kit")), dry_run=True):
        words = [word for command in step.commands for word in command]
        if not step.gpu_only:
            assert not {"onnxruntime-cuda", "tensorrt", "tensorrt-rtx", "vit_h"} & set(words)


def test_the_product_whose_texts_are_taken_is_one_of_mini() -> None:
    mini = open_bundle("mini")
    for module, words in commands():
        if "learn" in words:
            assert parsed(module, words)["texts_of"] in mini.manifest.products
