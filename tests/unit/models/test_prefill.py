"""Thoughts that the model did not begin: what is sampled from, and how what it says is split."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
from inspect_ai.model import ChatMessageUser, ContentReasoning, GenerateConfig, ModelOutput

from presafe.errors import ModelError
from presafe.methods.registry import methods
from presafe.models.exchange import Completion, Request
from presafe.models.family import families
from presafe.models.provider import PreSafeAPI
from presafe.models.rendering import Renderer

PREFILLS = {
    "zero_think": "\n</think>\n\n",
    "less_think": "Okay, the user ask for this, I can answer it without thinking much.\n</think>\n\n",
    "safepath_zero_shot": "Let's think about safety first.",
}


def test_these_are_the_methods_that_prefill() -> None:
    assert {name for name, method in methods().items() if method.prefill} == set(PREFILLS)


def asked_and_said(
    method: str | None, renderer: Renderer, text: str, *, stopped: bool = True, budget: int | None = None
) -> tuple[Request, ModelOutput]:
    """Return what the provider samples from, and what it makes of a model that goes on with `text`."""
    asked: list[Request] = []

    class Engine:
        def ready(self) -> Renderer:
            return renderer

        async def complete(self, request: Request) -> Completion:
            asked.append(request)
            return Completion(text=text, stopped=stopped, num_tokens=3)

    api = PreSafeAPI("smolthink", method=method)
    api.engine = Engine()  # type: ignore[assignment]
    config = GenerateConfig(max_tokens=budget)
    output = asyncio.run(api.generate([ChatMessageUser(content="Name a bird.")], [], "none", config))
    return asked[0], output


def parts(output: ModelOutput) -> tuple[str, str]:
    content = output.choices[0].message.content
    assert isinstance(content, list)
    return "".join(part.reasoning for part in content if isinstance(part, ContentReasoning)), output.completion


@pytest.mark.parametrize("opens", ["", "<think>\n"])
@pytest.mark.parametrize("method", PREFILLS)
def test_the_prefill_stands_after_the_opening_of_the_thought(smolthink: Renderer, method: str, opens: str) -> None:
    family = families()["smolthink"].model_copy(update={"model_opens": opens})
    renderer = Renderer(copy.deepcopy(smolthink.tokenizer), family)
    request, _ = asked_and_said(method, renderer, "x")
    on = renderer.render("Name a bird.", "on").ids
    assert request.ids[: len(on)] == on
    assert renderer.tokenizer.decode(request.ids[len(on) :]) == opens + PREFILLS[method]


def test_without_a_method_nothing_is_prefilled(smolthink: Renderer) -> None:
    request, _ = asked_and_said(None, smolthink, "x")
    assert request.ids == smolthink.render("Name a bird.", "on").ids


def test_an_empty_thought_leaves_only_an_answer(smolthink: Renderer) -> None:
    _, output = asked_and_said("zero_think", smolthink, "A wren.<|im_end|>")
    assert parts(output) == ("", "A wren.")
    assert output.usage is not None
    assert output.usage.output_tokens == 3  # what the model wrote, not what it was given


def test_a_closed_thought_is_a_thought_and_all_else_is_answer(smolthink: Renderer) -> None:
    _, output = asked_and_said("less_think", smolthink, "A wren", stopped=False)
    assert parts(output) == ("Okay, the user ask for this, I can answer it without thinking much.", "A wren")
    assert output.stop_reason == "stop"  # the answer was cut, not the thought


def test_an_open_thought_goes_on_in_the_models_words(smolthink: Renderer) -> None:
    _, output = asked_and_said("safepath_zero_shot", smolthink, " It is safe.\n</think>\n\nA wren.<|im_end|>")
    assert parts(output) == ("Let's think about safety first. It is safe.", "A wren.")
    _, cut = asked_and_said("safepath_zero_shot", smolthink, " It is", stopped=False)
    assert parts(cut) == ("Let's think about safety first. It is", "")
    assert cut.stop_reason == "max_tokens"


def test_without_a_budget_it_is_the_families(smolthink: Renderer) -> None:
    # Failed first: it was 4,096 for every family.
    family = smolthink.family.model_copy(update={"max_tokens": 77})
    renderer = Renderer(copy.deepcopy(smolthink.tokenizer), family)
    assert asked_and_said(None, renderer, "x")[0].max_tokens == 77
    assert asked_and_said(None, renderer, "x", budget=5)[0].max_tokens == 5


@pytest.mark.parametrize(("method", "thinking"), [("zero_think", "off"), ("sft", "on"), ("none", "on")])
def test_a_prefill_that_cannot_be_is_refused(method: str, thinking: Any) -> None:
    with pytest.raises(ModelError, match="no prefilled thought"):
        PreSafeAPI("smolthink", method=method, thinking=thinking)
