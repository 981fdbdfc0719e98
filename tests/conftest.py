"""What several tests share: small bundles, frames, and where the sample images are."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from support.exported_bundle import language_free, tiny_job
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of tiny random-weight CLIP and SAM with the products `object` and `metal_nut`.

    Exported once for all tests; copy it (shutil.copytree) before changing anything in it.
    """
    from zeroflaw_export.export import export_bundle

    target = tmp_path_factory.mktemp("bundles") / "tiny"
    export_bundle(tiny_job("object", "metal_nut"), target)
    return open_bundle(target)


@pytest.fixture(scope="session")
def textless_bundle(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """VisualAD on the towers of `tiny_bundle`, which takes no texts, with the product `object`.

    Copy it before changing anything in it.
    """
    return language_free(tiny_bundle, tmp_path_factory.mktemp("bundles") / "textless")


@pytest.fixture(scope="session")
def fp16_bundle(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny bundle with FP16 graphs for TensorRT; copy it before changing anything in it."""
    from zeroflaw_export.graphs.add_fp16 import add_fp16_graphs

    target = tmp_path_factory.mktemp("bundles") / "fp16"
    shutil.copytree(tiny_bundle.path, target)
    add_fp16_graphs(open_bundle(target))
    return open_bundle(target)


@pytest.fixture(scope="session")
def batch_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A tiny bundle whose encoders take up to 4 images in one call, with its FP16 graphs.

    Its weights are those of `tiny_bundle`; copy it before changing anything in it.
    """
    from zeroflaw_export.export import export_bundle

    target = tmp_path_factory.mktemp("bundles") / "batches"
    job = dataclasses.replace(tiny_job("object"), max_batch=4, precision="fp16")
    export_bundle(job, target)
    return open_bundle(target)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long",
        action="store_true",
        help="also run what takes ten seconds or more (CI does: it sets CI=true)",
    )
    parser.addoption(
        "--full-size",
        action="store_true",
        help="also run ViT-H and ViT-L/14-336 (CI does)",
    )
    parser.addoption(
        "--every-python",
        action="store_true",
        help="also install the wheel under every Python that is declared (CI does)",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long tests come last, and only in CI or when they are asked for."""
    late = {"long": "--long", "every_python": "--every-python", "full_size": "--full-size"}
    first = [item for item in items if not late.keys() & item.keywords.keys()]
    for marker, option in late.items():
        marked = [item for item in items if marker in item.keywords]
        if config.getoption(option) or os.environ.get("CI") == "true":
            first += marked
        else:
            config.hook.pytest_deselected(items=marked)
    items[:] = first
