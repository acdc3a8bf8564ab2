"""Fixtures of the real SmolThink: a small recipe with every stage, and its finished run."""

from __future__ import annotations

from whole_run import small_recipe, whole_run  # noqa: F401
