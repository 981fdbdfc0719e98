"""Remedies that can be followed: each `zeroflaw ...` that a text names is a command that exists."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import typer

from zeroflaw.cli.commands import all_commands
from zeroflaw_engines.bundle.bundle import open_bundle

ROOT = Path(__file__).parents[3]
NAMED = re.compile(r"`zeroflaw ((?:--?)?[a-z][^`]*)`")


def commands() -> dict[str, str]:
    """What stands in backquotes after `zeroflaw`, and the file it stands in."""
    found: dict[str, str] = {}
    for package in ("engines", "runtime", "export", "benchmarks"):
        for path in (ROOT / package).rglob("*.py"):
            # Texts that are broken over lines in the source are one text.
            source = re.sub(r'"\s*\n\s*f?"', "", path.read_text("utf-8"))
            found |= dict.fromkeys(NAMED.findall(source), str(path.relative_to(ROOT)))
    return found


@pytest.fixture(scope="module")
def root() -> Any:
    return typer.main.get_command(all_commands())


@pytest.mark.parametrize(("text", "file"), sorted(commands().items()))
def test_the_command_and_its_options_exist(root: Any, text: str, file: str) -> None:
    command = root
    options = {name for parameter in root.params for name in parameter.opts}
    for word in text.split():
        if word.startswith("-"):
            assert word in options, f"{file}: `zeroflaw {text}` has no option {word}"
        elif hasattr(command, "commands"):
            assert word in command.commands, f"{file}: there is no `zeroflaw {text}`"
            command = command.commands[word]
            options |= {name for parameter in command.params for name in parameter.opts}


def test_the_texts_are_found() -> None:
    assert len(commands()) > 15


def test_a_product_is_added_to_a_copy_of_the_shipped_bundle(tmp_path: Path) -> None:
    mini = open_bundle("mini")
    assert "`zeroflaw bundle copy mini my_bundle`" in mini.how_to_add("nut")
    copied = dataclasses.replace(mini, path=tmp_path)
    assert copied.how_to_add("nut") == f"add it with `zeroflaw products add {tmp_path} nut`"
