"""Evaluations of small bundles on small datasets, as the command line runs them."""

from __future__ import annotations

from pathlib import Path

from zeroflaw_benchmarks.evaluate.evaluation import evaluate_bundle
from zeroflaw_benchmarks.evaluate.job import EvaluationJob, EvaluationOptions
from zeroflaw_benchmarks.evaluate.result import Evaluation
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_export.datasets import read_dataset

MAP_SIZE = 224


def evaluated_job(
    bundle: Bundle, folder: Path, cache: Path, **options
) -> tuple[EvaluationJob, Evaluation]:
    how = EvaluationOptions(cache=cache, **{"processes": 1, "size": MAP_SIZE, **options})
    return evaluate_bundle(bundle.path, read_dataset(folder), how)


def evaluated(bundle: Bundle, folder: Path, cache: Path, **options) -> Evaluation:
    return evaluated_job(bundle, folder, cache, **options)[1]
