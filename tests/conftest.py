"""What several tests share: small bundles, frames, and where the sample images are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from zeroflaw_engines.bundle import Bundle, open_bundle

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of tiny random-weight CLIP and SAM with the products `object` and `metal_nut`.

    Exported once for all tests; copy it (shutil.copytree) before changing anything in it.
    """
    from zeroflaw_export.bundle_export import ExportPlan, WeightsSource, export_bundle

    source = WeightsSource(name="random", path=None, seed=7)
    plan = ExportPlan(
        clip_architecture="tiny",
        sam_architecture="tiny",
        clip_weights=source,
        adapters=source,
        sam_weights=source,
        products=("object", "metal_nut"),
    )
    target = tmp_path_factory.mktemp("bundles") / "tiny"
    export_bundle(plan, target)
    return open_bundle(target)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
