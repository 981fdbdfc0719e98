"""DBSCAN on sentence embeddings, against scikit-learn, and the representative it leads to."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from sklearn.cluster import DBSCAN

from zeroflaw_engines.bundle.prompt_ensembles import (
    PromptEnsembles,
    dbscan_labels,
    product_embeddings,
    read_prompt_ensembles,
)
from zeroflaw_engines.errors import ProductError


@pytest.mark.parametrize("eps", [0.2, 0.5, 0.8, 1.5])
@pytest.mark.parametrize("min_samples", [1, 4, 15])
@pytest.mark.parametrize("clusters", [1, 3, 8])
def test_the_labels_are_scikit_learns(
    rng: np.random.Generator, eps: float, min_samples: int, clusters: int
) -> None:
    """Unit vectors around a few centres, with noise between them and borders to two."""
    centres = rng.normal(size=(clusters, 16))
    points = centres[rng.integers(0, clusters, 220)] + rng.normal(size=(220, 16)) * 0.35
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    want = DBSCAN(eps=eps, min_samples=min_samples).fit(points.astype(np.float64)).labels_
    np.testing.assert_array_equal(dbscan_labels(points, eps, min_samples), want)


def embeddings_of(table: np.ndarray, **representative: object) -> np.ndarray:
    ensembles = PromptEnsembles(
        ("{}",), ("bad {}",), tuple(f"{i} {{}}" for i in range(len(table))), **representative
    )
    return product_embeddings(
        "nut",
        ensembles,
        lambda sentences: np.array([[int(s.split()[0])] for s in sentences], np.int32),
        lambda tokens: table[tokens[:, 0]],
    )


def test_the_representative_is_the_mean_of_the_largest_cluster() -> None:
    table = np.array([[1, 0, 0], [0.96, 0.28, 0], [0.8, 0.6, 0], [0, 0, 1], [0, 0, 1]], np.float32)
    want = table[:3].mean(axis=0)
    got = embeddings_of(table, representative="dbscan", dbscan_eps=0.5, dbscan_min_samples=2)
    np.testing.assert_allclose(got, np.stack([want / np.linalg.norm(want)] * 2), atol=1e-6)
    assert not np.allclose(got, embeddings_of(table))


def test_without_a_cluster_it_is_the_mean_of_all() -> None:
    table = np.eye(4, dtype=np.float32)
    got = embeddings_of(table, representative="dbscan", dbscan_eps=0.5, dbscan_min_samples=2)
    np.testing.assert_allclose(got, embeddings_of(table), atol=1e-7)


PACKAGED = files("zeroflaw_export") / "sdp_prompt_ensembles.toml"


def test_the_packaged_ensembles_of_sdp() -> None:
    ensembles = read_prompt_ensembles(PACKAGED)
    assert ensembles.representative == "dbscan"
    normal, abnormal = ensembles.sentences("metal nut")
    assert (len(set(normal)), len(set(abnormal))) == (198, 220)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('"dbscan"', '"median"', "representative"),
        ("eps = 0.5", "eps = 0.0", "dbscan_eps"),
        ("samples = 15", "samples = 0", "dbscan_min_samples"),
        ("samples = 15", "samples = 1.5", "dbscan_min_samples"),
    ],
)
def test_a_representative_that_there_is_not_is_refused(
    tmp_path: Path, old: str, new: str, named: str
) -> None:
    text = PACKAGED.read_text("utf-8")
    assert text.count(old) == 1
    (tmp_path / "own.toml").write_text(text.replace(old, new), "utf-8")
    with pytest.raises(ProductError, match=named):
        read_prompt_ensembles(tmp_path / "own.toml")
