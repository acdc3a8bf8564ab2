"""Names of attacks and defenses: how they are read, shown and refused."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from presafe.attacks import best_of_n
from presafe.attacks.hijacking import CotHijacking
from presafe.attacks.registry import (
    attack_label,
    attacks,
    defense_label,
    defenses,
    read_attack,
    read_defense,
    settings_of,
)
from presafe.cli.main import app
from presafe.config.measure import MeasureSettings
from presafe.config.recipe import parse_recipe
from presafe.errors import AttackError, RecipeError
from presafe.records import Prefill


def test_every_attack_and_defense_names_its_source() -> None:
    sources = [attack.source for attack in attacks().values()] + [defense.source for defense in defenses().values()]
    assert all(re.search(r"arXiv \d{4}\.\d{5}|ours|20\d\d", source) for source in sources)
    titles = [attack.title for attack in attacks().values()] + [defense.title for defense in defenses().values()]
    assert len(set(titles)) == len(titles)


def test_attacks_on_the_thought_come_first_and_searches_last() -> None:
    places = [attack.place for attack in attacks().values()]
    assert places == sorted(places, key=["thought", "request", "search"].index)
    assert places[-1] == "search"


def test_a_name_declared_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(best_of_n.ATTACKS, "h_cot", best_of_n.BestOfN)
    with pytest.raises(ValueError, match="h_cot is declared twice, the second time in thought"):
        attacks.__wrapped__()


def test_a_label_leaves_defaults_out_and_has_one_order() -> None:
    assert attack_label("h_cot:around=both") == "h_cot"
    assert attack_label("best_of_n:minutes=1.50,queries=3") == "best_of_n:queries=3,minutes=1.5"
    assert attack_label("best_of_n:tokens=none") == "best_of_n"
    assert defense_label("smoothllm:change=patch,copies=4") == "smoothllm:copies=4,change=patch"


def test_a_label_is_read_as_what_it_was_made_from() -> None:
    assert read_attack("cot_hijacking:length=75") == CotHijacking(length=75)
    for name, kind in attacks().items():
        settings = settings_of(kind)
        assert read_attack(f"{name}:{settings}") == kind()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("h_cott", r"no attack 'h_cott'\. There are: .*h_cot, "),
        ("h_cot:x=1", r"x: no such setting\. Its settings are: around=both"),
        ("cot_hijacking:length=5", r"length: Input should be greater than or equal to 50"),
        ("cot_hijacking:length=99.5", r"length: Input should be a valid integer"),
        ("cot_hijacking:length", r"'length' is no setting=value"),
        ("best_of_n:queries=2,queries=3", r"'queries=3' is no setting=value, or a second one"),
        ("best_of_n:minutes=nan", r"minutes: Input should be"),
        ("no_check:x=1", r"no_check has no settings"),
    ],
)
def test_a_wrong_attack_is_one_line_with_a_hint(text: str, problem: str) -> None:
    with pytest.raises(AttackError, match=problem):
        read_attack(text)


def test_a_wrong_defense_lists_the_defenses() -> None:
    with pytest.raises(AttackError, match=r"no defense 'smooth'\. There are: .*smoothllm"):
        read_defense("smooth")


def test_settings_keep_the_label_and_refuse_a_double() -> None:
    settings = MeasureSettings(attacks=("h_cot:around=both",), defenses=("zero_think",))
    assert settings.attacks == ("h_cot",)
    with pytest.raises(ValueError, match="named twice"):
        MeasureSettings(attacks=("h_cot", "h_cot:around=both"))


def recipe(**evaluate: object) -> dict[str, object]:
    sums = {"set": "arithmetic", "n": 2}
    return {
        "name": "mine",
        "model": {"address": "smolthink"},
        "respond": {"classifier_queries": [sums], "alignment_queries": [sums]},
        "evaluate": {"suites": {"sums": sums}, **evaluate},
    }


def test_a_recipe_checks_attacks_and_stores_none_where_none_is() -> None:
    stored = parse_recipe(recipe(attacks=["many_shot:shots=32"]), "mine").model_dump(mode="json")["evaluate"]
    assert stored["attacks"] == ["many_shot"]
    # A folder from before attacks has no such key, and must resume.
    assert not {"attacks", "defenses"} & parse_recipe(recipe(), "mine").model_dump(mode="json")["evaluate"].keys()
    with pytest.raises(RecipeError, match=r"evaluate\.attacks\.0: .*no attack 'h_cott'"):
        parse_recipe(recipe(attacks=["h_cott"]), "mine")
    with pytest.raises(RecipeError, match=r"evaluate\.defenses\.0: .*defense 'smoothllm:copies=0': copies"):
        parse_recipe(recipe(defenses=["smoothllm:copies=0"]), "mine")


def test_list_shows_settings_and_sources() -> None:
    lines = CliRunner().invoke(app, ["list", "attacks"]).output.splitlines()
    assert len(lines) == len(attacks())
    (line,) = [line for line in lines if line.startswith("cot_hijacking ")]
    assert line.endswith("; settings length=1000 (arXiv 2510.26418)")
    assert len(CliRunner().invoke(app, ["list", "defenses"]).output.splitlines()) == len(defenses())


def test_attacks_load_without_torch() -> None:
    code = (
        "import sys, presafe.attacks.registry as r; r.attacks(), r.defenses(); "
        "assert not {'torch', 'transformers', 'inspect_ai'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_prefills_follow_one_another_until_the_thought_is_closed() -> None:
    open_thought, closed = Prefill("One. ", closed=False), Prefill("Two.", closed=True, answer="Yes")
    assert open_thought.then(closed) == Prefill("One. Two.", closed=True, answer="Yes")
    # The system closed the thought: the attacker's thought is left out, the beginning of the answer stays.
    assert Prefill("", closed=True).then(closed) == Prefill("", closed=True, answer="Yes")
    assert closed.then(Prefill("", closed=True, answer=", sure")).answer == "Yes, sure"
    with pytest.raises(ValueError, match="only after a closed thought"):
        Prefill("One.", closed=False, answer="Yes")
