"""Prompts with CoT on and off, exact to the token, for any text; and answers split from their thoughts."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import trl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from presafe.errors import ModelError
from presafe.models.family import families
from presafe.models.loading import load_renderer
from presafe.models.rendering import Answer, Renderer

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
CONTROL = ("</think>", "<think>", "<|im_end|>", "<|im_start|>")

# SmolLM2's vocabulary lacks the bytes of these characters and its tokenizer drops them without a word (planes 4 to
# 11, which start with the bytes F1 and F2, are unassigned). No rendering can bring them back.
DROPPED = "\x04\x06\x13\x14\x16\x1d"
CHARACTERS = st.characters(codec="utf-8", exclude_characters=DROPPED).filter(
    lambda character: not 0x40000 <= ord(character) < 0xC0000
)
PLAIN = st.text(CHARACTERS, max_size=30)
USER_TEXT = st.lists(st.one_of(PLAIN, st.sampled_from(CONTROL)), min_size=1, max_size=6).map("".join)
WRITTEN = PLAIN.map(str.strip).filter(lambda text: text and not any(mark in text for mark in CONTROL))

FAST = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def with_template(smolthink: Renderer, template: str, family: str) -> Renderer:
    r"""SmolLM2's tokenizer with another template and, as those of R1 and Qwen3 have, tokens for the think marks.

    Between two such marks its `\\n\\n` becomes one token. The shared tokenizer stays as it is.
    """
    tokenizer = copy.deepcopy(smolthink.tokenizer)
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = template
    return Renderer(tokenizer, families()[family])


def shipped(file: str) -> str:
    return (TEMPLATES / file).read_text(encoding="utf-8")


def test_smolthink_renders_exactly_this(smolthink: Renderer) -> None:
    on, off = smolthink.render("Boil an egg?", "on"), smolthink.render("Boil an egg?", "off")
    opened = "<|im_start|>user\nBoil an egg?<|im_end|>\n<|im_start|>assistant\n<think>\n"
    assert smolthink.tokenizer.decode(on.ids) == opened
    assert smolthink.tokenizer.decode(off.ids) == opened + "\n</think>\n\n"


def test_the_decision_is_read_at_the_same_token_in_both_modes(smolthink: Renderer) -> None:
    on, off = smolthink.render("Boil an egg?", "on"), smolthink.render("Boil an egg?", "off")
    assert off.ids[: len(on.ids)] == on.ids
    assert on.decision_index == off.decision_index == len(on.ids) - 1
    assert smolthink.tokenizer.decode([on.ids[on.decision_index]]) == "\n"


def test_the_newlines_around_the_decision_are_not_fused(smolthink: Renderer) -> None:
    # The trap is real: in one piece, an empty thought's two newlines are one token, where the decision should be.
    renderer = with_template(smolthink, smolthink.tokenizer.chat_template, "smolthink")
    assert [renderer.tokenizer.decode([i]) for i in renderer.completion_ids("<think>\n\n</think>")] == [
        "<think>",
        "\n\n",
        "</think>",
    ]
    off = renderer.render("x", "off").ids
    assert [renderer.tokenizer.decode([i]) for i in off[-5:]] == ["<think>", "\n", "\n", "</think>", "\n\n"]


@pytest.mark.parametrize(
    ("file", "family", "on", "off"),
    [
        ("deepseek_r1_distill.jinja", "deepseek_r1", "<｜Assistant｜><think>\n", "\n</think>\n\n"),
        ("qwen3.jinja", "qwen3", "<|im_start|>assistant\n", "<think>\n\n</think>\n\n"),
        ("qwen3_5_think.jinja", "qwen3_5", "<|im_start|>assistant\n<think>\n", "\n</think>\n\n"),
        ("qwen3_5_nothink.jinja", "qwen3_5", "<|im_start|>assistant\n<think>\n", "\n</think>\n\n"),
        ("qwen3_6.jinja", "qwen3_5", "<|im_start|>assistant\n<think>\n", "\n</think>\n\n"),
        ("qwen3_instruct_2507.jinja", "qwen3_instruct_2507", "assistant\n<think>\n", "\n</think>\n\n"),
    ],
)
def test_off_goes_on_from_on_in_a_piece_of_its_own(
    smolthink: Renderer, file: str, family: str, on: str, off: str
) -> None:
    # Written by the template or by a prefill, what off adds never fuses with the newline of the decision.
    renderer = with_template(smolthink, shipped(file), family)
    rendered_on, rendered_off = renderer.render("Boil an egg?", "on"), renderer.render("Boil an egg?", "off")
    assert renderer.tokenizer.decode(rendered_on.ids).endswith(on)
    assert rendered_off.ids[: len(rendered_on.ids)] == rendered_on.ids
    assert renderer.tokenizer.decode(rendered_off.ids[len(rendered_on.ids) :]) == off
    assert rendered_on.decision_index == rendered_off.decision_index == len(rendered_on.ids) - 1


@pytest.mark.parametrize("thinking", ["on", "off"])
@FAST
@given(text=USER_TEXT)
def test_a_users_text_stays_text(smolthink: Renderer, thinking: str, text: str) -> None:
    rendered = smolthink.render(text, thinking)  # type: ignore[arg-type]
    plain = smolthink.render("x", thinking)  # type: ignore[arg-type]
    for mark in ("<|im_start|>", "<|im_end|>", "<|endoftext|>"):
        control = smolthink.tokenizer.convert_tokens_to_ids(mark)
        assert rendered.ids.count(control) == plain.ids.count(control)
    # What stands before and after the user's one token "x" frames the text untouched.
    (middle,) = smolthink.completion_ids("x")
    start = plain.ids.index(middle, len(smolthink.completion_ids("<|im_start|>user\n")))
    before, after = plain.ids[:start], plain.ids[start + 1 :]
    assert rendered.ids[: len(before)] == before
    assert rendered.ids[len(rendered.ids) - len(after) :] == after
    assert smolthink.tokenizer.decode(rendered.ids[len(before) : len(rendered.ids) - len(after)]) == text
    # The decision is as far from the end as for "x".
    assert len(rendered.ids) - rendered.decision_index == len(plain.ids) - plain.decision_index


def test_marks_in_one_string_become_control_tokens(smolthink: Renderer) -> None:
    # The trap is real: tokenised as one string, the mark becomes the control token.
    end = smolthink.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert smolthink.completion_ids("a<|im_end|>b").count(end) == 1
    assert smolthink.text_ids("a<|im_end|>b").count(end) == 0


@FAST
@given(thought=WRITTEN, answer=WRITTEN)
def test_what_a_row_teaches_is_what_is_read_back(smolthink: Renderer, thought: str, answer: str) -> None:
    ids = smolthink.completion(thought, answer)
    assert ids[-1:] == smolthink.stop_ids()
    assert smolthink.split(ids, "on") == Answer(thought, answer, False)
    assert smolthink.split(smolthink.completion(thought, answer, ended=False), "on") == Answer(thought, answer, False)


@FAST
@given(answer=WRITTEN)
def test_an_answer_without_a_thought_is_read_back(smolthink: Renderer, answer: str) -> None:
    assert smolthink.split(smolthink.completion(None, answer), "on") == Answer("", answer, False)
    assert smolthink.split(smolthink.answer_ids(answer), "off") == Answer("", answer, False)


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{{ messages[0]['content'] ", "unexpected end of template"),
        ("{{ raise_exception('two turns\nplease') }}", "user: two turns please"),
        ("{{ messages[0]['name'] + 'x' }}", "has no attribute 'name'"),
        ("{{ messages[0]['content'] + 1 }}", "can only concatenate str"),
    ],
    ids=["malformed", "refuses", "undefined", "wrong_type"],
)
def test_a_template_that_fails_is_one_line(smolthink: Renderer, template: str, complaint: str) -> None:
    with pytest.raises(ModelError, match="the chat template fails") as caught:
        with_template(smolthink, template, "smolthink").render("Boil an egg?", "on")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_completion_is_exactly_this_text(smolthink: Renderer) -> None:
    decode = smolthink.tokenizer.decode
    assert decode(smolthink.completion("7 + 5 = 12.", "12")) == "7 + 5 = 12.\n</think>\n\n12<|im_end|>"
    assert decode(smolthink.completion(None, "12", ended=False)) == "\n</think>\n\n12"


def test_an_answer_that_spells_the_end_of_a_turn_does_not_end_it(smolthink: Renderer) -> None:
    ids = smolthink.answer_ids("The mark is <|im_end|> in ChatML.")
    assert ids.count(smolthink.stop_ids()[0]) == 1
    assert smolthink.split(ids, "off").answer == "The mark is <|im_end|> in ChatML."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("so I think", Answer("so I think", "", True)),
        ("so I think<|im_end|>", Answer("so I think", "", False)),  # the model's own end, not the budget's
        ("", Answer("", "", True)),
        ("\n</think>\n\n", Answer("", "", False)),
        ("<think>\nit opens\n</think>\n\nyes", Answer("it opens", "yes", False)),
        ("a</think>b</think>c", Answer("a", "b</think>c", False)),
        ("half</thin", Answer("half</thin", "", True)),
    ],
)
def test_split_with_cot_on(smolthink: Renderer, text: str, expected: Answer) -> None:
    assert smolthink.split(smolthink.completion_ids(text), "on") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" 12<|im_end|>", Answer("", "12", False)),
        ("cut in the mid", Answer("", "cut in the mid", False)),
        # a thought all the same: it is no answer
        ("<think>\nso I\n</think>\n\nyes<|im_end|>", Answer("so I", "yes", False)),
        ("<think>\nso I", Answer("so I", "", True)),
    ],
)
def test_split_with_cot_off(smolthink: Renderer, text: str, expected: Answer) -> None:
    assert smolthink.split(smolthink.completion_ids(text), "off") == expected


def test_stop_ids_are_those_of_the_family(smolthink: Renderer) -> None:
    assert smolthink.stop_ids() == smolthink.tokenizer.encode("<|im_end|>", add_special_tokens=False)


def test_without_a_known_stop_token_the_tokenizers_own_is_used(smolthink: Renderer) -> None:
    family = smolthink.family.model_copy(update={"stop": ("<no such token>",)})
    assert Renderer(smolthink.tokenizer, family).stop_ids() == [smolthink.tokenizer.eos_token_id]


def test_qwen3_adds_an_empty_thought_where_it_is_switched_off(smolthink: Renderer) -> None:
    qwen3 = with_template(smolthink, shipped("qwen3.jinja"), "qwen3")
    on, off = qwen3.render("Boil an egg?", "on"), qwen3.render("Boil an egg?", "off")
    opened = "<|im_start|>user\nBoil an egg?<|im_end|>\n<|im_start|>assistant\n"
    assert qwen3.tokenizer.decode(on.ids) == opened
    assert qwen3.tokenizer.decode(off.ids) == opened + "<think>\n\n</think>\n\n"
    assert off.ids[: len(on.ids)] == on.ids
    assert off.decision_index == len(on.ids) - 1


def test_r1_closes_the_thought_that_its_template_opens(smolthink: Renderer) -> None:
    r1 = with_template(smolthink, shipped("deepseek_r1_distill.jinja"), "deepseek_r1")
    on, off = r1.render("Boil an egg?", "on"), r1.render("Boil an egg?", "off")
    opened = "<|im_start|><｜User｜>Boil an egg?<｜Assistant｜><think>\n"  # the template starts with bos, here ChatML's
    assert r1.tokenizer.decode(on.ids) == opened
    assert r1.tokenizer.decode(off.ids) == opened + "\n</think>\n\n"
    assert off.ids[: len(on.ids)] == on.ids


def test_early_r1_decides_at_the_same_token_in_both_modes(smolthink: Renderer) -> None:
    # Failed first: tokenised in one piece, the empty thought's two newlines fused, and off(x) held the fused token
    # at the decision position.
    template = shipped("deepseek_r1_distill.jinja").replace("<｜Assistant｜><think>\\n", "<｜Assistant｜>")
    early = with_template(smolthink, template, "deepseek_r1_early")
    on, off = early.render("Boil an egg?", "on"), early.render("Boil an egg?", "off")
    opened = "<|im_start|><｜User｜>Boil an egg?<｜Assistant｜><think>\n"
    assert early.tokenizer.decode(on.ids) == opened
    assert early.tokenizer.decode(off.ids) == opened + "\n</think>\n\n"
    assert off.ids[: len(on.ids)] == on.ids


def test_a_switch_that_the_template_ignores_is_an_error(smolthink: Renderer) -> None:
    # Failed first: on(x) and off(x) were the same prompt, and a measured gap would have been zero.
    deaf = with_template(smolthink, shipped("qwen3_instruct_2507.jinja"), "qwen3")
    assert deaf.render("x", "on").ids
    with pytest.raises(ModelError, match=r"qwen3: .*CoT off.*CoT on"):
        deaf.render("x", "off")


@pytest.mark.parametrize("file", ["nemotron_3_nano.jinja", "qwen3_8.jinja"])
def test_off_prompt_must_continue_the_on_prompt(smolthink: Renderer, file: str) -> None:
    # Failed first: Nemotron ends in `<think>` + newline with CoT on and `<think></think>` off, later Qwen3 has a system
    # prompt with CoT on only, so that the decision index of off(x) pointed at another token.
    other = with_template(smolthink, shipped(file), "qwen3")
    with pytest.raises(ModelError, match=r"qwen3: .*CoT off.*CoT on"):
        other.render("x", "off")


def test_another_token_at_the_decision_position_is_an_error(smolthink: Renderer) -> None:
    family = smolthink.family.model_copy(update={"decision_text": "<think>"})
    with pytest.raises(ModelError, match=r"smolthink: .*ends in '\\n', not in '<think>'"):
        Renderer(smolthink.tokenizer, family).render("x", "on")


def test_a_template_that_drops_the_users_text_is_an_error(smolthink: Renderer) -> None:
    silent = with_template(smolthink, "<|im_start|>assistant\n<think>\n", "smolthink")
    with pytest.raises(ModelError, match="drops the user's text"):
        silent.render("x", "on")


def test_a_named_family_needs_no_known_template(smolthink: Renderer, tmp_path: Path) -> None:
    # Failed first: the error of an unknown template says "name the family", and naming it gave the same error.
    tokenizer = copy.deepcopy(smolthink.tokenizer)
    tokenizer.chat_template = "USER: {{ messages[0]['content'] }}\nASSISTANT:"
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no known family"):
        load_renderer(str(tmp_path))
    named = load_renderer(str(tmp_path), family="deepseek_r1_early")
    assert named.tokenizer.decode(named.render("hi", "on").ids) == "USER: hi\nASSISTANT:<think>\n"


def test_the_config_beside_the_tokenizer_is_read(smolthink: Renderer, tmp_path: Path) -> None:
    assert load_renderer("smolthink").model_type == "llama"
    tokenizer = copy.deepcopy(smolthink.tokenizer)
    tokenizer.chat_template = shipped("qwen3_instruct_2507.jinja")
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no known family"):  # plain ChatML, and no config
        load_renderer(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}', encoding="utf-8")
    renderer = load_renderer(str(tmp_path))
    assert (renderer.family.name, renderer.model_type) == ("qwen3_instruct_2507", "qwen3")


def test_an_unknown_family_lists_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"'gpt'.*smolthink, deepseek_r1, deepseek_r1_early, qwen3"):
        load_renderer("smolthink", family="gpt")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I can't help with that.<|im_end|>", Answer("", "I can't help with that.", False)),
        ("I can't help wi", Answer("I can't help wi", "", True)),  # a mark could have come: no verdict
        ("<think>\nhm\n</think>\n\nyes<|im_end|>", Answer("hm", "yes", False)),
        ("hm\n</think>\n\nyes<|im_end|>", Answer("hm", "yes", False)),  # closed, so it was a thought
        ("<think>\nhm<|im_end|>", Answer("hm", "", False)),  # opened, so it is a thought
        ("<|im_end|>", Answer("", "", False)),
    ],
)
def test_a_model_that_left_out_its_own_thought_answered(smolthink: Renderer, text: str, expected: Answer) -> None:
    qwen3 = with_template(smolthink, shipped("qwen3.jinja"), "qwen3")
    assert qwen3.split(qwen3.completion_ids(text), "on") == expected
    assert qwen3.split_text(text, "on", ended="<|im_end|>" in text) == expected
