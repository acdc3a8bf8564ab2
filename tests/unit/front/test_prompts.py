"""What a front takes for the prompt of a request is what a server's tokenizer and template make of it."""

from __future__ import annotations

from typing import Any

import pytest
import real_tokenizers
from family_cases import renderer_of

from presafe.front.prompts import PromptReader
from presafe.gating.exchange import CHAT, COMPLETIONS, Asked
from presafe.models.rendering import Renderer
from presafe.models.templates import with_fixed_day
from presafe.workflows.gate import ids_of

TEXTS = ["Why is the sky blue?", "  two\n\nlines\n", "für alle: 你好 🙂", "<b>not a token</b>", "a</think>b"]


def case_renderer(name: str) -> Renderer:
    try:
        return renderer_of(name)
    except real_tokenizers.Unreachable as error:
        pytest.skip(str(error))


def asked(path: str = CHAT, **body: Any) -> Asked:
    return Asked(path, {"model": "own", **body}, "1")


@pytest.mark.parametrize("name", ["qwen3", "gptoss", "glm4moe"])
def test_a_chat_is_rendered_as_the_template_does(name: str) -> None:
    renderer = case_renderer(name)
    reader = PromptReader(renderer, renderer.render("Why?", "on").ids[-1:])
    modes = [mode for mode in renderer.family.modes.values() if not mode.system]
    num_read = 0
    for variables in [{}, *(mode.variables for mode in modes)]:
        for text in TEXTS:
            messages = [{"role": "user", "content": text}]
            (prompt,) = reader.rendered(asked(messages=messages, chat_template_kwargs=variables))
            template = with_fixed_day(str(renderer.tokenizer.chat_template))
            expected = renderer.tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, chat_template=template, **variables
            )["input_ids"]
            spells = set(renderer.completion_ids(text)) & set(renderer.tokenizer.added_tokens_decoder)
            assert prompt == ("the text spells control tokens" if spells else expected), (variables, text)
            num_read += not spells
    assert num_read >= 4 * (1 + len(modes))  # one of the texts spells a control token of some families


def test_only_cot_on_ends_at_the_decision(smolthink: Renderer) -> None:
    reader = PromptReader(smolthink, ids_of(smolthink)["decision_tail"])
    on, off = (smolthink.render("Why?", mode).ids for mode in ("on", "off"))
    assert reader.read(asked(COMPLETIONS, prompt=on)) == [on]
    assert reader.read(asked(COMPLETIONS, prompt=off)) == ["it does not end at the decision position"]
    assert reader.read(asked(messages=[{"role": "user", "content": "Why?"}])) == [on]
    # a text is tokenized as vLLM does: with the special tokens that the tokenizer adds, if it adds any
    assert reader.read(asked(COMPLETIONS, prompt=smolthink.tokenizer.decode(on))) == [on]


def test_a_prompt_that_stands_twice_is_read_once(smolthink: Renderer) -> None:
    reader = PromptReader(smolthink, ids_of(smolthink)["decision_tail"])
    on = smolthink.render("Why?", "on").ids
    assert reader.read(asked(COMPLETIONS, prompt=[on, on[1:], on])) == [on, on[1:]]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"prompt": 3}, "neither token ids nor one text"),
        ({"prompt": [1, "a"]}, "neither token ids nor one text"),
        ({"prompt": [[1, -1]]}, "neither token ids nor one text"),
        ({"prompt": "a" * (2**22 + 1)}, "too long"),
        ({"prompt": "half a pair: \ud800"}, "no UTF-8"),
        ({"prompt": [1], "suffix": "b"}, "the field suffix may change the prompt"),
        ({"prompt": [1], "echo": True}, "the field echo may change the prompt or show odds inside it"),
        ({"prompt": [1], "prompt_embeds": "x"}, "the field prompt_embeds may change the prompt"),
        ({"messages": []}, "neither token ids nor one text"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "neither token ids nor one text"),
        ({"messages": [{"role": "user", "content": "a", "name": "b"}]}, "neither token ids nor one text"),
        ({"messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": [1]}, "is no object"),
        (
            {"messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": {"x": 1}},
            "does not ask in this way",
        ),
        ({"messages": [{"role": "user", "content": "a"}], "continue_final_message": True}, "may change the prompt"),
    ],
)
def test_what_is_not_for_sure_is_not_read(body: dict[str, Any], problem: str, smolthink: Renderer) -> None:
    reader = PromptReader(smolthink, ids_of(smolthink)["decision_tail"])
    path = CHAT if "messages" in body else COMPLETIONS
    for prompt in reader.read(asked(path, **body)):
        assert problem in str(prompt) or prompt == "it does not end at the decision position"
    assert any(problem in str(prompt) for prompt in reader.read(asked(path, **body)))


def test_fields_that_are_null_change_nothing(smolthink: Renderer) -> None:
    reader = PromptReader(smolthink, ids_of(smolthink)["decision_tail"])
    on = smolthink.render("Why?", "on").ids
    assert reader.read(asked(COMPLETIONS, prompt=on, suffix=None, tools=None)) == [on]
