"""What the evaluation's tests share: engines whose calls are counted, and a train split."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from support.datasets import write_dataset
from zeroflaw_benchmarks.evaluate.passes import decoding_pass, encoding_pass, reference_pass


@pytest.fixture
def calls(monkeypatch) -> Counter:
    """Counts the calls of each engine in this process."""
    counted: Counter = Counter()

    class Counting:
        def __init__(self, session):
            self._session = session
            self.contract, self.backend, self.close, self.upload = (
                session.contract,
                session.backend,
                session.close,
                session.upload,
            )

        def execute(self, inputs, *, keep=()):
            counted[self.contract.name] += 1
            return self._session.execute(inputs, keep=keep)

    for module in (encoding_pass, decoding_pass, reference_pass):
        load = module.load_session
        monkeypatch.setattr(
            module, "load_session", lambda *a, load=load, **k: Counting(load(*a, **k))
        )
    return counted


@pytest.fixture(scope="session")
def train_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One class with ten good photos to draw from."""
    root = tmp_path_factory.mktemp("datasets") / "train"
    return write_dataset(root, classes=("object",), train=10)
