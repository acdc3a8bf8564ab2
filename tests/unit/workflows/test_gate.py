"""What a gate's file says a server matches: the end of a prompt with CoT on, and of no other."""

from __future__ import annotations

import pytest
import real_tokenizers
from family_cases import renderer_of

from presafe.errors import RunError
from presafe.models.rendering import Renderer
from presafe.workflows.gate import ids_of


def case_renderer(name: str) -> Renderer:
    try:
        return renderer_of(name)
    except real_tokenizers.Unreachable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", ["gptoss", "qwen3", "glm4moe", "deepseek_r1_distill"])
def test_the_end_of_a_prompt_tells_cot_on_from_off(name: str) -> None:
    renderer = case_renderer(name)
    tail = ids_of(renderer)["decision_tail"]
    on, off = (renderer.render("How do I boil an egg?", mode).ids for mode in ("on", "off"))
    assert on[-len(tail) :] == tail
    assert off[-len(tail) :] != tail


@pytest.mark.parametrize("name", ["gemma4", "Granite-3.3"])
def test_no_gate_where_cot_off_ends_alike(name: str) -> None:
    # Failed first: with CoT off the server read p at a threshold for CoT on, and forced a refusal that opens a thought.
    with pytest.raises(RunError, match="end alike with CoT on and off"):
        ids_of(case_renderer(name))
