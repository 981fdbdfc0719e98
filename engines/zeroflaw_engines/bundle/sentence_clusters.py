"""Clusters of sentence embeddings: DBSCAN (Ester et al., KDD 1996) on a few hundred points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def dbscan_labels(points: NDArray[np.float32], eps: float, min_samples: int) -> NDArray[np.int64]:
    """Find clusters of dense points.

    A point with at least `min_samples` points within `eps`, itself among them, is a core point;
    core points within `eps` of each other are of one cluster, and so is what lies within `eps` of
    one. Clusters are numbered in the order of their first core point, and a border point of two
    goes to the first of them, as in scikit-learn.

    Args:
        points: float [N, D].
        eps: Euclidean distance.

    Returns:
        int64 [N]: the cluster of each point, -1 for noise.
    """
    exact = points.astype(np.float64)
    squares = (exact**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares - 2 * exact @ exact.T, 0)
    near = distances <= eps**2
    np.fill_diagonal(near, val=True)
    core = near.sum(axis=1) >= min_samples
    labels = np.full(len(points), -1, np.int64)
    cluster = 0
    for first in np.flatnonzero(core):
        if labels[first] >= 0:
            continue
        frontier = np.zeros(len(points), bool)
        frontier[first] = True
        while frontier.any():
            labels[frontier] = cluster
            frontier = near[frontier & core].any(axis=0) & (labels < 0)
        cluster += 1
    return labels
