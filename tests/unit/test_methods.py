"""The methods there are: what each says of itself, and which a recipe takes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from presafe.cli.listing import Kind, list_names
from presafe.errors import RecipeError
from presafe.methods.registry import is_prefill, methods, trained
from presafe.methods.targets import sentences
from presafe.recipe import AlignSettings, parse_recipe
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


def test_every_method_file_is_found_in_order_of_what_it_is() -> None:
    import presafe.methods

    files = {path.stem for path in Path(presafe.methods.__path__[0]).glob("*.py")}
    assert files - {"__init__", "method", "targets", "registry"} == set(methods())
    assert list(methods())[:2] == ["sft", "presafe"]
    kinds = [method.kind for method in methods().values()]
    assert kinds == sorted(kinds, key=["baseline", "presafe", "control", "rival"].index)


@pytest.mark.parametrize("name", methods())
def test_a_method_trains_or_prefills_and_a_rival_names_its_paper(name: str) -> None:
    method = methods()[name]
    assert (method.prefill is None) != (method.training is None)
    assert is_prefill(name) == (method.prefill is not None)
    assert trained((name,)) == ([] if is_prefill(name) else [name])
    if method.kind == "rival":
        assert re.search(r"arXiv \d{4}\.\d{5}", method.source)


def test_titles_are_those_of_the_tables_and_differ() -> None:
    assert {SYSTEMS[name] for name in methods()} == {method.title for method in methods().values()}
    assert len(set(SYSTEMS.values())) == len(SYSTEMS)


def test_the_list_names_every_method_with_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    list_names(Kind.methods)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(methods())
    for line, (name, method) in zip(lines, methods().items(), strict=True):
        assert line.split()[0] == name
        assert method.description in line
        assert line.endswith(f"({method.source})")


def test_methods_are_read_without_torch() -> None:
    code = "import sys, presafe.recipe; assert not {'torch', 'transformers', 'inspect_ai'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_system_lists_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"align\.systems\.1: .*there are: .*safepath.*\(got 'safepaht'\)"):
        recipe(systems=["sft", "safepaht"])


def test_a_method_that_learns_from_a_file_needs_one_and_no_other_takes_one() -> None:
    assert recipe(systems=["star1"], data={"star1": FILE}).data["star1"].file == Path("star.json")
    with pytest.raises(RecipeError, match=r"star1 learns from a file: name it in \[align\.data\.star1\]"):
        recipe(systems=["sft", "star1"])
    for systems in (["sft"], ["safechain"]):
        data = {name: FILE for name in ("star1", "safechain") if name in ("star1", *systems)}
        with pytest.raises(RecipeError, match=r"`data\.star1` has no effect"):
            recipe(systems=systems, data=data)


def test_the_loss_on_the_output_alone_needs_a_weight() -> None:
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
def test_sentences_are_cut_behind_their_ends(text: str, parts: list[str]) -> None:
    assert sentences(text) == parts
