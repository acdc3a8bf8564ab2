"""Infer a chat family from what a template renders, where no declared family fits.

The template is rendered with each known switch on and off, and with a finished turn. What differs shows how the modes
are asked, and what surrounds the thought of the finished turn shows its marks. The rule is to be right or to say why it
cannot be told: a sign that is missing or that contradicts another one is an error, never a guess.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from presafe.errors import ModelError
from presafe.models.family import Family, Mode
from presafe.models.recognition import ANSWER, SWITCHES, THOUGHT, USER, key_of, render_modes, switch_keys

_BOOLEAN = tuple(name for name, values in SWITCHES.items() if values == (True, False))
"""Switches that are true with CoT on and false with CoT off."""
_TAG = r"<[^<>\s][^<>]*>|\[[^\[\]\s][^\[\]]*\]"
_HARMLESS = {
    *("messages", "tools", "documents", "bos_token", "eos_token", "pad_token", "unk_token", "add_generation_prompt"),
    *("strftime_now", "raise_exception", "add_vision_id", "custom_tools", "xml_tools", "python_tools", "date_string"),
}
"""Variables of templates that say nothing of thinking."""
_IN_TEXT = (Mode(suffix=" /no_think"), Mode(system="/no_think"), Mode(suffix="/nothink"))
"""Words in a text by which some templates are switched."""
_TRIED = (True, False, "off", "none")
"""Values that a variable of an unknown name is tried with, beside those that the template itself compares with."""
_LONGEST = 40
"""Letters of the longest word that is tried; longer texts are messages. Ours."""
_SYSTEM = "\ue000system text\ue000"
"""Placeholder for a system text that asks for nothing."""


class _Source(NamedTuple):
    """What a template's source names."""

    unknown: list[str]
    """Variables that are none of the usual ones."""
    switches: list[str]
    """Known switches."""
    tables: list[str]
    """Variables of these two kinds whose parts are read, as in `thinking.type`."""
    values: list[int | str]
    """What is compared with something, or looked for in a text."""

    def asked(self) -> list[Mode]:
        """Return each variable with each value that may mean something to it."""
        tried = dict.fromkeys((*_TRIED, *self.values))
        modes = [Mode(variables={name: value}) for name in self.unknown for value in tried]
        return modes + [Mode(variables={name: value}) for name in self.switches for value in self.values]

    def told(self) -> list[Mode]:
        """Return each text that may mean something to the template, after the user's text and as the system text."""
        words = [value for value in self.values if isinstance(value, str) and value.strip()]
        return [*_IN_TEXT, *(mode for word in words for mode in (Mode(suffix=f" {word}"), Mode(system=word)))]


class _Marks(NamedTuple):
    """What stands around a thought."""

    opens: str
    """What the model writes to open its thought; "" if the prompt opens it."""
    think_open: str
    think_close: str
    closes: str
    """What stands between a thought and its answer."""


def infer_family(template: str, model: str, eos_token: str | None) -> Family:
    """Return the family that a template's renderings show.

    Args:
        template: The chat template (Jinja source).
        model: The model's address, for errors and as the family's name.
        eos_token: The tokenizer's token that ends a text, if any.

    Raises:
        ModelError: it cannot be told how the model is asked; or as `render_modes`.
    """
    source = _read_source(template)
    asked, told = source.asked(), source.told()
    rendered = render_modes(template, [*switch_keys(), *map(key_of, [Mode(system=_SYSTEM), *asked, *told])])
    try:
        _check_variables(rendered, asked, source.tables)
        _check_texts(rendered, told)
        return _inferred(rendered, eos_token)
    except _CannotTell as error:
        raise ModelError(
            f"the chat template of {model} is of no known family, and it cannot be told how it is asked: {error}.",
            "Declare its family in a .toml file (`family`); docs/guides/families.md shows one of each kind.",
        ) from error


def as_toml(family: Family) -> str:
    """Return a family as TOML to save and edit.

    Args:
        family: The family.
    """
    written = family.model_dump(exclude_defaults=True, exclude={"sampling_on", "sampling_off"})
    # JSON's texts, numbers and lists are TOML's, but for a character that TOML does not take raw.
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in written.items()]
    note = "# Inferred from what the chat template renders. Check both prompts, and add the published sampling."
    return "\n".join(
        [note, *lines, "", "[sampling_on]", "temperature = 0.0", "", "[sampling_off]", "temperature = 0.0"]
    )


class _CannotTell(Exception):
    """The reason why a family cannot be inferred."""


def _check_variables(rendered: Mapping[str, str | None], asked: list[Mode], tables: list[str]) -> None:
    """Check that no variable changes the prompt in a way whose meaning is not known.

    Raises:
        _CannotTell: one does, or may.
    """
    if tables:
        raise _CannotTell(f"parts of its variable {tables[0]!r} are read, and what they mean is not known")
    plain = rendered[key_of(Mode())]
    for mode in asked:
        ((name, value),) = mode.variables.items()
        # What a known switch does is known of its own values, and of what does the same as one of these.
        known = [rendered[key_of(Mode(variables={name: known}))] for known in SWITCHES.get(name, ())]
        if rendered[key_of(mode)] not in (plain, None, *known):
            raise _CannotTell(f"its variable {name!r} changes the prompt at {value!r}, and what it means is not known")


def _check_texts(rendered: Mapping[str, str | None], told: list[Mode]) -> None:
    """Check that no word in a text changes more of the prompt than that text.

    Raises:
        _CannotTell: one does.
    """
    plain, neutral = rendered[key_of(Mode())], rendered[key_of(Mode(system=_SYSTEM))]
    assert plain is not None
    for mode in told:
        written, word = rendered[key_of(mode)], mode.system or mode.suffix.strip()
        if mode.suffix and written not in (None, plain.replace(USER, USER + mode.suffix)):
            raise _CannotTell(f"{word!r} in a text changes its prompt")
        is_new = mode.system and neutral is not None and word not in neutral
        if is_new and written is not None and written.replace(word, _SYSTEM) != neutral:
            raise _CannotTell(f"{word!r} as the system text changes its prompt")


def _inferred(rendered: Mapping[str, str | None], eos_token: str | None) -> Family:
    plain = rendered[key_of(Mode())]
    if plain is None or plain.count(USER) != 1:
        raise _CannotTell("it does not write the user's text once")
    switch = _switch(rendered)
    on = plain if switch is None else rendered[key_of(Mode(variables={switch: True}))]
    off = None if switch is None else rendered[key_of(Mode(variables={switch: False}))]
    assert on is not None
    turn = rendered["turn"]
    marks = _marks(_after(on), _after(off) if off else None, _after(turn) if turn and USER in turn else "")
    stop = _stop(turn, eos_token)
    common = {
        "name": "inferred",
        "model_opens": marks.opens,
        "model_closes": marks.closes,
        "think_open": marks.think_open,
        "think_close": marks.think_close,
        "decision_text": on[-1],
        "stop": (stop,),
    }
    if off is None:
        if any(rendered[key] != plain for key in switch_keys()):
            raise _CannotTell("its switches change how much it thinks, and none turns the thought off")
        prefill = marks.opens + marks.closes
        return Family.model_validate(common | {"off_prefill": prefill, "untrained": "off"})
    _check_polarity(on, off, marks)
    own = {} if off.startswith(on) else {"off_decision_text": off[-1]}
    return Family.model_validate(common | own | {"switch": switch})


def _switch(rendered: Mapping[str, str | None]) -> str | None:
    """Return the variable that turns the thought on and off, or None if no known one changes the prompt."""
    pairs: dict[str, tuple[str, str]] = {}
    for name in _BOOLEAN:
        on, off = (rendered[key_of(Mode(variables={name: value}))] for value in (True, False))
        if on is None or off is None:
            raise _CannotTell(f"it refuses a value of {name}")
        if on != off:
            pairs[name] = on, off
    if len(set(pairs.values())) > 1:
        raise _CannotTell(f"{' and '.join(pairs)} each change the prompt in another way")
    return next(iter(pairs), None)


def _marks(on: str, off: str | None, turn: str) -> _Marks:
    """Return the marks of the thought, from what follows the user's text in both prompts and in a finished turn."""
    if THOUGHT in turn and ANSWER in turn:
        before, _, rest = turn.partition(THOUGHT)
        closes = rest.partition(ANSWER)[0]
        if not before.startswith(on):
            raise _CannotTell("a finished turn does not begin as the prompt with CoT on does")
        opens = before[len(on) :]
        opening, closing = re.search(rf"({_TAG})\s*\Z", opens or on), re.fullmatch(rf"\s*({_TAG})\s*", closes)
        if opening is None or closing is None or (opens and opening.start() != len(opens) - len(opens.lstrip())):
            raise _CannotTell("its thought has no mark of one word on each side")
        marks = _Marks(opens, opening[1], closing[1], closes)
        if off is not None and (pair := _closed_pair(off)) and pair[:2] != (marks.think_open, marks.think_close):
            raise _CannotTell("a finished turn and the prompt with CoT off show other marks")
        return marks
    return _marks_of_prompts(on, off)


def _marks_of_prompts(on: str, off: str | None) -> _Marks:
    """Return the marks of the thought from the prompts alone, where a finished turn shows no thought."""
    opening = re.search(rf"({_TAG})\s*\Z", on)
    pair = _closed_pair(off) if off is not None else None
    if pair is not None:
        think_open, think_close, closes = pair
        if opening is not None and opening[1] == think_open:
            return _Marks("", think_open, think_close, closes)
        if off is not None and off.startswith(on):
            return _Marks(off[len(on) :].removesuffix(closes), think_open, think_close, closes)
        raise _CannotTell("the prompt with CoT off holds a closed thought, and does not begin as the one with CoT on")
    close = _partner(opening[1]) if opening is not None else None
    if off is None and opening is not None and close and re.search("think|thought|reason", close):
        space = on[opening.end(1) :]
        return _Marks("", opening[1], close, f"{space}{close}\n\n")
    raise _CannotTell("neither its prompts nor a finished turn show the marks of a thought")


def _closed_pair(text: str) -> tuple[str, str, str] | None:
    """Return the marks of an empty thought at the end of a text, and what stands from its inside to the end."""
    match = re.search(rf"({_TAG})(\s*)({_TAG})(\s*)\Z", text)
    if match is None or _partner(match[1]) != match[3]:
        return None
    half = match[2][len(match[2]) // 2 :]  # an empty thought has the space of its opening and that of its closing
    return match[1], match[3], f"{half}{match[3]}{match[4]}"


def _partner(mark: str) -> str | None:
    """Return the mark that closes one, by its spelling: `</think>` for `<think>`; None for a mark that closes."""
    return None if mark[1] == "/" else f"{mark[0]}/{mark[1:]}"


def _check_polarity(on: str, off: str, marks: _Marks) -> None:
    """Check that the prompt with the switch true asks for a thought, and the other one does not.

    Raises:
        _CannotTell: it is the other way round, or nothing shows which is which.
    """
    opens, closes = (re.compile(rf"{re.escape(mark)}\s*\Z") for mark in (marks.think_open, marks.think_close))
    if opens.search(off) or closes.search(on):
        raise _CannotTell("with its switch false it opens a thought, or with its switch true it closes one")
    if not opens.search(on) and not closes.search(off):
        raise _CannotTell("nothing in its prompts shows which value of its switch asks for a thought")


def _stop(turn: str | None, eos_token: str | None) -> str:
    """Return the token that ends a turn."""
    after = turn.rpartition(ANSWER)[2] if turn and ANSWER in turn else ""
    match = re.match(rf"\s*({_TAG})", after)
    if match is None and not eos_token:
        raise _CannotTell("nothing shows which token ends a turn")
    return match[1] if match else str(eos_token)


def _read_source(template: str) -> _Source:
    """Return what a template's source names; nothing if it is malformed, as rendering says what is wrong."""
    from jinja2 import TemplateSyntaxError, meta, nodes
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        environment = _compile_jinja_template(template).environment
        tree = environment.parse(template)
        names = meta.find_undeclared_variables(environment.parse(template))  # it changes the tree that it reads
    except TemplateSyntaxError:
        return _Source([], [], [], [])
    names -= _HARMLESS | set(environment.globals)
    own = {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"}  # jinja2 may list them, too
    parts = [part.node for part in tree.find_all((nodes.Getattr, nodes.Getitem))]
    # "a" in `x == "a"`, in `x in ["a"]` and in `x.startswith("a")`
    asking = tree.find_all((nodes.Compare, nodes.Call, nodes.Test))
    constants = [constant.value for node in asking for constant in node.find_all(nodes.Const)]
    values = [value for value in constants if isinstance(value, int | str) and len(str(value)) <= _LONGEST]
    return _Source(
        sorted(names - SWITCHES.keys()),
        sorted(names & SWITCHES.keys()),
        sorted({part.name for part in parts if isinstance(part, nodes.Name)} & names - own),
        list(dict.fromkeys(values)),
    )


def _after(text: str) -> str:
    return text.rpartition(USER)[2]
