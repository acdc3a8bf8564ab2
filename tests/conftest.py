"""Which tests share a process where there are several: those of a file, and all that need the whole run."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)  # xdist reads the names
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name each test's process (`--dist loadgroup`): the whole run takes minutes, and is made once."""
    for item in items:
        needs_run = "whole_run" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("whole run" if needs_run else item.nodeid.partition("::")[0]))
    items.sort(key=lambda item: "whole_run" not in getattr(item, "fixturenames", ()))  # the longest group first
