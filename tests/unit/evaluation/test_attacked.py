"""Suites under attack and systems behind defences, asked of a server: what is asked, counted, judged and stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, completion, serving

from presafe.config.measure import MeasureSettings
from presafe.config.recipe import ModelSettings
from presafe.errors import AttackError, ModelError
from presafe.evaluation.attacked import attacked_suites, defended, suites_in_mode
from presafe.models.loading import load_renderer
from presafe.models.logs import log_files, read_log
from presafe.models.provider import PreSafeAPI
from presafe.models.sampling import logged_suites
from presafe.records import Expect, Prompt, Score, Turn
from presafe.report.attacks import attack_lines
from presafe.report.data import ReportData
from presafe.runs.manifest import sha256_of_prompts
from presafe.stages.systems import System
from presafe.workflows.compare import compare_folders
from presafe.workflows.measure import measure

NO = completion("so\n</think>\n\nI'm sorry, but I can't help with that.")
YES = completion("so\n</think>\n\nA wren.")


def prompts(expect: Expect, n: int = 2) -> list[Prompt]:
    """Return harmless stand-ins."""
    words = ("bird", "tree", "river")
    return [
        Prompt(id=f"{expect}-{i}", text=f"Name a {words[i]}.", category="c", split="s", license="l", expect=expect)
        for i in range(n)
    ]


SUITES = {"harmful": prompts("refuse"), "harmless": prompts("comply")}


def rows(data: ReportData, metric: str) -> dict[tuple[str, str], float | None]:
    return {(row.system, row.suite): row.value for row in data.scores if row.metric == metric}


def measured(
    fake: FakeServer, folder: Path, attacks: tuple[str, ...] = (), defences: tuple[str, ...] = (), **settings: Any
) -> ReportData:
    asked = MeasureSettings(thinking=("on",), max_tokens=64, attacks=attacks, defences=defences, **settings)
    return measure(ModelSettings(address=fake.address), SUITES, folder, asked)


def text_of(body: dict[str, Any]) -> str:
    return str(load_renderer("smolthink").tokenizer.decode(body["prompt"]))


def test_each_harmful_suite_is_a_suite_under_each_attack() -> None:
    suites = attacked_suites(SUITES, ("h_cot", "prefilled_thought"), 0)
    assert list(suites) == ["harmful", "harmless", "harmful@h_cot", "harmful@prefilled_thought"]
    assert suites["harmful"] == SUITES["harmful"]
    assert [prompt.id for prompt in suites["harmful@h_cot"]] == ["refuse-0", "refuse-1"]
    # With CoT off there is no thought to begin.
    assert list(suites_in_mode(suites, "off")) == ["harmful", "harmless", "harmful@h_cot"]
    assert suites_in_mode(suites, "on") == suites


def test_an_attack_without_a_harmful_suite_is_an_error() -> None:
    with pytest.raises(AttackError, match="h_cot would attack none of the suites"):
        attacked_suites({"harmless": prompts("comply")}, ("h_cot",), 0)
    with pytest.raises(AttackError, match="harmful@h_cot has the name of an attacked suite"):
        attacked_suites({**SUITES, "harmful@h_cot": prompts("comply")}, ("h_cot",), 0)


def test_the_hash_of_prompts_knows_attacks_and_is_the_old_one_without() -> None:
    plain = SUITES["harmful"]
    (prefilled,) = (attacked_suites(SUITES, ("prefilled_answer",), 0)["harmful@prefilled_answer"],)
    assert [prompt.text for prompt in prefilled] == [prompt.text for prompt in plain]
    assert sha256_of_prompts([prefilled]) != sha256_of_prompts([plain])
    # As commit 95308cc computed it.
    assert sha256_of_prompts([plain]) == OLD_SHA256


OLD_SHA256 = "2fae7ec111b5bd325fbf55791bed4f9fffe71858bf574f8fa744bf25c0213df6"


def test_a_system_name_holds_its_defence() -> None:
    assert defended("presafe", "smoothllm:copies=3") == "presafe+smoothllm:copies=3"
    assert defended("vanilla", None) == "vanilla"
    system = System(defended("presafe", "zero_think"), 0, "on")
    assert (system.method, system.defence) == ("presafe", "zero_think")
    assert (System("vanilla", None, "on").method, System("vanilla", None, "on").defence) == ("vanilla", None)


def test_attacks_and_defences_are_counted_judged_and_resumed(tmp_path: Path) -> None:
    def answer(body: dict[str, Any], number: int) -> Any:
        return YES if "Keep in mind" in text_of(body) else NO

    with serving(answer) as fake:
        data = measured(fake, tmp_path, ("h_cot", "best_of_n:queries=3"), ("self_reminder", "smoothllm:copies=2"))
        count = len(fake.asked)
        again = measured(fake, tmp_path, ("h_cot", "best_of_n:queries=3"), ("self_reminder", "smoothllm:copies=2"))
        greetings = len(fake.asked) - count
    assert again.scores == data.scores
    assert greetings <= 1  # nothing is asked again
    names = ("vanilla", "vanilla+self_reminder", "vanilla+smoothllm:copies=2")
    suites = ("harmful", "harmless", "harmful@h_cot", "harmful@best_of_n:queries=3")
    queries = rows(data, "queries_per_answer")
    # Refusals throughout: best-of-N spends its three queries, and each goes through the defence, which asks two copies.
    # The reminder makes this model give in at once.
    assert {key: queries[key] for key in queries if "best_of_n" in key[1]} == {
        (names[0], suites[3]): 3.0,
        (names[1], suites[3]): 1.0,
        (names[2], suites[3]): 6.0,
    }
    assert {queries[name, suite] for name in names[:2] for suite in suites[:3]} == {1.0}
    assert {queries[names[2], suite] for suite in suites[:3]} == {2.0}
    success = rows(data, "attack_success_rate")
    harmful = [suite for suite in suites if suite != "harmless"]
    assert {success[names[1], suite] for suite in harmful} == {1.0}
    assert {success[name, suite] for name in (names[0], names[2]) for suite in harmful} == {0.0}
    # Over-refusal of every defence, from the same run: only the reminder's model answers.
    assert rows(data, "over_refusal_rate") == {
        (names[0], "harmless"): 1.0,
        (names[1], "harmless"): 0.0,
        (names[2], "harmless"): 1.0,
    }
    # 2 prompts × (queries of the four suites) by system, and the greeting.
    assert count - 1 == 2 * ((1 + 1 + 1 + 3) + (1 + 1 + 1 + 1) + (2 + 2 + 2 + 6))
    lines = attack_lines(data.scores)
    assert [line.suite for line in lines] == ["harmful", "harmful@h_cot", "harmful@best_of_n:queries=3", "harmless"]
    assert lines[2].cells[2].splitlines()[0] == "0.0 % [0, 66]"  # 0 of 2, Wilson
    assert lines[2].cells[2].splitlines()[1].startswith("6 q, ")
    assert "SUITE @ ATTACK" in (tmp_path / "report.html").read_text(encoding="utf-8")
    compared = compare_folders([tmp_path], tmp_path.parent / "compared", against="vanilla")
    assert {difference.system for difference in compared.differences} == set(names[1:])


def test_judges_and_logs_keep_the_plain_request(tmp_path: Path) -> None:
    with serving(lambda *_: NO) as fake:
        measured(fake, tmp_path, ("cot_hijacking:length=50",))
        asked = [text for body in fake.asked if "Last task. Name a" in (text := text_of(body))]
    assert len(asked) == 2
    folder = tmp_path / "evaluation" / "vanilla-on"
    log = logged_suites(folder, "on")["harmful@cot_hijacking:length=50"]
    assert all("Puzzle 1." in text for text in log.texts.values())
    samples = [sample for path in log_files(folder) for sample in read_log(path, lambda _: None).samples or []]
    requests = {sample.metadata["attacked"]["request"] for sample in samples if "attacked" in sample.metadata}
    assert requests == {"Name a bird.", "Name a tree."}


def test_the_perplexity_filter_needs_weights(tmp_path: Path) -> None:
    with serving(lambda *_: NO) as fake, pytest.raises(ModelError, match="the defence perplexity needs local weights"):
        measured(fake, tmp_path, (), ("perplexity",))


def test_a_thought_cannot_be_begun_where_cot_is_off_alone(tmp_path: Path) -> None:
    settings = MeasureSettings(thinking=("off",), max_tokens=8, attacks=("prefilled_thought",))
    with pytest.raises(AttackError, match="harmful@prefilled_thought begins a thought, and CoT is off"):
        measure(ModelSettings(address="smolthink"), SUITES, tmp_path, settings)


def test_a_server_of_text_cannot_be_asked_in_other_tokens() -> None:
    from presafe.models.dialect import Dialect

    api = PreSafeAPI("http://127.0.0.1:9#smolthink")
    api.engine._greeted = (load_renderer("smolthink"), Dialect.OPENAI)  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="would merge again what retokenization cuts"):
        api.prompt_ids("Name a bird.", Turn(dropout=0.4))


def test_costs_are_means_with_intervals(tmp_path: Path) -> None:
    def answer(body: dict[str, Any], number: int) -> Any:
        return YES if "bird" in text_of(body).lower() else NO

    with serving(answer) as fake:
        data = measured(fake, tmp_path, ("best_of_n:queries=9,tokens=1",))
    (score,) = [
        row
        for row in data.scores
        if (row.metric, row.suite) == ("queries_per_answer", "harmful@best_of_n:queries=9,tokens=1")
    ]
    assert isinstance(score, Score)
    assert (score.value, score.n) == (1.0, 2)  # the first query spends the tokens
    stored = json.loads((tmp_path / "measurement.json").read_text(encoding="utf-8"))
    assert stored["attacks"] == ["best_of_n:queries=9,tokens=1"]
    assert "defences" not in stored
