"""Every reasoning template that TRL ships, and those of the wider field, beside the family that each is of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import real_tokenizers
import trl
from family_cases import CASES, TEXT, own_rendering, renderer_of, table

from presafe.errors import ModelError
from presafe.models.family import families
from presafe.models.recognition import detect_family
from presafe.models.rendering import Answer, Renderer

DOCS = Path(__file__).parents[3] / "docs" / "reference" / "families.md"
TEMPLATES = Path(trl.__file__).parent / "chat_templates"


def case_renderer(name: str) -> Renderer:
    try:
        return renderer_of(name)
    except real_tokenizers.Unreachable as error:
        pytest.skip(str(error))


def control(renderer: Renderer, ids: list[int]) -> list[int]:
    marks = set(renderer.tokenizer.added_tokens_decoder)
    return [index for index in ids if index in marks]


def test_every_template_of_trl_with_a_thought_is_in_the_table() -> None:
    # A thought shows in what a template renders of a finished turn, or in a source that names its marks.
    marks = ("<think>", "<|channel>", "analysis", "to=self")
    with_thought = {
        file.stem
        for file in TEMPLATES.glob("*.jinja")
        if "training" not in file.name and any(mark in file.read_text(encoding="utf-8") for mark in marks)
    }
    # These mention a mark and have no thought: Cohere's and Llama's texts speak of an analysis, say.
    assert with_thought - set(CASES) <= {"cohere", "cohere2", "qwen3_instruct_2507", "qwen3_vl"}
    assert len({case.template for case in CASES.values() if case.is_shipped}) == 23


@pytest.mark.parametrize("name", CASES)
def test_each_mode_is_what_the_template_renders(name: str) -> None:
    renderer = case_renderer(name)
    family = renderer.family
    assert detect_family(CASES[name].source, name).name == CASES[name].family
    for mode in family.modes:
        prompt, own = renderer.render(TEXT, mode), own_rendering(renderer, mode)
        assert renderer.tokenizer.decode(prompt.ids) == own
        # Token by token: the control tokens are those of the rendering, in its order.
        assert control(renderer, prompt.ids) == control(renderer, renderer.completion_ids(own))
    on, off = renderer.render(TEXT, "on"), renderer.render(TEXT, "off")
    assert on.decision_index == len(on.ids) - 1
    if family.off_decision_text is None:  # off goes on from on, and both share the decision position
        assert off.ids[: len(on.ids)] == on.ids
        assert off.decision_index == on.decision_index
    else:
        assert off.ids[: len(on.ids)] != on.ids
        assert off.decision_index == len(off.ids) - 1


@pytest.mark.parametrize("name", CASES)
def test_a_users_marks_stay_text_in_each_mode(name: str) -> None:
    renderer = case_renderer(name)
    family = renderer.family
    hostile = "".join((family.think_open, family.think_close, family.answer_open, *family.stop, "<|message|> a"))
    for mode in family.modes:
        plain = renderer.render("a", mode).ids
        assert control(renderer, renderer.render(hostile, mode).ids) == control(renderer, plain)


@pytest.mark.parametrize("name", CASES)
def test_a_thought_and_an_answer_are_read_back(name: str) -> None:
    renderer = case_renderer(name)
    family = renderer.family
    turn = renderer.completion("One step.\n\nAnother.", "It is 12.")
    assert turn[-1] in renderer.stop_ids()
    assert renderer.split(turn, "on") == Answer("One step.\n\nAnother.", "It is 12.", False)
    # A thought that was cut has no answer; with CoT off there is no thought unless the model opens one.
    cut = [*renderer.opening_ids(), *renderer.completion_ids("One step.")]
    assert renderer.split(cut, "on") == Answer("One step.", "", True)
    assert renderer.split(renderer.answer_ids("It is 12."), "off") == Answer("", "It is 12.", False)
    if family.model_opens:  # a reply that never opens a thought, and one that closes it at once
        assert renderer.split(renderer.answer_ids("It is 12."), "on") == Answer("", "It is 12.", False)
        assert renderer.split(turn, "off") == Answer("One step.\n\nAnother.", "It is 12.", False)
    assert renderer.split(renderer.completion(None, "It is 12."), "on") == Answer("", "It is 12.", False)


def test_the_documentation_shows_this_table() -> None:
    try:
        assert table() in DOCS.read_text(encoding="utf-8")
    except real_tokenizers.Unreachable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("file", "model_type", "name"),
    [
        ("gemma4_v5.jinja", "diffusion_gemma", "gemma4"),  # not a model that writes token by token
        ("glm4moe.jinja", "glm4", "glm4_moe"),
        ("nemotron_3_nano.jinja", "llama", "nemotron_3"),
    ],
)
def test_a_template_beside_another_config_is_a_question(file: str, model_type: str, name: str) -> None:
    with pytest.raises(ModelError, match=f"is that of {name}, but its config is of a {model_type}"):
        detect_family(real_tokenizers.template(file), "some/model", model_type)


@pytest.mark.parametrize("name", ["qwen3.jinja", "glm4moe.jinja", "nemotron_3_super.jinja"])
def test_another_spelling_of_a_template_is_the_same_family(name: str) -> None:
    # Escapes, quotes, comments and whitespace inside tags change nothing that is rendered.
    source = real_tokenizers.template(name)
    spelled = "{# a comment #}" + source.replace("'<think>", "'\\u003cthink>").replace("{%- if", "{%-  if")
    assert spelled != source
    assert detect_family(spelled, "m").name == detect_family(source, "m").name


def test_a_level_is_asked_like_on_and_a_missing_one_is_an_error() -> None:
    renderer = case_renderer("nemotron_3_super")
    on, low = renderer.render(TEXT, "on"), renderer.render(TEXT, "low")
    read = renderer.tokenizer.decode
    assert read(low.ids) == read(on.ids).replace(TEXT, f"{TEXT}\n\n{{reasoning effort: low}}")
    assert low.decision_index == len(low.ids) - 1
    with pytest.raises(ModelError, match=r"nemotron_3_super has no CoT high.*It has: on, low, off"):
        renderer.render(TEXT, "high")


def test_a_prompt_does_not_change_with_the_day() -> None:
    assert "Current date: 2026-01-01" in case_renderer("gptoss").tokenizer.decode(
        case_renderer("gptoss").render(TEXT, "on").ids
    )


def test_each_family_says_whence_and_when_its_rendering_is() -> None:
    folder = Path(__file__).parents[3] / "src" / "presafe" / "models" / "families"
    for name in families().keys() - {"smolthink"}:  # ours
        lines = (folder / f"{name}.toml").read_text(encoding="utf-8").splitlines()
        comment = " ".join(line.removeprefix("# ") for line in lines if line.startswith("#"))
        rendering = comment.partition("Rendering: ")[2].partition("Sampling: ")[0]
        assert re.search(r"\b20\d\d\b", rendering), name
        assert re.search("compare|template", rendering), name


def test_each_familys_sampling_names_its_source() -> None:
    sources = ("model card", "README", "generation_config.json", "unsourced")
    folder = Path(__file__).parents[3] / "src" / "presafe" / "models" / "families"
    for name in set(families()) - {"smolthink", "deepseek_r1_early"}:  # ours, and R1's with another template
        comment = " ".join(
            line[2:] for line in (folder / f"{name}.toml").read_text("utf-8").split("\n") if line[:1] == "#"
        )
        _, sampling, source = comment.partition("Sampling")
        assert sampling
        assert any(word in source for word in sources), name
        assert "from memory" not in comment
