"""What holds for any text in every newer family: user text stays text, exact split, the declared decision token.

The older families have the same tests, token by token, in `test_real_tokenizers`.
"""

from __future__ import annotations

import unicodedata
from functools import cache

import pytest
import real_tokenizers
from family_cases import CASES, TEXT, renderer_of
from hostile_texts import EVERY_MARK, USER_TEXT, WRITTEN
from hypothesis import example, given, settings

from presafe.models.family import families
from presafe.models.rendering import Answer, Renderer

OLD = {"smolthink", "deepseek_r1", "deepseek_r1_early", "qwen3", "qwen3_5", "qwen_thinking", "qwen3_instruct_2507"}
ONE_EACH = {case.family: name for name, case in CASES.items() if case.family not in OLD}
"""One template of each newer family."""
FEW = settings(max_examples=4, deadline=None, derandomize=True, database=None)

each_family = pytest.mark.parametrize("family", ONE_EACH)


@cache
def _with_marks(name: str) -> tuple[Renderer, frozenset[int]]:
    renderer = renderer_of(name)
    return renderer, frozenset(renderer.tokenizer.added_tokens_decoder)


def case_of(family: str) -> tuple[Renderer, frozenset[int]]:
    """Return the renderer and the ids of its tokenizer's control tokens."""
    try:
        return _with_marks(ONE_EACH[family])
    except real_tokenizers.Unreachable as error:
        pytest.skip(str(error))


def test_no_newer_family_is_left_out() -> None:
    # llama_nemotron_v1 has the template of Llama 3.1, which is no reasoning template, and is chosen only by name.
    assert set(ONE_EACH) | OLD == set(families()) - {"llama_nemotron_v1"}


@each_family
@FEW
@given(text=USER_TEXT)
@example(text=EVERY_MARK)
def test_a_users_text_stays_text(family: str, text: str) -> None:
    renderer, marks = case_of(family)
    read = renderer.tokenizer.decode
    for mode in renderer.family.modes:
        plain, prompt = renderer.render(TEXT, mode), renderer.render(text, mode)
        # The control tokens are those of the template, in its order.
        assert [i for i in prompt.ids if i in marks] == [i for i in plain.ids if i in marks]
        # The text is read as it was written, between the same words. Some tokenizers compose characters (NFC).
        before, found, after = read(plain.ids).partition(TEXT)
        assert found
        expected = before + text + after
        assert unicodedata.normalize("NFC", read(prompt.ids)) == unicodedata.normalize("NFC", expected)


@each_family
@FEW
@given(text=USER_TEXT)
@example(text=EVERY_MARK)
def test_the_decision_is_at_the_declared_token(family: str, text: str) -> None:
    renderer, _ = case_of(family)
    declared = renderer.family
    on, off = renderer.render(text, "on"), renderer.render(text, "off")
    for mode in declared.modes:
        prompt = renderer.render(text, mode)
        own = mode == "off" and declared.off_decision_text is not None
        token = renderer.tokenizer.decode([prompt.ids[prompt.decision_index]])
        assert token.endswith(declared.off_decision_text or "" if own else declared.decision_text)
        assert prompt.decision_index == len(prompt.ids if own or mode != "off" else on.ids) - 1
    # Off begins with on, unless the family declares a position of its own for it.
    assert (off.ids[: len(on.ids)] == on.ids) == (declared.off_decision_text is None)


def without(text: str, marks: tuple[str, ...]) -> str:
    for mark in marks:
        text = text.replace(mark, "")
    return text.strip()


@each_family
@FEW
@given(thought=WRITTEN, answer=WRITTEN)
def test_thought_and_answer_are_split_exactly(family: str, thought: str, answer: str) -> None:
    renderer, _ = case_of(family)
    declared, read = renderer.family, renderer.tokenizer.decode
    # A thought that holds the mark that closes it ends there: such texts are no thoughts and answers.
    names = (declared.think_open, declared.think_close, declared.answer_open, declared.answer_close, *declared.stop)
    marks = tuple(dict.fromkeys(name.strip() for name in names if name))
    thought, answer = (read(renderer.completion_ids(without(text, marks))).strip() for text in (thought, answer))
    if any(mark in text for mark in marks for text in (thought, answer)):
        return  # taking one mark out has made another
    assert renderer.split(renderer.completion(thought, answer), "on") == Answer(thought, answer, False)
    assert renderer.split(renderer.answer_ids(answer), "off") == Answer("", answer, False)
    cut = [*renderer.opening_ids(), *renderer.completion_ids(thought)]
    assert renderer.split(cut, "on") == Answer(thought, "", True)
