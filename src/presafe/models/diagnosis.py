"""Diagnose how a model is asked: its family, both prompts with the decision position, and traps in its tokenizer.

Each trap was met in real models, and spoils a result without an error. The renderer avoids all traps listed here, so
they tell what another tool would get wrong with this model. Traps that cannot be avoided raise an error in rendering.
"""

from __future__ import annotations

from typing import NamedTuple

from presafe.errors import ModelError
from presafe.models.family import Family, has_config
from presafe.models.rendering import Renderer
from presafe.records import Thinking

_EXAMPLE_THOUGHT = "a thought to be kept"


class Side(NamedTuple):
    """One prompt. `decision_index` is the index of the last token before the CoT, `decision_token` its text."""

    ids: list[int]
    text: str
    decision_index: int
    decision_token: str


class Trap(NamedTuple):
    """A property of this tokenizer that makes other tools go wrong without an error."""

    name: str
    what: str


class Diagnosis(NamedTuple):
    """What `presafe doctor MODEL` prints."""

    family: str
    model_type: str | None
    """`model_type` of the model's config; None if it is not known."""
    on: Side
    off: Side
    levels: dict[Thinking, Side]
    """By name, of families with levels of thinking between on and off."""
    traps: list[Trap]


def diagnose(renderer: Renderer, text: str) -> Diagnosis:
    """Render one user text in every mode and look for traps.

    Args:
        renderer: The model's tokenizer and family.
        text: The user's text.

    Raises:
        ModelError: as `Renderer.render`.
    """
    sides = {mode: _side(renderer, text, mode) for mode in renderer.family.modes}
    on, off = sides.pop("on"), sides.pop("off")
    traps = [
        _has_another_config(renderer),
        _has_no_switch(renderer),
        _strips_thoughts(renderer),
        _ignores_enable_thinking(renderer),
        _fuses_tokens(renderer, "on"),
        _fuses_tokens(renderer, "off"),
        _has_no_stop(renderer),
        _parses_user_text(renderer),
        _spells_marks(renderer),
    ]
    return Diagnosis(renderer.family.name, renderer.model_type, on, off, sides, [trap for trap in traps if trap])


def _side(renderer: Renderer, text: str, thinking: Thinking) -> Side:
    """Render one prompt."""
    rendered = renderer.render(text, thinking)
    decode = renderer.tokenizer.decode
    return Side(
        rendered.ids, decode(rendered.ids), rendered.decision_index, decode([rendered.ids[rendered.decision_index]])
    )


def _has_another_config(renderer: Renderer) -> Trap | None:
    family = renderer.family
    if has_config(family, renderer.model_type):
        return None
    return Trap(
        "has_another_config",
        f"the config is of a {renderer.model_type}, and models of the family {family.name} have "
        f"{', '.join(family.model_types)}; the family was named, so check that its makers ask this model this way.",
    )


def _has_no_switch(renderer: Renderer) -> Trap | None:
    mode = renderer.family.untrained
    if mode is None:
        return None
    prefill = renderer.family.on_prefill if mode == "on" else renderer.family.off_prefill
    return Trap(
        "has_no_switch",
        f"the model has one mode and no switch: CoT {mode} is the prefill {prefill!r}, which it was not trained for. "
        "Its answers in this mode are a measurement, not what its makers offer.",
    )


def _strips_thoughts(renderer: Renderer) -> Trap | None:
    family = renderer.family
    turn = f"{family.think_open}\n{_EXAMPLE_THOUGHT}\n{family.think_close}\n\nAnswer."
    try:
        conversation = renderer.templated(
            [{"role": "user", "content": "Question."}, {"role": "assistant", "content": turn}]
        )
    except ModelError:
        return Trap(
            "refuses_thoughts",
            "the template refuses a finished turn that holds the marks of its thought; presafe joins token ids itself.",
        )
    if _EXAMPLE_THOUGHT in conversation:
        return None
    return Trap(
        "strips_thoughts",
        "the template deletes the thought of a finished turn, so training on templated conversations loses it; "
        "presafe joins token ids itself.",
    )


def _ignores_enable_thinking(renderer: Renderer) -> Trap | None:
    question = [{"role": "user", "content": "Question."}]
    prompts = {
        renderer.templated(question, add_generation_prompt=True, enable_thinking=value) for value in (True, False)
    }
    if len(prompts) == 2:
        return None
    return Trap(
        "ignores_enable_thinking",
        "the template takes enable_thinking=False and changes nothing; presafe turns the CoT off with "
        + f"{renderer.family.switch or _other_means(renderer.family)}.",
    )


def _other_means(family: Family) -> str:
    """Return what turns the CoT off where no switch does."""
    return f"the prefill {family.off_prefill!r}" if family.off_prefill else "what its family declares for off"


def _fuses_tokens(renderer: Renderer, mode: Thinking) -> Trap | None:
    side = _side(renderer, "Question.", mode)  # any text without control tokens will do
    if renderer.completion_ids(side.text) == side.ids:
        return None
    return Trap(
        f"fuses_tokens_{mode}",
        f"the prompt with CoT {mode}, tokenized as one string, gives other tokens, which can move the decision "
        "position; presafe tokenizes its pieces separately.",
    )


def _has_no_stop(renderer: Renderer) -> Trap | None:
    vocabulary = renderer.tokenizer.get_vocab()
    if any(token in vocabulary for token in renderer.family.stop):
        return None
    return Trap(
        "has_no_stop",
        f"none of the family's stop tokens ({', '.join(renderer.family.stop)}) is in the vocabulary, so turns end with "
        f"{renderer.tokenizer.eos_token!r} or at the budget; this is not the model's family.",
    )


def _parses_user_text(renderer: Renderer) -> Trap | None:
    stop = renderer.family.stop[0]
    control = set(renderer.stop_ids())
    if control.isdisjoint(renderer.completion_ids(f"a{stop}b")):
        return None
    return Trap(
        "parses_user_text",
        f"plain tokenizing turns {stop!r} in a user's text into the token that ends a turn; in presafe it stays text.",
    )


def _spells_marks(renderer: Renderer) -> Trap | None:
    family = renderer.family
    spelled = [mark for mark in (family.think_open, family.think_close) if len(renderer.completion_ids(mark)) > 1]
    if not spelled:
        return None
    return Trap(
        "spells_marks",
        f"{' and '.join(spelled)} {'is' if len(spelled) == 1 else 'are'} several tokens each, not a single one; a "
        "server that looks for a single token does not find the thought.",
    )
