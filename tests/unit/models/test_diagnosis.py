"""What `presafe doctor MODEL` finds, on the real templates that TRL ships and on ours."""

from __future__ import annotations

import copy
from pathlib import Path

import trl

from presafe.models.diagnosis import Diagnosis, diagnose
from presafe.models.family import families
from presafe.models.rendering import Renderer

TEMPLATES = Path(trl.__file__).parent / "chat_templates"


def diagnosis_of(smolthink: Renderer, file: str, family: str) -> Diagnosis:
    tokenizer = copy.deepcopy(smolthink.tokenizer)
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = (TEMPLATES / file).read_text(encoding="utf-8")
    return diagnose(Renderer(tokenizer, families()[family]), "Boil an egg?")


def names(diagnosis: Diagnosis) -> set[str]:
    return {trap.name for trap in diagnosis.traps}


def test_smolthink_renders_both_modes_around_the_decision(smolthink: Renderer) -> None:
    diagnosis = diagnose(smolthink, "Boil an egg?")
    opened = "<|im_start|>user\nBoil an egg?<|im_end|>\n<|im_start|>assistant\n<think>\n"
    assert diagnosis.family == "smolthink"
    assert (diagnosis.on.text, diagnosis.off.text) == (opened, opened + "\n</think>\n\n")
    assert diagnosis.on.decision_index == diagnosis.off.decision_index == len(diagnosis.on.ids) - 1
    assert diagnosis.on.decision_token == diagnosis.off.decision_token == "\n"


def test_smolthinks_traps(smolthink: Renderer) -> None:
    # Its marks are spelt with several tokens, its template knows no switch, and <|im_end|> in a text would end a turn.
    traps = names(diagnose(smolthink, "Boil an egg?"))
    assert traps >= {"ignores_enable_thinking", "parses_user_text", "spells_marks"}
    assert "strips_thoughts" not in traps


def test_r1_deletes_thoughts_and_ignores_the_switch(smolthink: Renderer) -> None:
    traps = names(diagnosis_of(smolthink, "deepseek_r1_distill.jinja", "deepseek_r1"))
    assert traps >= {"strips_thoughts", "ignores_enable_thinking"}
    assert "spells_marks" not in traps  # here the marks are tokens of their own


def test_qwen3_honours_its_switch(smolthink: Renderer) -> None:
    diagnosis = diagnosis_of(smolthink, "qwen3.jinja", "qwen3")
    assert "ignores_enable_thinking" not in names(diagnosis)
    assert diagnosis.off.text.endswith("<think>\n\n</think>\n\n")


def test_levels_of_thinking_are_shown_whole(smolthink: Renderer) -> None:
    diagnosis = diagnosis_of(smolthink, "nemotron_3_super.jinja", "nemotron_3_super")
    assert set(diagnosis.levels) == {"low"}
    assert diagnosis.levels["low"].text.replace("\n\n{reasoning effort: low}", "") == diagnosis.on.text


def test_an_empty_thought_fuses_its_newlines(smolthink: Renderer) -> None:
    # `<think>\n` + `\n</think>` in one string: with marks of their own the two newlines become one token.
    tokenizer = copy.deepcopy(smolthink.tokenizer)
    tokenizer.add_tokens(["<think>", "</think>"])
    traps = names(diagnose(Renderer(tokenizer, families()["smolthink"]), "Boil an egg?"))
    assert "fuses_tokens_off" in traps
    assert "fuses_tokens_on" not in traps


def test_traps_do_not_depend_on_what_is_asked(smolthink: Renderer) -> None:
    asked = ("What is <|im_end|>?", "Boil an egg?")
    assert names(diagnose(smolthink, asked[0])) == names(diagnose(smolthink, asked[1]))


def test_a_family_with_another_models_stop_is_noticed(smolthink: Renderer) -> None:
    family = families()["smolthink"].model_copy(update={"stop": ("</s>",)})
    assert "has_no_stop" in names(diagnose(Renderer(smolthink.tokenizer, family), "Boil an egg?"))


def test_a_model_with_one_mode_is_noticed(smolthink: Renderer) -> None:
    diagnosis = diagnosis_of(smolthink, "qwen3.jinja", "qwen3_instruct_2507")
    (trap,) = (trap for trap in diagnosis.traps if trap.name == "has_no_switch")
    assert "CoT on is the prefill '<think>\\n'" in trap.what
    assert "has_no_switch" not in names(diagnosis_of(smolthink, "qwen3.jinja", "qwen3"))


def test_a_named_family_of_other_configs_is_noticed(smolthink: Renderer) -> None:
    asked = copy.deepcopy(smolthink.tokenizer)
    asked.chat_template = (TEMPLATES / "deepseek_r1_distill.jinja").read_text(encoding="utf-8")
    family = families()["deepseek_r1_early"].model_copy(update={"on_prefill": ""})
    diagnosis = diagnose(Renderer(asked, family, "deepseek_v3"), "Boil an egg?")
    assert diagnosis.model_type == "deepseek_v3"
    (trap,) = (trap for trap in diagnosis.traps if trap.name == "has_another_config")
    assert "the config is of a deepseek_v3, and models of the family deepseek_r1_early have qwen2, llama" in trap.what
    # a config that is the family's, or is not known, is no trap
    for model_type in ("llama", None):
        assert "has_another_config" not in names(diagnose(Renderer(asked, family, model_type), "Boil an egg?"))
