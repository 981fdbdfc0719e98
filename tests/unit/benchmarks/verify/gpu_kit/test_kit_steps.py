"""The kit's steps are commands that there are, with options that they take."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import typer

from zeroflaw.cli import commands as cli
from zeroflaw_benchmarks.bench.measure.peers import PEERS
from zeroflaw_benchmarks.verify import attention_kernels
from zeroflaw_benchmarks.verify.gpu_acceptance.__main__ import main as gpu_acceptance
from zeroflaw_benchmarks.verify.gpu_kit import rtx_probe
from zeroflaw_benchmarks.verify.gpu_kit.installation import Place
from zeroflaw_benchmarks.verify.gpu_kit.steps import steps_for
from zeroflaw_engines.backends import BACKENDS
from zeroflaw_engines.tensorrt_bindings import load_bindings

PLACE = Place(Path("work"), Path(__file__).parents[5])
STEPS = [
    pytest.param(one, id=f"{one.name}{'-dry' * dry}")
    for dry in (False, True)
    for one in steps_for(PLACE, dry_run=dry)
]
VERIFY = "zeroflaw_benchmarks.verify."


def options_of(function) -> set[str]:
    app = typer.Typer(add_completion=False)
    app.command()(function)
    command = typer.main.get_command(app)
    return {name for one in command.params for name in (*one.opts, *one.secondary_opts)}


def zeroflaw_options(words: tuple[str, ...]) -> set[str]:
    if not cli.app.registered_commands:
        cli.all_commands()
    command = typer.main.get_command(cli.app)
    for word in words:
        inner = getattr(command, "commands", {}).get(word)
        if inner is None:
            break
        command = inner
    assert not hasattr(command, "commands"), f"{words} names no command"
    return {name for one in command.params for name in (*one.opts, *one.secondary_opts)}


@pytest.mark.parametrize("step", STEPS)
def test_every_command_takes_what_it_is_given(step) -> None:
    for _, _, module, *words in step.commands:
        assert importlib.util.find_spec(module) is not None
        given = {word for word in words if word.startswith("--")}
        if module == "zeroflaw.cli.app":
            known = zeroflaw_options(tuple(words))
        elif module == VERIFY + "gpu_acceptance":
            known = options_of(gpu_acceptance)
        elif module == VERIFY + "attention_kernels":
            known = options_of(attention_kernels.main)
        else:
            known = set()
        assert given <= known, f"{module} takes no {sorted(given - known)}"
        for option, allowed in (("--backend", BACKENDS), ("--peers", PEERS)):
            values = [words[i + 1] for i, word in enumerate(words) if word == option]
            assert set(values) <= set(allowed)


def test_needs_are_steps_and_a_dry_run_needs_no_gpu() -> None:
    for dry in (False, True):
        steps = steps_for(PLACE, dry_run=dry)
        names = [one.name for one in steps]
        assert len(set(names)) == len(names)
        assert {need for one in steps for need in one.needs} <= set(names)
        words = [w for s in steps if not (dry and s.gpu_only) for c in s.commands for w in c]
        assert any("cuda" in word for word in words) != dry


def test_the_probe_builds_for_no_named_architecture() -> None:
    bindings = load_bindings("tensorrt-rtx")
    log = bindings.Logger(bindings.Logger.ERROR)
    weights = np.ones((64, 64), np.float16)
    assert rtx_probe.build(bindings, log, "unset", rtx_probe.model(weights))
    assert rtx_probe.build(bindings, log, "unset", b"no network") is None
    assert all(hasattr(bindings.ComputeCapability, name) for name in rtx_probe.TARGETS[1:])
