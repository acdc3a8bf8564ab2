"""Name judges and panels: on the command line, in recipes, in logs and in results.

refusal_strings                              an offline judge
harmbench                                    a model judge with its default model
strong_reject_rubric=openai/gpt-4o-mini      a model judge with a model named by its Inspect address
majority:xstest=A+xstest=B+refusal_strings   a panel: the verdict of more than half of its members, else unjudged
unanimity:paper_panel                        a panel: the verdict of all its members, else unjudged
paper_panel                                  a panel of `panels.toml`
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Literal, NamedTuple, cast

from presafe.config.engine import is_served
from presafe.errors import JudgeError
from presafe.judges.description import Asks, descriptions
from presafe.judges.refusal import OFFLINE

Rule = Literal["majority", "unanimity"]
_RAW = ("openai-api-completions/", "vllm-completions/", "hf/")
"""Providers that send a text unchanged, without a chat template."""
IN_PROCESS = ("presafe", "hf")
"""Providers that load the model in this process."""


class JudgeSpec(NamedTuple):
    """One judge: an offline one, or a model judge with its model."""

    judge: str
    model: str | None

    @property
    def name(self) -> str:
        """Name of the judge in results."""
        return f"{self.judge}={self.model}" if self.model else self.judge

    @property
    def asks(self) -> Asks:
        """What the judge decides: refusal or harm."""
        return "refusal" if self.judge in OFFLINE else descriptions()[self.judge].asks

    @property
    def has_label_order(self) -> bool:
        """Whether its prompt lists its classes, so that their order can be reversed."""
        description = descriptions().get(self.judge)
        return description is not None and description.with_reversed_labels() != description


class Panel(NamedTuple):
    """One judge without a rule, or several with one. `name` is its name in results."""

    name: str
    rule: Rule | None
    specs: tuple[JudgeSpec, ...]

    @property
    def asks(self) -> Asks:
        """What its judges decide: refusal or harm."""
        return self.specs[0].asks

    @property
    def has_label_order(self) -> bool:
        """Whether the prompt of one of its judges lists its classes."""
        return any(spec.has_label_order for spec in self.specs)


@cache
def panels() -> dict[str, Panel]:
    """Load the panels of `panels.toml`, by name."""
    text = resources.files("presafe.judges").joinpath("panels.toml").read_text(encoding="utf-8")
    return {
        name: Panel(name, panel["rule"], tuple(_read_spec(member) for member in panel["members"]))
        for name, panel in tomllib.loads(text).items()
    }


def judge_names() -> list[str]:
    """Return the names of all judges and panels."""
    return [*OFFLINE, *descriptions(), *panels()]


def read_name(name: str) -> Panel:
    """Read the name of a judge or panel.

    Raises:
        JudgeError: no such judge, a model that the judge cannot use, or a panel whose members decide different things.
    """
    rule, colon, members = name.partition(":")
    if not colon or rule not in ("majority", "unanimity"):
        if name in panels():
            return panels()[name]
        spec = _read_spec(name)
        return Panel(spec.name, None, (spec,))
    specs = tuple(
        spec
        for member in members.split("+")
        for spec in (panels()[member].specs if member in panels() else (_read_spec(member),))
    )
    if len(specs) < 2 or len(set(specs)) < len(specs):
        raise JudgeError(f"panel {name!r} needs two or more members, each once.", "Join them with +.")
    if len({spec.asks for spec in specs}) > 1:
        subjects = ", ".join(f"{spec.judge} judges {spec.asks}" for spec in specs)
        raise JudgeError(
            f"the members of panel {name!r} judge different things: {subjects}.",
            "Choose members that judge the same.",
        )
    is_named = members in panels()
    return Panel(f"{rule}:{members if is_named else '+'.join(spec.name for spec in specs)}", cast(Rule, rule), specs)


def _read_spec(name: str) -> JudgeSpec:
    judge, _, model = name.strip().partition("=")
    if judge in OFFLINE:
        if model:
            raise JudgeError(f"judge {judge} compares strings and takes no model; got {name!r}.")
        return JudgeSpec(judge, None)
    if judge not in descriptions():
        raise JudgeError(f"no judge {judge!r}.", f"There are: {', '.join(judge_names())}.")
    description = descriptions()[judge]
    address = model or description.model
    if not address:
        raise JudgeError(f"judge {judge} has no default model.", f"Name a model: {judge}=openai/gpt-4o-mini.")
    if "/" not in address:
        raise JudgeError(f"{address!r} is no model address.", f"Give provider/model: {judge}=openai/gpt-4o-mini.")
    if description.send == "completion" and not address.startswith(_RAW):
        raise JudgeError(
            f"judge {judge} needs its exact prompt, which a chat template would change; got {address!r}.",
            f"Give an address that sends raw text: {', '.join(provider + '…' for provider in _RAW)}.",
        )
    return JudgeSpec(judge, address)


def models_here(*names: str | None) -> tuple[str, ...]:
    """Return the addresses of judges' models whose weights are on this machine, each once.

    Args:
        names: Names of judges or panels; None for the default, which has no model.

    Raises:
        JudgeError: as `read_name`.
    """
    specs = [spec for name in names if name is not None for spec in read_name(name).specs]
    models = dict.fromkeys(spec.model for spec in specs if spec.model)
    parts = {model: model.partition("/") for model in models}
    return tuple(
        model for model, (provider, _, address) in parts.items() if provider in IN_PROCESS and not is_served(address)
    )
