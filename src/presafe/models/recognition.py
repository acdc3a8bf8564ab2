"""Recognize a chat family by what a template renders, not by how its source is spelled.

A family declares what its template renders in each mode. The template is rendered in every way that some family knows,
once, within bounds (`templates`), and the families whose declarations fit are compared with the model's config. A
switch that the family does not know and that changes the prompt is a sign of another family.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from presafe.errors import ModelError
from presafe.models.family import Family, Mode, families, has_config
from presafe.models.rendering import asked
from presafe.models.templates import render_bounded, with_fixed_day

USER, THOUGHT, ANSWER = "\ue000user text\ue000", "\ue000thought\ue000", "\ue000answer\ue000"
"""Placeholders, with private-use characters that no template has."""
SWITCHES: dict[str, tuple[bool | int | str, ...]] = {
    "enable_thinking": (True, False),
    "thinking": (True, False),
    "reasoning": (True, False),
    "low_effort": (True,),
    "medium_effort": (True,),
    "reasoning_effort": ("low", "medium", "high"),
    "reasoning_strength": ("low", "medium", "high"),
    "thinking_budget": (0,),
}
"""Template variables that some model's thinking is switched by, and values that ask for a mode."""
_TOOL = {"type": "function", "function": {"name": "clock", "description": "d", "parameters": {"type": "object"}}}
_HINT = "Name a family, or a .toml file that declares one (`family`)."
_INFER = "`presafe doctor MODEL` shows what can be inferred; the family auto takes it."


class UnknownFamilyError(ModelError):
    """A chat template renders what no known family declares."""


def key_of(mode: Mode) -> str:
    """Return the name under which `renderings` holds the prompt of a mode."""
    return mode.model_dump_json()


@lru_cache(maxsize=64)
def renderings(template: str) -> Mapping[str, str | None]:
    """Return what a template renders for each mode of each family and each known switch; see `render_modes`."""
    modes = [mode for family in families().values() for mode in family.modes.values()]
    return render_modes(template, [*switch_keys(), *map(key_of, modes)])


def render_modes(template: str, keys: Iterable[str]) -> dict[str, str | None]:
    """Return what a template renders of `USER` in each of some modes, in one bounded process.

    Args:
        template: The chat template (Jinja source).
        keys: The modes, as `key_of` writes them; the plain prompt is always rendered.

    Returns:
        By key; "turn" holds a finished turn of `THOUGHT` and `ANSWER`, "tools" a prompt with a tool. None where the
        template refuses.

    Raises:
        ModelError: as `render_bounded`, or the template refuses even the plain prompt.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    fixed = with_fixed_day(template)
    modes = {key: Mode.model_validate_json(key) for key in (key_of(Mode()), *keys)}
    question = {"role": "user", "content": USER}
    fields = dict.fromkeys(("reasoning_content", "reasoning", "thinking"), THOUGHT)
    answer = {"role": "assistant", "content": ANSWER} | fields

    def strictly(messages: list[dict[str, Any]], **variables: Any) -> str:
        values = {"bos_token": "", "eos_token": "", "add_generation_prompt": True} | variables
        texts, _ = render_jinja_template([messages], chat_template=fixed, **values)
        return str(texts[0])

    def render(messages: list[dict[str, Any]], **variables: Any) -> str | None:
        try:
            return strictly(messages, **variables)
        except (MemoryError, RecursionError):
            raise
        except Exception:  # a template is a program, and refuses with errors of every kind
            return None

    def render_all() -> str:
        rendered = {key: render(asked(mode, USER), **mode.variables) for key, mode in modes.items()}
        rendered["turn"] = render([question, answer], add_generation_prompt=False)
        rendered["tools"] = render([question], tools=[_TOOL])
        return json.dumps(rendered)

    result: dict[str, str | None] = json.loads(render_bounded(render_all, "the prompts of all known families"))
    if result[key_of(Mode())] is None:
        render_bounded(lambda: strictly([question]), "a conversation of user")  # raises what is wrong
    return result


def fits(family: Family, rendered: Mapping[str, str | None]) -> bool:
    """Return whether a template renders what a family declares, and nothing else by a switch it does not know.

    Args:
        family: The family.
        rendered: What the template renders (`renderings`).
    """
    if "on" not in family.rendered:
        return False
    for name, mode in family.modes.items():
        declared = family.rendered.get(name, family.rendered["on"])
        if not _is_one_of(declared, rendered[key_of(mode)]):
            return False
    own = {variable for mode in family.modes.values() for variable in mode.variables}
    plain = rendered[key_of(Mode())]
    if any(rendered[key] != plain for key in switch_keys(own)):
        return False
    if family.takes_tools is not None and family.takes_tools != (rendered["tools"] != plain):
        return False
    return not family.rendered_turn or _is_one_of(family.rendered_turn, rendered["turn"])


def switch_keys(without: Iterable[str] = ()) -> list[str]:
    """Return the keys of `renderings` for all values of the known switches but those left out."""
    return [
        key_of(Mode(variables={name: value}))
        for name, values in SWITCHES.items()
        if name not in set(without)
        for value in values
    ]


def detect_family(template: str | None, model: str, model_type: str | None = None) -> Family:
    """Return the family whose declaration is what the chat template renders, and whose models have such a config.

    Args:
        template: The tokenizer's chat template (Jinja source), or None if it has none.
        model: The model's address, for errors.
        model_type: `model_type` of the model's config; None if it is not known.

    Raises:
        UnknownFamilyError: a template of no known family.
        ModelError: no template, or one of a family whose models have other configs; or
            as `render_bounded`.
    """
    if not template:
        raise ModelError(
            f"{model} has no chat template, so there is no prompt with the chain of thought on or off.",
            "Choose a reasoning model whose tokenizer carries one.",
        )
    rendered = renderings(template)
    alike = [family for family in families().values() if fits(family, rendered)]
    for family in alike:
        if has_config(family, model_type) and (model_type or not family.needs_config):
            return family
    if model_type and (named := [family for family in alike if not family.needs_config]):
        raise ModelError(
            f"the chat template of {model} is that of {named[0].name}, but its config is of a {model_type}, and that "
            f"family has {', '.join(named[0].model_types)}.",
            _HINT,
        )
    raise UnknownFamilyError(
        f"the chat template of {model} is of no known family ({', '.join(families())}).", f"{_HINT} {_INFER}"
    )


def _is_one_of(declared: Iterable[str], text: str | None) -> bool:
    return text is not None and any(_pattern(part).search(text) for part in declared)


@lru_cache(maxsize=512)
def _pattern(declared: str) -> re.Pattern[str]:
    """Return the pattern of a declared text, at the end of a rendering."""
    slots = {"{user}": USER, "{thought}": THOUGHT, "{answer}": ANSWER}
    parts = re.split(r"(\{(?:user|thought|answer|any)\})", declared)
    pattern = "".join(".*?" if part == "{any}" else re.escape(slots.get(part, part)) for part in parts)
    return re.compile(rf"{pattern}\Z", re.DOTALL)
