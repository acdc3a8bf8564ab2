"""Fixtures of whole runs on tiny models: a recipe with its models and queries."""

from __future__ import annotations

from tiny_models import libraries, renderer, tokenizer  # noqa: F401
from tiny_run import recipe  # noqa: F401
