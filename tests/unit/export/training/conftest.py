"""What the tests of the training share: a tower, and a data set to train on."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.adapter_training import SIZE, SOURCE, Bench
from support.datasets import write_defect_pictures
from zeroflaw_export.datasets import read_dataset
from zeroflaw_export.models.adapters import LinearAdapters
from zeroflaw_export.models.architectures import clip_architecture
from zeroflaw_export.models.load import load_clip
from zeroflaw_export.training.run import frozen_tower
from zeroflaw_export.training.token_cache import FrozenTower


@pytest.fixture(scope="session")
def tower() -> FrozenTower:
    architecture = clip_architecture("tiny")
    return frozen_tower(load_clip(architecture, SIZE, SOURCE), architecture, SIZE, SOURCE)


@pytest.fixture
def bench(tower: FrozenTower, tmp_path: Path) -> Bench:
    root = write_defect_pictures(tmp_path / "data")
    return Bench(read_dataset(root), tower, tmp_path)


@pytest.fixture(scope="session")
def undisturbed(tower: FrozenTower, tmp_path_factory: pytest.TempPathFactory) -> LinearAdapters:
    """What a run gives that nothing interrupts."""
    folder = tmp_path_factory.mktemp("undisturbed")
    root = write_defect_pictures(folder / "data")
    adapters, _ = Bench(read_dataset(root), tower, folder).train()
    return adapters
