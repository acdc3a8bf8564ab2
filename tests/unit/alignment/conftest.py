"""Fixtures of the alignment tests: tiny models, see `tiny_models`."""

from __future__ import annotations

from tiny_models import libraries, make_trainer_fixture, renderer, rows, tokenizer  # noqa: F401
