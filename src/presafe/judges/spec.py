"""How judges are named: on the command line, in recipes, in logs and in results.

refusal_strings                              an offline judge
harmbench                                    a model judge, as the model that it is by default
strong_reject_rubric=openai/gpt-4o-mini      a model judge, as a model named by its Inspect address
majority:xstest=A+xstest=B+refusal_strings   a panel: more than half of its members, else unjudged
unanimity:paper_panel                        a panel: all of its members, else unjudged
paper_panel                                  a panel of `panels.toml`
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Literal, NamedTuple, cast

from presafe.errors import JudgeError
from presafe.judges.description import Asks, descriptions
from presafe.judges.refusal import OFFLINE

Rule = Literal["majority", "unanimity"]
_RAW = ("openai-api-completions/", "vllm-completions/", "hf/")
"""Providers that send a text as it is, without a chat template."""


class Seat(NamedTuple):
    """One judge: an offline one, or a model judge as a model."""

    judge: str
    model: str | None

    @property
    def name(self) -> str:
        return f"{self.judge}={self.model}" if self.model else self.judge

    @property
    def asks(self) -> Asks:
        return "refusal" if self.judge in OFFLINE else descriptions()[self.judge].asks


class Bench(NamedTuple):
    """One judge, or several with a rule. `name` is what results call it."""

    name: str
    rule: Rule | None
    seats: tuple[Seat, ...]

    @property
    def asks(self) -> Asks:
        return self.seats[0].asks


@cache
def panels() -> dict[str, Bench]:
    """The panels that have a name of their own."""
    text = resources.files("presafe.judges").joinpath("panels.toml").read_text(encoding="utf-8")
    return {
        name: Bench(name, panel["rule"], tuple(_seat(member) for member in panel["members"]))
        for name, panel in tomllib.loads(text).items()
    }


def judge_names() -> list[str]:
    """Every judge and panel that has a name."""
    return [*OFFLINE, *descriptions(), *panels()]


def read_name(name: str) -> Bench:
    """A judge or panel by its name.

    Raises:
        JudgeError: no such judge, a model that it cannot be, or a panel that asks two questions.
    """
    rule, colon, members = name.partition(":")
    if not colon or rule not in ("majority", "unanimity"):
        if name in panels():
            return panels()[name]
        seat = _seat(name)
        return Bench(seat.name, None, (seat,))
    seats = tuple(
        seat
        for member in members.split("+")
        for seat in (panels()[member].seats if member in panels() else (_seat(member),))
    )
    if len(seats) < 2 or len(set(seats)) < len(seats):
        raise JudgeError(f"panel {name!r} needs two members or more, each once.", "Join them with +.")
    if len({seat.asks for seat in seats}) > 1:
        raise JudgeError(
            f"panel {name!r} asks two questions: "
            + ", ".join(f"{seat.judge} is about {seat.asks}" for seat in seats)
            + ".",
            "Choose members that judge the same.",
        )
    known = members in panels()
    return Bench(f"{rule}:{members if known else '+'.join(seat.name for seat in seats)}", cast(Rule, rule), seats)


def _seat(name: str) -> Seat:
    judge, _, model = name.strip().partition("=")
    if judge in OFFLINE:
        if model:
            raise JudgeError(f"judge {judge} reads strings and is no model; got {name!r}.")
        return Seat(judge, None)
    if judge not in descriptions():
        raise JudgeError(f"no judge {judge!r}.", f"There are: {', '.join(judge_names())}.")
    description = descriptions()[judge]
    address = model or description.model
    if not address:
        raise JudgeError(f"judge {judge} is no model by itself.", f"Name one: {judge}=openai/gpt-4o-mini.")
    if "/" not in address:
        raise JudgeError(f"{address!r} is no model address.", f"Give provider/model: {judge}=openai/gpt-4o-mini.")
    if description.send == "completion" and not address.startswith(_RAW):
        raise JudgeError(
            f"judge {judge} knows one prompt, which a chat template would change; got {address!r}.",
            f"Give an address that sends raw text: {', '.join(provider + '…' for provider in _RAW)}.",
        )
    return Seat(judge, address)
