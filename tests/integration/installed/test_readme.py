"""The README's examples, run as they stand."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

from support.command_line import ZEROFLAW
from support.datasets import write_dataset
from zeroflaw_engines.builder.build import BUILT_ENGINES
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.contract import BOX_PROPOSER

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def station(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    """A directory with what the examples name: bundles, photos/, good/, mvtec_ad/, pcb1.toml."""
    for name in ("my_bundle", "clipsam_bundle"):
        shutil.copytree(tiny_bundle.path, tmp_path / name)
    (tmp_path / "photos").mkdir()
    Image.fromarray(data.coffee()).save(tmp_path / "photos" / "part.jpg")
    (tmp_path / "pcb1.toml").write_text("[tiles]\nrows = 1\ncolumns = 2\n")
    write_dataset(tmp_path / "mvtec_ad", train=4)
    shutil.copytree(tmp_path / "mvtec_ad" / "metal_nut" / "train" / "good", tmp_path / "good")
    return tmp_path


@pytest.mark.parametrize(
    ("page", "product"), [("README.md", "metal_nut"), ("docs/index.md", "object")]
)
def test_python_example_runs(
    page: str, product: str, station: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    monkeypatch.chdir(station)
    names: dict[str, object] = {}
    exec(code, names)  # noqa: S102 - our own pages
    assert names["inspection"].product == product  # type: ignore[attr-defined]


@pytest.mark.long
def test_station_commands_run(station: Path) -> None:
    lines = [line.split("#")[0].split() for line in README.splitlines()]
    commands = [line for line in lines if line[:1] == ["zeroflaw"]]
    # These need CLIP's weights; their own tests run them without.
    workstation = [line for line in commands if line[1] in {"export", "train-adapters"}]
    others = [line for line in commands if line not in workstation]
    assert len(workstation) == 4
    assert {line[1] for line in others} == {
        "build",
        "bundle",
        "calibrate",
        "engines",
        "evaluate",
        "inspect",
        "products",
    }
    # What `export --precision fp16` would have added.
    subprocess.run([ZEROFLAW, "add-fp16", "my_bundle"], check=True, cwd=station)
    for line in others:
        subprocess.run([ZEROFLAW, *line[1:]], check=True, cwd=station, capture_output=True)
    assert (station / "results" / "part.overlay.png").exists()
    assert "pcb1" in open_bundle(station / "my_bundle").manifest.products
    built = (station / "my_bundle" / "engines").rglob("*.engine")
    assert {path.stem for path in built} == set(BUILT_ENGINES) - {BOX_PROPOSER}


def test_make_targets_exist_and_ci_runs_the_readmes_test_command() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert f"\n{target}:" in makefile
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").rstrip().endswith("exec make test")


def test_a_broken_link_fails_the_build_of_the_manual(tmp_path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (command,) = re.findall(r"\$\(BIN\)/(mkdocs .*)", makefile)
    for name in ("README.md", "mkdocs.yml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    with (tmp_path / "docs" / "method.md").open("a", encoding="utf-8") as page:
        page.write("[gone](bundle.md#no-such-section)\n")
    mkdocs = Path(sys.executable).with_name("mkdocs")
    built = subprocess.run(
        [mkdocs, *command.split()[1:]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert built.returncode == 1
    assert "#no-such-section" in built.stderr


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_modules_and_files_that_pages_name_exist() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    modules, files = set(), set()
    for page in pages:
        text = page.read_text(encoding="utf-8")
        modules |= set(re.findall(r"python\s+-m\s+((?:zeroflaw|support)[\w.]*)", text))
        modules |= set(re.findall(r"`(zeroflaw_[a-z]+(?:\.[a-z_0-9]+)+)`", text))
        files |= set(re.findall(r"`((?:engines|export|runtime|benchmarks|tests)/[\w/.]+)`", text))
    assert len(modules) > 12
    for module in modules:
        name, _, member = module.rpartition(".")
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        assert found or hasattr(importlib.import_module(name), member), module
    for file in files:
        assert (ROOT / file).exists(), file
