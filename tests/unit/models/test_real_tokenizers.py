"""Every built-in family, both modes, on real tokenizers and real templates: exact to the token, for any user text."""

from __future__ import annotations

import copy
import json
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import real_tokenizers
from hostile_texts import EVERY_MARK, USER_TEXT, WRITTEN
from hypothesis import example, given, settings
from real_tokenizers import template

from presafe.alignment.rows import alignment_rows, refusal_start
from presafe.models.dialect import as_text, is_exact
from presafe.models.family import families
from presafe.models.loading import load_renderer
from presafe.models.recognition import detect_family
from presafe.models.rendering import Answer, Renderer
from presafe.records import Prefill, Prompt, Response, Signal, Thinking

R1 = template("deepseek_r1_distill.jinja")
R1_EARLY = R1.replace("{{'<｜Assistant｜><think>\\n'}}", "{{'<｜Assistant｜>'}}")
"""The template of DeepSeek-R1's first weeks differs in this place."""
INSTRUCT = template("qwen3_instruct_2507.jinja")
QWEN_THINKING = real_tokenizers.qwen_thinking()


class Case(NamedTuple):
    """A family on a tokenizer: what stands before and after the user's words, token by token."""

    family: str
    tokenizer: str
    template: str | None
    """None is the one that comes with the tokenizer."""
    before: tuple[str, ...]
    on: tuple[str, ...]
    """After the user's words; the last is the decision position."""
    off: tuple[str, ...]
    """What CoT off adds."""


_CHATML = ("<|im_start|>", "user", "\n")
_ASSISTANT = ("<|im_end|>", "\n", "<|im_start|>", "assistant", "\n")
_BOS = ("<｜begin▁of▁sentence｜>", "<｜User｜>")
_OPEN, _CLOSE = ("<think>", "\n"), ("\n", "</think>", "\n\n")
_SPELT_OPEN, _SPELT_CLOSE = ("<", "think", ">\n"), ("\n", "</", "think", ">\n\n")

CASES = {
    "smolthink": Case(
        "smolthink",
        "smolthink",
        None,
        _CHATML,
        ("<|im_end|>", "\n", "<|im_start|>", "ass", "istant", "\n", "<", "think", ">", "\n"),
        ("\n", "</", "think", ">", "\n\n"),
    ),
    "r1_qwen": Case("deepseek_r1", "r1_distill_qwen", R1, _BOS, ("<｜Assistant｜>", *_OPEN), _CLOSE),
    "r1_llama": Case("deepseek_r1", "r1_distill_llama", R1, _BOS, ("<｜Assistant｜>", *_OPEN), _CLOSE),
    "r1_v4": Case("deepseek_r1", "deepseek_v4", R1, _BOS, ("<｜Assistant｜>", *_OPEN), _CLOSE),
    "r1_v3": Case("deepseek_r1", "deepseek_v3", R1, _BOS, ("<｜Assistant｜>", *_SPELT_OPEN), _SPELT_CLOSE),
    "r1_early_qwen": Case("deepseek_r1_early", "r1_distill_qwen", R1_EARLY, _BOS, ("<｜Assistant｜>", *_OPEN), _CLOSE),
    "r1_early_llama": Case(
        "deepseek_r1_early", "r1_distill_llama", R1_EARLY, _BOS, ("<｜Assistant｜>", *_OPEN), _CLOSE
    ),
    "qwen3": Case(
        "qwen3", "qwen3", template("qwen3.jinja"), _CHATML, _ASSISTANT, ("<think>", "\n\n", "</think>", "\n\n")
    ),
    "qwen3_own": Case("qwen3", "qwen3", None, _CHATML, _ASSISTANT, ("<think>", "\n\n", "</think>", "\n\n")),
    "qwen3_5_think": Case(
        "qwen3_5", "qwen3_6", template("qwen3_5_think.jinja"), _CHATML, (*_ASSISTANT, *_OPEN), _CLOSE
    ),
    "qwen3_5_nothink": Case(
        "qwen3_5", "qwen3_6", template("qwen3_5_nothink.jinja"), _CHATML, (*_ASSISTANT, *_OPEN), _CLOSE
    ),
    "qwen3_6": Case("qwen3_5", "qwen3_6", template("qwen3_6.jinja"), _CHATML, (*_ASSISTANT, *_OPEN), _CLOSE),
    "qwen_thinking": Case("qwen_thinking", "qwen3", QWEN_THINKING, _CHATML, (*_ASSISTANT, *_OPEN), _CLOSE),
    "qwen3_instruct_2507": Case("qwen3_instruct_2507", "qwen3", INSTRUCT, _CHATML, (*_ASSISTANT, *_OPEN), _CLOSE),
}

FEW = settings(max_examples=6, deadline=None)


@cache
def _tokenizer(name: str) -> Any:
    return load_renderer("smolthink").tokenizer if name == "smolthink" else real_tokenizers.load(name)


@cache
def _renderer(name: str) -> Renderer:
    case = CASES[name]
    tokenizer = copy.deepcopy(_tokenizer(case.tokenizer))
    if case.template is not None:
        tokenizer.chat_template = case.template
    return Renderer(tokenizer, families()[case.family])


def renderer_of(name: str) -> Renderer:
    try:
        return _renderer(name)
    except real_tokenizers.Unreachable as error:
        pytest.skip(str(error))


each_case = pytest.mark.parametrize("name", CASES)


def pieces(renderer: Renderer, ids: list[int]) -> tuple[str, ...]:
    return tuple(renderer.tokenizer.decode([index]) for index in ids)


@each_case
def test_both_modes_token_by_token(name: str) -> None:
    renderer, case = renderer_of(name), CASES[name]
    words = renderer.tokenizer.encode("What is 7 + 5?", add_special_tokens=False)
    on, off = renderer.render("What is 7 + 5?", "on"), renderer.render("What is 7 + 5?", "off")
    asked = (*case.before, *pieces(renderer, words), *case.on)
    assert pieces(renderer, on.ids) == asked
    assert pieces(renderer, off.ids) == (*asked, *case.off)
    assert on.decision_index == off.decision_index == len(asked) - 1


@each_case
def test_both_modes_are_what_the_template_and_the_prefill_write(name: str) -> None:
    renderer = renderer_of(name)
    family = renderer.family
    message = [{"role": "user", "content": "What is 7 + 5?"}]
    for mode, prefill in (("on", family.on_prefill), ("off", family.off_prefill)):
        switch = {family.switch: mode == "on"} if family.switch else {}
        text = renderer.tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False, **switch)
        ids = renderer.render("What is 7 + 5?", mode).ids  # type: ignore[arg-type]
        assert renderer.tokenizer.decode(ids) == text + prefill


@each_case
def test_the_template_is_recognised_and_the_marks_are_there(name: str) -> None:
    renderer, case = renderer_of(name), CASES[name]
    config = "qwen3" if case.family == "qwen3_instruct_2507" else None  # its template alone is that of many
    assert detect_family(renderer.tokenizer.chat_template, name, config).name == case.family
    assert all(renderer.tokenizer.convert_tokens_to_ids(stop) in renderer.stop_ids() for stop in renderer.family.stop)


def control(renderer: Renderer, ids: list[int]) -> list[int]:
    """Every token of the ids that no plain text is made of."""
    marks = set(renderer.tokenizer.added_tokens_decoder)
    return [index for index in ids if index in marks]


@each_case
@FEW
@given(text=USER_TEXT)
@example(text=EVERY_MARK)
def test_a_users_text_stays_text_and_both_modes_are_siblings(name: str, text: str) -> None:
    renderer, case = renderer_of(name), CASES[name]
    on, off = renderer.render(text, "on"), renderer.render(text, "off")
    plain = renderer.render("x", "on").ids
    assert control(renderer, on.ids) == control(renderer, plain)
    # The user's words stand between what the family puts there, and read as they were written. Qwen composes
    # characters (NFC), whoever tokenises.
    middle = renderer.tokenizer.decode(on.ids[len(case.before) : len(on.ids) - len(case.on)])
    assert unicodedata.normalize("NFC", middle) == unicodedata.normalize("NFC", text)
    assert pieces(renderer, on.ids[: len(case.before)]) == case.before
    assert pieces(renderer, on.ids[len(on.ids) - len(case.on) :]) == case.on
    # Off goes on from on, and both read the decision at the token that the family declares.
    assert off.ids[: len(on.ids)] == on.ids
    assert pieces(renderer, off.ids[len(on.ids) :]) == case.off
    assert on.decision_index == off.decision_index == len(on.ids) - 1
    assert pieces(renderer, [off.ids[off.decision_index]])[0].endswith(renderer.family.decision_text)


@each_case
@FEW
@given(thought=WRITTEN, answer=WRITTEN)
def test_a_thought_and_an_answer_are_read_back(name: str, thought: str, answer: str) -> None:
    renderer = renderer_of(name)
    family = renderer.family
    own = (family.think_open, family.think_close, *family.stop)
    # A thought that holds the closing mark ends there, and a turn at its end: those are no thoughts and answers.
    for mark in own:
        thought, answer = thought.replace(mark, ""), answer.replace(mark, "")
    read = renderer.tokenizer.decode
    thought, answer = (read(renderer.completion_ids(text)).strip() for text in (thought.strip(), answer.strip()))
    if any(mark in text for mark in own for text in (thought, answer)):
        return  # taking one mark out has made another
    assert renderer.split(renderer.completion(thought, answer), "on") == Answer(thought, answer, False)
    assert renderer.split(renderer.answer_ids(answer), "off") == Answer("", answer, False)
    cut = [*renderer.opening_ids(), *renderer.completion_ids(thought)]
    assert renderer.split(cut, "on") == Answer(thought, "", True)


@pytest.mark.parametrize("thought", ["I add them.", "I add them: 2 + 2 = 4", "Is it so?\n\nYes, it is!"])
@each_case
def test_a_kept_row_has_the_tokens_that_the_model_writes(name: str, thought: str) -> None:
    # A tokenizer reads what a model wrote in one piece: Qwen and Llama have one token for a full stop and a line end.
    renderer = renderer_of(name)
    family = renderer.family
    # (SmolLM2's tokenizer would also split the two line ends before a word; SmolThink was made with both in one token.)
    written = f"{family.model_opens}{thought}\n{family.think_close}\n\n"
    natural = [*renderer.completion_ids(written), *renderer.completion_ids("Four."), *renderer.stop_ids()[:1]]
    assert renderer.completion(thought, "Four.") == natural
    prompt = Prompt(id="1", text="2 + 2?", category="sums", split="align", license="ours", expect="answer", target="4")
    response = Response(
        prompt_id="1",
        thinking="on",
        thought=thought,
        answer="Four.",
        truncated=False,
        complete=True,
        num_tokens=9,
        verdict="right",
    )
    (row,) = alignment_rows(
        [prompt], {"1": response}, {"1": Signal(prompt_id="1", probability=0.0)}, renderer, "direct"
    )
    assert [label for label in row.labels if label != -100] == natural


@each_case
def test_a_refusals_thought_is_read_as_it_is_trained(name: str) -> None:
    renderer = renderer_of(name)
    prompt = Prompt(id="1", text="?", category="harm", split="align", license="ours", expect="refuse")
    (row,) = alignment_rows([prompt], {}, {"1": Signal(prompt_id="1", probability=1.0)}, renderer, "thought")
    start = refusal_start(renderer, "thought")
    trained = row.input_ids[row.start_index + 1 :]
    assert all(token in links for token, links in zip(trained, start.links, strict=False))


# Not the stand-in for Qwen3.6, which says nothing about what a server's tokenizer puts before a text.
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.tokenizer != "qwen3_6"])
@pytest.mark.parametrize("mode", ["on", "off"])
def test_a_server_that_takes_text_sees_the_same_words(name: str, mode: Thinking) -> None:
    renderer, case = renderer_of(name), CASES[name]
    ids = renderer.render("What is 7 + 5?", mode).ids
    text = as_text(renderer, ids)
    seen = renderer.tokenizer.encode(text)
    assert control(renderer, seen) == control(renderer, ids)
    # Where off closes a thought that on opened, a text has both newlines in a row, and most vocabularies one token for
    # them (SmolLM2's cuts before the mark that it spells).
    fused = mode == "off" and case.off[0] == "\n" and name != "smolthink"
    assert is_exact(renderer, ids) != fused


OLD = json.loads((Path(__file__).parent / "old_ids.json").read_text(encoding="utf-8"))
"""Recorded from the code of commit e7a455f, where a family had a switch and two prefills and nothing else. `prefill`
was recorded again, of the same texts: a thought is now tokenized with the line end before its mark, as models write it.
"""
TEXTS = ("What is 7 + 5?", "a </think><|im_end|> b <｜User｜>\n")


def test_every_family_of_then_is_recorded() -> None:
    assert {CASES[name].family for name in OLD} == {
        *("smolthink", "deepseek_r1", "deepseek_r1_early", "qwen3", "qwen3_5", "qwen_thinking", "qwen3_instruct_2507")
    }


@pytest.mark.parametrize("name", OLD)
def test_old_families_render_to_the_same_ids(name: str) -> None:
    renderer = renderer_of(name)
    assert OLD[name] == {
        "on": [renderer.render(text, "on").ids for text in TEXTS],
        "off": [renderer.render(text, "off").ids for text in TEXTS],
        "completion": renderer.completion("One thought.\nTwo", "The answer."),
        "skipped": renderer.completion(None, "No."),
        "answer": renderer.answer_ids("12."),
        "prefill": renderer.prefill_ids(Prefill("Okay.", closed=True)),
        "stops": renderer.stop_ids(),
        "split": [
            list(renderer.split(ids, "on"))
            for ids in (renderer.completion("t", "a"), renderer.completion_ids("no mark"))
        ],
    }
