"""The program itself: `python -m zeroflaw`, and what shells need to complete its words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.command_line import zeroflaw

MODULE = [sys.executable, "-m", "zeroflaw"]


def completions(words: str, home: Path) -> list[str]:
    """What bash would offer for the last word, as typer's script asks for it."""
    environment = {
        "_ZEROFLAW_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
        "HOME": str(home),
    }
    done = zeroflaw(env=os.environ | environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_the_module_is_the_program() -> None:
    for words in (["--version"], ["--help"], ["inspect"], ["products", "list", "missing"]):
        module = subprocess.run([*MODULE, *words], capture_output=True, text=True, check=False)
        program = zeroflaw(*words)
        assert (module.returncode, module.stdout) == (program.returncode, program.stdout)
        assert module.stderr == program.stderr
        assert "__main__" not in module.stdout + module.stderr
    assert "Usage: zeroflaw inspect" in zeroflaw("inspect").stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("zeroflaw in", {"inspect"}),
        ("zeroflaw bundle ", {"verify", "copy", "upgrade", "info"}),
        ("zeroflaw products l", {"list", "learn"}),
        ("zeroflaw inspect --sched", {"--schedule"}),
        ("zeroflaw inspect mini x --schedule ", {"side_by_side", "clip_first"}),
    ],
)
def test_words_are_completed(words: str, expected: set[str], tmp_path: Path) -> None:
    assert set(completions(words, tmp_path)) == expected
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_printed(shell: str, tmp_path: Path) -> None:
    """Otherwise the shell is the one that started the program, which is none in a test."""
    environment = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", "HOME": str(tmp_path)}
    done = zeroflaw("--show-completion", shell, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    assert f"_ZEROFLAW_COMPLETE=complete_{shell}" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_shell_is_found_and_its_completion_installed(tmp_path: Path) -> None:
    home = os.environ | {"HOME": str(tmp_path), "SHELL": "/bin/bash"}
    command = ["bash", "-c", f"'{sys.executable}' -m zeroflaw --install-completion; true"]
    done = subprocess.run(command, capture_output=True, text=True, env=home, check=False)
    assert "bash completion installed" in done.stdout, done.stderr
    script = (tmp_path / ".bash_completions" / "zeroflaw.sh").read_text()
    assert "complete -o default -F _zeroflaw_completion zeroflaw" in script


def test_completing_loads_no_engine_library() -> None:
    """So that it costs what `--version` costs."""
    code = (
        "import sys\n"
        "from zeroflaw.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print({'onnxruntime', 'openvino', 'torch', 'tensorrt_rtx'} & sys.modules.keys())"
    )
    environment = {
        "_ZEROFLAW_COMPLETE": "complete_bash", "COMP_WORDS": "zeroflaw in", "COMP_CWORD": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=os.environ | environment,
    )  # fmt: skip
    assert done.stdout.split("\n")[:2] == ["inspect", "set()"]
