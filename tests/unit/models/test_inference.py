"""A family inferred from what an unknown template renders: right, or "cannot be told", never wrong."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from real_tokenizers import template

from presafe.errors import ModelError
from presafe.models.family import find_family
from presafe.models.inference import as_toml, infer_family
from presafe.models.loading import load_renderer
from presafe.models.recognition import UnknownFamilyError, render_modes
from presafe.models.rendering import Renderer

NUM_MUTANTS = 200


class Mutant(NamedTuple):
    """A template, and what is true of it."""

    source: str
    switch: str | None
    """The variable that turns the thought off; None if there is none."""
    on_is: bool
    """Value of the switch that asks for a thought."""
    marks: tuple[str, str]


_ROLES = (
    ("<|im_start|>%s\n", "<|im_end|>\n"),
    ("<|%s|>\n", "<|end|>\n"),
    ("<start_of_turn>%s\n", "<end_of_turn>\n"),
    ("[%s]: ", "</s>"),
)
_MARKS = (("<think>", "</think>"), ("<thought>", "</thought>"), ("[THINK]", "[/THINK]"), ("<reason>", "</reason>"))
_SWITCHES = ("enable_thinking", "thinking", "reasoning", "cot", "deep", None)


def mutant(random_: random.Random) -> Mutant:
    """Return a template made of parts drawn at random; many contradict themselves, or show too little."""
    start, end = random_.choice(_ROLES)
    marks = opens, closes = random_.choice(_MARKS)
    switch = random_.choice(_SWITCHES)
    on_is = random_.random() < 0.8
    space = random_.choice(("\n", "", "\n\n"))
    prompt_opens = random_.random() < 0.5
    shows_turn = random_.random() < 0.5
    off = random_.choice((f"{opens}{space}{space}{closes}\n\n", f"{opens}{closes}", closes, "", "/no_think"))
    on = f"{opens}{space}" if prompt_opens else ""
    asks = f"({switch} if {switch} is defined else {random_.choice((True, False))})" if switch else "true"
    is_on = asks if on_is else f"(not {asks})"
    thought = f"{{{{ {f'{opens}{space}'!r} + m.reasoning_content + {f'{space}{closes}{space}'!r} }}}}"
    body = f"{{% if m.reasoning_content is defined %}}{thought}{{% endif %}}" if shows_turn else ""
    system = random_.choice(("", start % "system" + "You help." + end, f"{{{{ '<|think|>' if {is_on} else '' }}}}"))
    source = (
        f"{{# {random_.random()} #}}{system}{{% for m in messages %}}{{{{ {start!r}|replace('%s', m.role) }}}}{body}"
        f"{{{{ m.content + {end!r} }}}}{{% endfor %}}{{% if add_generation_prompt %}}{{{{ {start % 'assistant'!r} }}}}"
        f"{{%- if {is_on} %}}{{{{ {on!r} }}}}{{%- else %}}{{{{ {off!r} }}}}{{%- endif %}}{{% endif %}}"
    )
    return Mutant(source, switch, on_is, marks)


def real_mutant(random_: random.Random) -> Mutant:
    """Return a template that TRL ships, with other marks, another switch and another spelling."""
    file = random_.choice(("qwen3", "qwen3_5_think", "qwen3_5_nothink", "nemotron_3_nano", "glm4moe", "lfm2_2_5"))
    marks = random_.choice(_MARKS[:2] + _MARKS[3:])
    switch = random_.choice(_SWITCHES[:4])
    assert switch is not None
    source = template(f"{file}.jinja").replace("<think>", marks[0]).replace("</think>", marks[1])
    source = source.replace("enable_thinking", switch).replace(
        "<|im_start|>", random_.choice(("<|im_start|>", "<|t|>"))
    )
    has_switch = file != "lfm2_2_5"
    return Mutant(f"{{# {random_.random()} #}}{source}", switch if has_switch else None, True, marks)


def prompts(source: str, *variables: dict[str, Any]) -> list[str | None]:
    keys = [json.dumps({"variables": asked, "system": "", "suffix": ""}) for asked in variables]
    rendered = render_modes(source, keys)
    return [rendered[key] for key in keys]


def test_mutated_templates_are_inferred_rightly_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    # These templates are ours, so that they are rendered here: 300 forks of this process would take most of a minute.
    monkeypatch.setattr("presafe.models.recognition.render_bounded", lambda render, what: render())
    random_ = random.Random(23)
    inferred, reasons = 0, list[str]()
    for number in range(NUM_MUTANTS):
        made = (real_mutant if number % 4 == 0 else mutant)(random_)
        try:
            family = infer_family(made.source, "m", "</s>")
        except ModelError as error:
            reasons.append(error.problem)
            continue
        inferred += 1
        on, off = ({name: mode.variables for name, mode in family.modes.items()}[name] for name in ("on", "off"))
        asked_on = {made.switch: made.on_is} if made.switch else {}
        asked_off = {made.switch: not made.on_is} if made.switch else {}
        # The prompts are those of the truth; the inference may say no more of an unknown switch than that it has none.
        seen_on, seen_off, true_on, true_off = prompts(made.source, on, off, asked_on, asked_off)
        assert (seen_on, seen_off) == (true_on, true_off), made
        assert (family.think_open, family.think_close) == made.marks, made
        has_switch = true_on != true_off  # not if both prompts are the same, whatever the template's source says
        assert (family.untrained == "off") != has_switch, made
        assert true_on is not None
        assert true_on.endswith(family.decision_text)
        if has_switch:
            assert true_off is not None
            assert (family.off_decision_text is None) == true_off.startswith(true_on), made
    assert all("it cannot be told how it is asked" in reason for reason in reasons)  # never another error
    # 94 are inferred, 31 of the 50 real ones among them: it would be no inference if nearly all could not be told.
    assert inferred >= 90


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        ("thinking_mode == 'no_think'", "'thinking_mode'"),
        ("mode in ['chat', 'plain']", "'mode'"),
        ("reasoning_effort == 'none'", "'reasoning_effort'"),
        ("thinking_budget == 1", "'thinking_budget'"),
        ("thinking is mapping and thinking.type == 'disabled'", "'thinking'"),
        ("'/no_thinking' in messages[-1].content", "'/no_thinking'"),
        ("'detailed thinking off' in messages[0].content", "'detailed thinking off'"),
        ("messages[0].content.startswith('quick:')", "'quick:'"),
    ],
)
def test_a_switch_of_another_kind_cannot_be_told(condition: str, names: str) -> None:
    # All but the last failed first: each was inferred as a family that always thinks.
    source = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>"
        f"{{% if {condition} %}}<think></think>{{% else %}}<think>{{% endif %}}"
    )
    with pytest.raises(ModelError) as caught:
        infer_family(source, "m", "<|end|>")
    assert "it cannot be told how it is asked" in caught.value.problem
    assert names in caught.value.problem


def unknown_model(folder: Path) -> Path:
    """SmolLM2's tokenizer with a template of no known family."""
    tokenizer = copy.deepcopy(load_renderer("smolthink").tokenizer)
    source = template("qwen3_5_think.jinja").replace("<think>", "<muse>").replace("</think>", "</muse>")
    tokenizer.chat_template = source.replace("enable_thinking", "thinking")
    tokenizer.save_pretrained(folder)
    return folder


def test_an_unknown_template_is_inferred_only_where_it_is_asked(tmp_path: Path) -> None:
    folder = str(unknown_model(tmp_path))
    with pytest.raises(UnknownFamilyError) as caught:
        load_renderer(folder)
    assert "presafe doctor" in caught.value.hint
    renderer = load_renderer(folder, "auto")
    read = renderer.tokenizer.decode
    opened = "<|im_start|>user\nBoil an egg?<|im_end|>\n<|im_start|>assistant\n<muse>\n"
    assert read(renderer.render("Boil an egg?", "on").ids) == opened
    assert read(renderer.render("Boil an egg?", "off").ids) == f"{opened}\n</muse>\n\n"
    assert renderer.split(renderer.completion("A thought.", "12."), "on") == ("A thought.", "12.", False)


def test_an_inferred_family_is_saved_and_read_again(tmp_path: Path) -> None:
    renderer = load_renderer(str(unknown_model(tmp_path)), "auto")
    mine = tmp_path / "mine.toml"
    mine.write_text(as_toml(renderer.family), encoding="utf-8")
    family = find_family(str(mine))
    assert family == renderer.family
    assert Renderer(renderer.tokenizer, family).render("x", "off") == renderer.render("x", "off")


def test_auto_takes_a_known_family_where_there_is_one() -> None:
    assert load_renderer("smolthink", "auto").family.name == "smolthink"


_ALL = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (_ALL + "", "show the marks of a thought"),
        (_ALL + "{{ '<think>' if deep else '' }}", "its variable 'deep' changes the prompt"),
        (_ALL + "{{ '' if enable_thinking else '<think>\n' }}", "cannot be told"),
        (_ALL + "{{ '<think>' if not '/no_think' in messages[0].content else '' }}", "'/no_think' in a text"),
        ("{{ messages[0].content * 2 }}<think>", "does not write the user's text once"),
    ],
)
def test_what_cannot_be_told_is_said(source: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        infer_family(source, "m", "</s>")
