"""Fixtures of the examples: the run of `align_own_model`, which other tests read, too."""

from __future__ import annotations

from whole_run import small_recipe, whole_run  # noqa: F401
