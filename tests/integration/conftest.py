"""What several integration tests share: the full-size bundle, which takes minutes to export."""

from __future__ import annotations

import signal

import pytest

from support.embedded_library import EmbeddedLibrary, build_library
from support.exported_bundle import Exported, export


@pytest.fixture(scope="session")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """ViT-H and ViT-L/14-336 at 518 px.

    FP16 graphs and engines may be added to it; nothing else may be changed.
    """
    path = tmp_path_factory.mktemp("full_size") / "bundle"
    return export(path, "vit_l_14_336", "vit_h")


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> EmbeddedLibrary:
    """libzeroflaw, installed from a CMake build, with its examples."""
    return build_library(tmp_path_factory.mktemp("embedding"))


@pytest.fixture(scope="session", autouse=True)
def programs_can_be_interrupted() -> None:
    """A job in the background of a shell ignores SIGINT, and so would the programs it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
