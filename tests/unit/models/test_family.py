"""Which family a chat template belongs to, on the real templates that TRL ships and on ours."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import trl

from presafe.cli.listing import Kind, list_names
from presafe.cli.options import read_model
from presafe.errors import ModelError
from presafe.models.family import families, find_family, parse_family
from presafe.models.loading import load_renderer, smolthink_adapter
from presafe.models.recognition import detect_family

DOCS = Path(__file__).parents[3] / "docs" / "reference" / "families.md"
TEMPLATES = Path(trl.__file__).parent / "chat_templates"


def template(file: str) -> str:
    return (TEMPLATES / file).read_text(encoding="utf-8")


R1 = (TEMPLATES / "deepseek_r1_distill.jinja").read_text(encoding="utf-8")
QWEN3 = (TEMPLATES / "qwen3.jinja").read_text(encoding="utf-8")
SMOLTHINK = (smolthink_adapter() / "chat_template.jinja").read_text(encoding="utf-8")
R1_EARLY = R1.replace("{{'<｜Assistant｜><think>\\n'}}", "{{'<｜Assistant｜>'}}")
"""The template of DeepSeek-R1's first weeks differs in this place: it left opening the thought to the model."""

QWEN_THINKING = template("qwen3_instruct_2507.jinja").replace(
    "{{- '<|im_start|>assistant\\n' }}\n{%- endif %}", "{{- '<|im_start|>assistant\\n<think>\\n' }}\n{%- endif %}"
)
"""Qwen3-2507 Thinking and QwQ open the thought in every prompt; the rest is as in Instruct."""


def test_the_early_template_was_made() -> None:
    assert R1_EARLY != R1
    assert template("qwen3_instruct_2507.jinja") != QWEN_THINKING
    assert "<think>\\n" not in R1_EARLY


@pytest.mark.parametrize(
    ("template", "name"),
    [
        (R1, "deepseek_r1"),
        (R1_EARLY, "deepseek_r1_early"),
        (QWEN3, "qwen3"),
        (template("qwen3_training.jinja"), "qwen3"),
        (template("qwen3_5_think.jinja"), "qwen3_5"),
        (template("qwen3_5_nothink.jinja"), "qwen3_5"),
        (template("qwen3_6.jinja"), "qwen3_5"),
        (QWEN_THINKING, "qwen_thinking"),
        (SMOLTHINK, "smolthink"),
    ],
)
def test_a_known_template_is_detected(template: str, name: str) -> None:
    assert detect_family(template, "some/model").name == name


@pytest.mark.parametrize(
    ("template", "model_type", "name"),
    [
        # as the publishers' config.json have it: distills of Qwen2.5 and Llama 3, R1 itself, QwQ-32B on Qwen2.5,
        # Qwen3-4B-Thinking-2507 and -30B-A3B-
        (R1, "qwen2", "deepseek_r1"),
        (R1, "llama", "deepseek_r1"),
        (template("deepseekv3.jinja"), "deepseek_v3", "deepseek_r1"),
        (R1_EARLY, "qwen2", "deepseek_r1_early"),
        (R1_EARLY, "llama", "deepseek_r1_early"),
        (QWEN3, "qwen3", "qwen3"),
        (QWEN3, "qwen3_moe", "qwen3"),
        (template("qwen3_6.jinja"), "qwen3_5_moe", "qwen3_5"),
        (QWEN_THINKING, "qwen2", "qwen_thinking"),
        (QWEN_THINKING, "qwen3_moe", "qwen_thinking"),
        (SMOLTHINK, "llama", "smolthink"),
        (template("qwen3_instruct_2507.jinja"), "qwen3", "qwen3_instruct_2507"),
        (template("qwen3_instruct_2507.jinja"), "qwen3_moe", "qwen3_instruct_2507"),
    ],
)
def test_a_template_is_detected_beside_its_config(template: str, model_type: str, name: str) -> None:
    assert detect_family(template, "some/model", model_type).name == name


@pytest.mark.parametrize("file", ["qwen3_instruct_2507.jinja", "qwen2_5.jinja"])
def test_plain_chatml_is_instruct_2507_only_with_qwen3s_config(file: str) -> None:
    with pytest.raises(ModelError, match="of no known family"):
        detect_family(template(file), "some/model", "qwen2")


def test_what_may_be_v3_is_not_taken_for_a_distill() -> None:
    # Failed first: V3 has the early distills' template, does not reason, and was asked to think without a word.
    with pytest.raises(ModelError) as caught:
        detect_family(R1_EARLY, "some/model", "deepseek_v3")
    assert "is that of deepseek_r1_early, but its config is of a deepseek_v3" in caught.value.problem
    assert "has qwen2, llama" in caught.value.problem
    assert "`family`" in caught.value.hint


@pytest.mark.parametrize("template", [None, ""])
def test_a_model_without_a_template_is_named(template: str | None) -> None:
    with pytest.raises(ModelError, match="some/model has no chat template"):
        detect_family(template, "some/model")


@pytest.mark.parametrize(
    "file",
    [
        *("llama3.jinja", "qwen2_5.jinja", "gemma3.jinja", "qwen3_instruct_2507.jinja"),
        *("lfm2.jinja", "phi3.jinja"),
    ],
)
def test_a_model_without_a_switch_is_of_no_known_family(file: str) -> None:
    with pytest.raises(ModelError) as caught:
        detect_family((TEMPLATES / file).read_text(encoding="utf-8"), "some/model")
    assert "some/model" in caught.value.problem
    assert "smolthink, deepseek_r1, deepseek_r1_early, qwen3, qwen3_5, qwen_thinking" in caught.value.problem
    assert "family" in caught.value.hint


def test_published_sampling_is_kept_apart_by_mode() -> None:
    # Model cards: R1-Distill 0.6 / 0.95; Qwen3 0.6 / 0.95 / 20 thinking and 0.7 / 0.8 / 20 not.
    r1, qwen3 = families()["deepseek_r1"], families()["qwen3"]
    assert (r1.sampling_on.temperature, r1.sampling_on.top_p, r1.sampling_on.top_k) == (0.6, 0.95, 0)
    assert (qwen3.sampling_on.temperature, qwen3.sampling_on.top_p, qwen3.sampling_on.top_k) == (0.6, 0.95, 20)
    assert (qwen3.sampling_off.temperature, qwen3.sampling_off.top_p, qwen3.sampling_off.top_k) == (0.7, 0.8, 20)


GOOD = """
name = "mine"
on_prefill = ""
off_prefill = "</think>"
decision_text = ">"
stop = ["</s>"]
"""


def test_a_family_is_read_with_its_defaults() -> None:
    family = parse_family(GOOD, "mine.toml")
    assert (family.name, family.switch, family.think_close) == ("mine", None, "</think>")
    assert family.sampling_on.temperature == 0.0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name = ", "mine.toml is not TOML"),
        (GOOD + 'prefil = "x"', "prefil"),
        (GOOD.replace('stop = ["</s>"]', ""), "stop"),
        (GOOD + "[sampling_on]\ntop_p = 1.5", "sampling_on.top_p"),
        (GOOD + "[sampling_on]\ntop_p = 0.0", "sampling_on.top_p"),
        (GOOD + "[sampling_off]\ntop_p = nan", "sampling_off.top_p"),
        (GOOD + "[sampling_on]\ntemperature = inf", "sampling_on.temperature"),
        (GOOD + "[sampling_on]\ntemperature = nan", "sampling_on.temperature"),
        (GOOD.replace('["</s>"]', '[""]'), "stop.0"),
        (GOOD.replace('["</s>"]', '["</s>", ""]'), "stop.1"),
        (GOOD.replace('["</s>"]', "[]"), "stop"),
        ("a = " + "[" * 100_000, "mine.toml"),
        # The bounds of a recipe's sampling; failed first: each of these was taken.
        (GOOD + "[sampling_on]\ntemperature = 0.0005", "sampling_on.temperature"),
        (GOOD + "[sampling_on]\ntemperature = 101.0", "sampling_on.temperature"),
        (GOOD + "[sampling_off]\ntop_p = 1e-9", "sampling_off.top_p"),
        (GOOD + "[sampling_on]\ntop_k = true", "sampling_on.top_k"),
        (GOOD + "[sampling_on]\ntop_k = 3.0", "sampling_on.top_k"),
        (GOOD.replace('stop = ["</s>"]', 'stop = ["</s>"]\nmax_tokens = 2147483648'), "max_tokens"),
        (".".join("a" * 30_000) + " = 1", "mine.toml is not TOML: it has a key of more than 16 parts"),
        (GOOD + '"a\u009b" = 1', r"a\x9b"),  # a control character in a name is escaped in the error
    ],
    ids=[
        *("not_toml", "unknown", "missing", "bounds", "no_mass", "nan_mass", "infinite", "nan"),
        *("empty_stop", "one_empty_stop", "no_stop", "deep"),
        *("cold", "hot", "tiny_mass", "true_top_k", "real_top_k", "large_budget", "long_key", "control"),
    ],
)
def test_a_malformed_family_names_file_and_field(text: str, complaint: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse_family(text, "mine.toml")
    assert complaint in str(caught.value)
    assert "mine.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_malformed_family_of_an_option_is_named_by_its_file(tmp_path: Path) -> None:
    # Failed first: settings keep the file's text, and what was wrong was that of a "family of your own".
    mine = tmp_path / "mine.toml"
    mine.write_text(GOOD.replace('stop = ["</s>"]', ""), encoding="utf-8")
    with pytest.raises(ModelError, match=r"mine\.toml: stop: Field required"):
        read_model("smolthink", str(mine), "float32")


def test_a_family_is_found_by_name_or_declared_in_toml() -> None:
    assert find_family("qwen3") is families()["qwen3"]
    assert find_family(GOOD).name == "mine"
    with pytest.raises(ModelError, match="no chat family 'qwen9'") as caught:
        find_family("qwen9")
    assert "give a .toml file" in caught.value.hint


def test_a_family_file_is_read_as_other_files_of_a_user(tmp_path: Path) -> None:
    # Failed first: a pipe without a writer was waited for, and a byte order mark was no TOML.
    mine = tmp_path / "mine.toml"
    mine.write_text("\ufeff" + GOOD, encoding="utf-8")
    assert find_family(str(mine)).name == "mine"
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    large = tmp_path / "large.toml"
    large.write_text(GOOD + "#" * 256_001, encoding="utf-8")
    for path, problem in ((pipe, "not a regular file"), (large, "256,000 bytes"), (tmp_path, "cannot read family")):
        file = path if path.suffix else path / "none.toml"
        with pytest.raises(ModelError, match=problem):
            find_family(str(file))


def test_the_list_and_the_documentation_name_each_familys_models(capsys: pytest.CaptureFixture[str]) -> None:
    # Failed first: `presafe list models` named no model of a family, so that QwQ could not be found in it.
    first_table = DOCS.read_text("utf-8").split("| family |")[1].split("\n\n")[0]
    documented = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", first_table, re.MULTILINE)
    list_names(Kind.models)
    listed = re.findall(r"^(\w+) +chat family of ([^;]+);", capsys.readouterr().out, re.MULTILINE)
    assert dict(documented) == dict(listed) == {name: family.models for name, family in families().items()}


def test_every_family_has_its_publishers_budget() -> None:
    assert {name: family.max_tokens for name, family in families().items() if family.max_tokens != 32_768} == {
        "smolthink": 160,
        "qwen3_instruct_2507": 16_384,
        "qwenthink": 320,
    }


def test_a_stop_that_is_no_token_is_an_error() -> None:
    # SmolLM2 has <|im_end|>, and spells </s> in several tokens, so that no turn would end by it.
    fits = GOOD.replace("</s>", "<|im_end|>").replace('decision_text = ">"', 'decision_text = "\\n"')
    assert load_renderer("smolthink", fits).family.stop == ("<|im_end|>",)
    with pytest.raises(ModelError, match="stop: '</s>' is not a token of this tokenizer"):
        load_renderer("smolthink", fits.replace('["<|im_end|>"]', '["<|im_end|>", "</s>"]'))
