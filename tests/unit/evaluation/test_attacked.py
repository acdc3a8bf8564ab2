"""Suites under attack and systems behind defenses, asked of a server: what is asked, counted, judged and stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, completion, serving

from presafe.config.measure import MeasureSettings
from presafe.config.recipe import ModelSettings
from presafe.errors import AttackError, ModelError
from presafe.evaluation.attacked import attacked_suites, defended, measured_suites, suites_in_mode
from presafe.models.loading import load_renderer
from presafe.models.logs import log_files, read_log
from presafe.models.provider import PreSafeAPI
from presafe.records import Expect, Prompt, Turn
from presafe.report.attacks import attack_lines
from presafe.report.data import ReportData
from presafe.report.formatting import SUITES as KNOWN_SUITES
from presafe.report.formatting import SYSTEMS, display_name
from presafe.report.results import shown_tables
from presafe.runs.manifest import sha256_of_prompts
from presafe.stages.systems import System
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
    fake: FakeServer, folder: Path, attacks: tuple[str, ...] = (), defenses: tuple[str, ...] = (), **settings: Any
) -> ReportData:
    asked = MeasureSettings(thinking=("on",), max_tokens=64, attacks=attacks, defenses=defenses, **settings)
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


def test_an_address_in_a_label_is_no_part_of_a_file_name() -> None:
    label = "pair:attacker=http://127.0.0.1:9/v1#m"
    suites = attacked_suites(SUITES, (label,), 0)
    name = "harmful@pair:attacker=http:__127.0.0.1:9_v1_m"
    assert list(suites) == ["harmful", "harmless", name]
    attacked = suites[name][0].attacked
    assert attacked is not None
    assert attacked.search == label
    assert list(suites_in_mode(suites, "off")) == list(suites)
    assert measured_suites(["harmful"], [label]) == ["harmful", name]


def test_an_attack_without_a_harmful_suite_is_an_error() -> None:
    with pytest.raises(AttackError, match="h_cot would attack none of the suites"):
        attacked_suites({"harmless": prompts("comply")}, ("h_cot",), 0)
    with pytest.raises(AttackError, match="harmful@h_cot has the name of an attacked suite"):
        attacked_suites({**SUITES, "harmful@h_cot": prompts("comply")}, ("h_cot",), 0)


def test_the_hash_of_prompts_knows_attacks() -> None:
    plain = SUITES["harmful"]
    (prefilled,) = (attacked_suites(SUITES, ("prefilled_answer",), 0)["harmful@prefilled_answer"],)
    assert [prompt.text for prompt in prefilled] == [prompt.text for prompt in plain]
    assert sha256_of_prompts([prefilled]) != sha256_of_prompts([plain])
    # As commit 95308cc computed it.
    assert sha256_of_prompts([plain]) == OLD_SHA256


OLD_SHA256 = "2fae7ec111b5bd325fbf55791bed4f9fffe71858bf574f8fa744bf25c0213df6"


def test_a_system_name_holds_its_defense() -> None:
    assert defended("presafe", "smoothllm:copies=3") == "presafe+smoothllm:copies=3"
    assert defended("vanilla", None) == "vanilla"
    system = System(defended("presafe", "zero_think"), 0, "on")
    assert (system.method, system.defense) == ("presafe", "zero_think")
    assert (System("vanilla", None, "on").method, System("vanilla", None, "on").defense) == ("vanilla", None)


def test_attacks_and_defenses_are_counted_judged_and_shown(tmp_path: Path) -> None:
    def answer(body: dict[str, Any], number: int) -> Any:
        return YES if "Keep in mind" in text_of(body) else NO

    attack = "best_of_n:queries=3"
    with serving(answer) as fake:
        data = measured(fake, tmp_path, (attack,), ("self_reminder", "smoothllm:copies=2"))
    names = ("vanilla", "vanilla+self_reminder", "vanilla+smoothllm:copies=2")
    attacked = f"harmful@{attack}"
    # Refusals throughout: best-of-N spends its three queries, and each goes through the defense, which asks two copies.
    # The reminder makes this model give in at once.
    assert rows(data, "queries_per_answer") == {
        **{(names[0], suite): 1.0 for suite in SUITES},
        (names[0], attacked): 3.0,
        **{(names[1], suite): 1.0 for suite in (*SUITES, attacked)},
        **{(names[2], suite): 2.0 for suite in SUITES},
        (names[2], attacked): 6.0,
    }
    assert rows(data, "not_refused_rate") == {
        (name, suite): float(name == names[1]) for name in names for suite in ("harmful", attacked)
    }
    # Over-refusal of every defense, from the same run: only the reminder's model answers.
    assert rows(data, "over_refusal_rate") == {(name, "harmless"): float(name != names[1]) for name in names}
    # 2 prompts × (queries of the three suites) by system, and a greeting for each system.
    assert len(fake.asked) == 2 * ((1 + 1 + 3) + (1 + 1 + 1) + (2 + 2 + 6)) + 3
    names_shown = [display_name(name, SYSTEMS) for name in names]
    assert names_shown == ["Vanilla", "Vanilla + self_reminder", "Vanilla + smoothllm:copies=2"]
    logs = [read_log(path, lambda _: None) for path in log_files(tmp_path / "evaluation" / f"{names[2]}-on")]
    samples = [sample for log in logs for sample in log.samples or [] if log.eval.task == attacked]
    assert {sample.metadata["attacked"]["request"] for sample in samples} == {"Name a bird.", "Name a tree."}
    stored = json.loads((tmp_path / "measurement.json").read_text(encoding="utf-8"))
    assert (stored["attacks"], stored["defenses"]) == ([attack], ["self_reminder", "smoothllm:copies=2"])
    lines = attack_lines(data.scores)
    assert [line.suite for line in lines] == ["harmful", attacked, "harmless"]
    rate, cost = lines[1].cells[2].splitlines()
    assert rate == "0.0 % [0, 66]"  # 0 of 2, Wilson
    assert cost.startswith("6 q, ")
    small, of_attacks = shown_tables(data)
    assert [str(column.header).split(":")[0] for column in small.columns[2:]] == ["harmful", "harmless"]
    assert [str(column.header) for column in of_attacks.columns[1:]] == [f"{name},\non" for name in names_shown]
    assert "judged by refusal_strings" in str(of_attacks.caption)
    assert "SUITE @ ATTACK" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert display_name("jailbreakbench@h_cot", KNOWN_SUITES) == "JailbreakBench @ h_cot"
    assert display_name("mine+yours", KNOWN_SUITES) == "mine+yours"
    assert set(data.timings_s) == {
        "CoT on", "CoT on with self_reminder", "CoT on with smoothllm:copies=2"
    }  # fmt: skip


def test_the_perplexity_filter_needs_weights(tmp_path: Path) -> None:
    with serving(lambda *_: NO) as fake, pytest.raises(ModelError, match="the defense perplexity needs local weights"):
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


def test_another_model_paraphrases_and_is_counted(tmp_path: Path) -> None:
    def answer(body: dict[str, Any], number: int) -> Any:
        if "Write the following text again" in text_of(body):
            return completion("Which wren sings?")
        return YES if "Which wren sings?" in text_of(body) else NO

    with serving(answer) as fake:
        label = f"paraphrase:by={fake.address}"
        data = measured(fake, tmp_path, (), (label,))
        again = measured(fake, tmp_path, (), (label,))
    name = f"vanilla+{label}"
    assert rows(data, "not_refused_rate") == {("vanilla", "harmful"): 0.0, (name, "harmful"): 1.0}
    # The paraphrase and the answer.
    assert rows(data, "queries_per_answer")[name, "harmful"] == 2.0
    paraphrasing = [body for body in fake.asked if "Write the following text again" in text_of(body)]
    assert len(paraphrasing) == 4  # two suites of two prompts, asked once: the second call reads the logs
    assert {body["max_tokens"] for body in paraphrasing} == {256}
    assert again.scores == data.scores
    assert sorted(folder.name for folder in (tmp_path / "evaluation").iterdir()) == sorted(
        ["vanilla-on", f"{name.replace('/', '_').replace('#', '_')}-on"]
    )
