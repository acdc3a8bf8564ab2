"""The order of the test files, the longest first, and a garbage collector that knows only what the tests make."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

LONGEST_FIRST = (
    "integration/test_run.py",
    "faults/test_faults.py",
    "runs/test_whole_run.py",
    "golden/test_golden.py",
    "integration/test_measure.py",
    "runs/test_interrupted_run.py",
    "runs/test_study_run.py",
    "integration/test_bad_input.py",
    "examples/test_examples.py",
    "tools/test_build.py",
    "integration/test_bench.py",
    "integration/test_served_model.py",
    "integration/test_readme.py",
    "integration/test_wheel.py",
    "integration/test_card.py",
    "docs/test_studies.py",
    "unit/alignment/test_fit_processes.py",
    "unit/evaluation/test_attacked.py",
    "unit/evaluation/test_evaluation_tasks.py",
    "unit/models/test_sampling.py",
    "unit/runtime/test_workers.py",
    "unit/stats/test_stats_crossed.py",
    "runs/test_methods_run.py",
    "runs/test_front_run.py",
)
"""Files that take more than 20 s, so that two workers end at about the same time; the others follow by name."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_collection_finish() -> None:
    """Hide the imported libraries from the garbage collector: a collection takes a quarter second with them."""
    gc.freeze()
