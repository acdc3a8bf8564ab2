"""The order of the test files: the longest first, so that two workers end at about the same time."""

from __future__ import annotations

from pathlib import Path

import pytest

LONGEST_FIRST = (
    "integration/test_run.py",
    "faults/test_faults.py",
    "integration/test_bad_input.py",
    "integration/test_measure.py",
    "examples/test_examples.py",
    "runs/test_whole_run.py",
    "golden/test_golden.py",
    "runs/test_study_run.py",
    "integration/test_served_model.py",
    "integration/test_wheel.py",
    "unit/models/test_sampling.py",
)
"""Files that take more than 20 s of CPU time; the others follow in the order of their names."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
