"""What several rooms need: the renderer of SmolThink, whose tokenizer is SmolLM2's. It loads no model weights."""

from __future__ import annotations

import pytest

from presafe.models.loading import load_renderer
from presafe.models.rendering import Renderer


@pytest.fixture(scope="session")
def smolthink() -> Renderer:
    """Do not change its tokenizer: every test shares it."""
    return load_renderer("smolthink")
