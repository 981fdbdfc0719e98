"""What several integration tests share: the full-size bundle and what is evaluated on."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.datasets import write_dataset
from support.embedded_library import EmbeddedLibrary, build_library
from support.exported_bundle import Exported, export

# The bundle with its FP16 graphs and engines (8 GB) and a graph of one test beside it.
FULL_SIZE_DISK = 14e9
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """ViT-H and ViT-L/14-336 at 518 px.

    FP16 graphs and engines may be added to it; nothing else may be changed.
    """
    path = tmp_path_factory.mktemp("full_size") / "bundle"
    free = shutil.disk_usage(path.parent).free
    if free < FULL_SIZE_DISK:
        pytest.fail(
            f"the full-size tests write up to {FULL_SIZE_DISK / 1e9:.0f} GB, and"
            f" {path.parent.parent} has {free / 1e9:.1f} GB free; set TMPDIR to another disk"
        )
    return export(path, "vit_l_14_336", "vit_h")


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> EmbeddedLibrary:
    """libzeroflaw, installed from a CMake build, with its examples."""
    return build_library(tmp_path_factory.mktemp("embedding"))


@pytest.fixture(scope="session", autouse=True)
def programs_can_be_interrupted() -> None:
    """A job in the background of a shell ignores SIGINT, and so would the programs it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def dataset_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("datasets") / "small")


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encodings that several tests read; none of them changes what is in it."""
    return tmp_path_factory.mktemp("caches") / "shared"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, by the README's command; what it is built in does not stay in the checkout."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (words,) = re.findall(r"^pip (wheel --no-deps -w )dist \.", readme, flags=re.MULTILINE)
    folder = tmp_path_factory.mktemp("wheel")
    settings = folder / "build.cfg"
    settings.write_text(f"[build]\nbuild_base = {folder / 'build'}\n", encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "pip", *words.split(), folder, ROOT],
        env={**os.environ, "DIST_EXTRA_CONFIG": str(settings)},
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("zeroflaw-*.whl")
    return built
