"""Methods: what each one declares, and which of them a recipe takes."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import presafe.methods
from presafe.cli.listing import Kind, list_names
from presafe.config.recipe import AlignSettings, parse_recipe
from presafe.errors import RecipeError
from presafe.methods import safekey
from presafe.methods.registry import is_prefill, methods, trained, training_of
from presafe.methods.targets import sentences
from presafe.report.formatting import SYSTEMS

FILE = {"file": "star.json"}


def recipe(**align: object) -> AlignSettings:
    sums = {"set": "arithmetic", "n": 2}
    settings = {
        "name": "mine",
        "model": {"address": "smolthink"},
        "respond": {"classifier_queries": [sums], "alignment_queries": [sums]},
        "align": align,
        "evaluate": {"suites": {"sums": sums}},
    }
    return parse_recipe(settings, "mine").align


def test_registry_holds_the_methods_of_every_module() -> None:
    folder = Path(presafe.methods.__path__[0])
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "method", "targets", "registry"}
    declared = [name for module in modules for name in import_module(f"presafe.methods.{module}").METHODS]
    assert sorted(declared) == sorted(methods())


def test_registry_refuses_a_name_declared_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(safekey.METHODS, "sft", safekey.METHODS["safekey"])
    with pytest.raises(ValueError, match="method sft is declared twice, the second time in safekey"):
        methods.__wrapped__()


def test_methods_are_sorted_by_kind() -> None:
    assert list(methods())[:4] == ["sft", "sft_rank_1", "sft_weighted", "presafe"]
    kinds = [method.kind for method in methods().values()]
    assert kinds == sorted(kinds, key=["baseline", "presafe", "control", "rival"].index)


def test_training_of_a_prefill_fails() -> None:
    with pytest.raises(ValueError, match="method zero_think does not train"):
        training_of("zero_think")


@pytest.mark.parametrize("name", methods())
def test_method_trains_or_prefills(name: str) -> None:
    method = methods()[name]
    assert (method.prefill is None) != (method.training is None)
    assert is_prefill(name) == (method.prefill is not None)
    assert trained((name,)) == ([] if is_prefill(name) else [name])
    if method.kind == "rival":
        assert re.search(r"arXiv \d{4}\.\d{5}", method.source)


def test_titles_match_the_tables_and_differ() -> None:
    assert {SYSTEMS[name] for name in methods()} == {method.title for method in methods().values()}
    assert len(set(SYSTEMS.values())) == len(SYSTEMS)


def test_list_shows_every_method_with_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    list_names(Kind.methods)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(methods())
    for line, (name, method) in zip(lines, methods().items(), strict=True):
        assert line.split()[0] == name
        assert method.description in line
        assert line.endswith(f"({method.source})")


def test_methods_load_without_torch() -> None:
    code = "import sys, presafe.config.recipe; assert not {'torch', 'transformers', 'inspect_ai'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_system_lists_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"align\.systems\.1: .*there are: .*safepath.*\(got 'safepaht'\)"):
        recipe(systems=["sft", "safepaht"])


def test_only_methods_with_data_need_and_take_a_file() -> None:
    assert recipe(systems=["star1"], data={"star1": FILE}).data["star1"].file == Path("star.json")
    with pytest.raises(RecipeError, match=r"star1 learns from a file: name it in \[align\.data\.star1\]"):
        recipe(systems=["sft", "star1"])
    for systems in (["sft"], ["safechain"]):
        data = {name: FILE for name in ("star1", "safechain") if name in ("star1", *systems)}
        with pytest.raises(RecipeError, match=r"`data\.star1` has no effect"):
            recipe(systems=systems, data=data)


def test_presafe_start_needs_a_weight() -> None:
    assert recipe(systems=["presafe_start"], lambda_start=0.5).systems == ("presafe_start",)
    with pytest.raises(RecipeError, match="presafe_start is `sft` by another name"):
        recipe(systems=["presafe_start"])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One. Two! Three", ["One. ", "Two! ", "Three"]),
        ("7.5 is more.\nYes.", ["7.5 is more.\n", "Yes."]),
        ("no end", ["no end"]),
        ("", []),
    ],
)
def test_sentences_split_after_their_ends(text: str, parts: list[str]) -> None:
    assert sentences(text) == parts
