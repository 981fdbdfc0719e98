"""The number of the GPU: every command that takes a backend takes it, and all engines get it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from support.small_bundle import write_small_bundle
from zeroflaw import sessions as module
from zeroflaw.cli.commands import all_commands
from zeroflaw.inspector import Inspector
from zeroflaw.sessions import load_bundle
from zeroflaw_engines.backends import BackendChoice
from zeroflaw_engines.errors import BackendUnavailableError


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, set[str]]]:
    if hasattr(group, "commands"):
        for name, command in group.commands.items():
            yield from commands(command, (*path, name))
    else:
        yield " ".join(path), {option for one in group.params for option in one.opts}


def test_every_command_with_a_backend_takes_a_device() -> None:
    found = dict(commands(typer.main.get_command(all_commands())))
    with_backend = {name for name, options in found.items() if "--backend" in options}
    assert {"inspect", "build", "calibrate", "products learn"} <= with_backend
    assert with_backend <= {name for name, options in found.items() if "--device" in options}


def test_every_engine_gets_the_device(tmp_path, monkeypatch) -> None:
    bundle = write_small_bundle(tmp_path / "b")
    asked = []

    def choose(name, precision, **more):
        asked.append(("choose", more["device"]))
        return BackendChoice("tensorrt-rtx", "fp16", "named")

    class Session:
        backend = "scripted"

        def close(self) -> None: ...

    def load(_, engine, **more):
        asked.append((engine, more["device"]))
        return Session()

    monkeypatch.setattr(module, "choose_backend", choose)
    monkeypatch.setattr(module, "load_session", load)
    load_bundle(bundle.path, "tensorrt-rtx", device=3)
    assert [name for name, _ in asked][:2] == ["choose", "clip_encoder"]
    assert {device for _, device in asked} == {3}


@pytest.mark.parametrize("device", [1, 7])
def test_an_inspector_on_the_processor_refuses_a_gpu(device: int) -> None:
    with pytest.raises(BackendUnavailableError, match=f"device 0 alone, not {device}"):
        Inspector.load("mini", device=device)
