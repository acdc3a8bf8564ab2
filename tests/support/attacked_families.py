"""Renderers of the three families that attacks are tested on, with their real tokenizers."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import real_tokenizers

from presafe.models.family import families
from presafe.models.loading import load_renderer
from presafe.models.rendering import Renderer


@cache
def renderer_of(family: str) -> Renderer:
    """Return the renderer of smolthink, r1 or qwen3; the test is skipped where a tokenizer is not at hand."""
    if family == "smolthink":
        return load_renderer("smolthink")
    try:
        tokenizer = copy.deepcopy(real_tokenizers.load("r1_distill_qwen" if family == "r1" else "qwen3"))
    except real_tokenizers.Unreachable as error:
        pytest.skip(str(error))
    if family == "r1":
        tokenizer.chat_template = real_tokenizers.template("deepseek_r1_distill.jinja")
    return Renderer(tokenizer, families()["deepseek_r1" if family == "r1" else "qwen3"])
