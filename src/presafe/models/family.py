"""A chat family: how one kind of reasoning model is asked with its chain of thought (CoT) on and off.

A family is a TOML file in `families/`, or a user's own. It is recognized by strings in the tokenizer's chat template,
and by the model's config if several kinds of model share a template. What a family declares:

    the template renders        ... user text ... <assistant turn opens>
    on(x)  = template + on_prefill
    off(x) = template (with switch=False, where the template honours one) + off_prefill
    decision position           the last token of on(x): the last prompt token before the CoT (paper, section 4)
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError

from presafe.config.bounds import Count, Positive, Temperature, TopP
from presafe.config.files import MAX_TOML_BYTES, parse_toml
from presafe.errors import ModelError
from presafe.runtime.reading import printable, read_text

_COLDEST = 1e-6
"""Temperature below which decoding is greedy: divided by it, float32 logits overflow. Ours."""


class Sampling(BaseModel):
    """How tokens are drawn. Temperature 0 is greedy decoding."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    temperature: Temperature = 0.0
    top_p: TopP = 1.0
    """Nucleus mass kept; 1 keeps all."""
    top_k: Count = 0
    """Most likely tokens kept; 0 keeps all."""

    @property
    def is_greedy(self) -> bool:
        """Return whether the most likely token is always taken: at 0, or at a temperature that gives the same."""
        return self.temperature < _COLDEST


class Family(BaseModel):
    """One kind of reasoning model; see the module for what the fields mean together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    models: str = ""
    """Its models, in words."""
    template_contains: tuple[str, ...] = ()
    """Strings that the tokenizer's chat template must all contain. Without any, the family is chosen only by name."""
    template_lacks: tuple[str, ...] = ()
    """Strings that the template must not contain: those of a later template of the same makers."""
    model_types: tuple[str, ...] = ()
    """`model_type` of its models' configs; a config of another type is not of this family. Empty allows all."""
    needs_config: StrictBool = False
    """Whether other models share its template; then the family is recognized only if the config is known."""
    on_prefill: str
    """Text after the rendered prompt with CoT on."""
    off_prefill: str
    """Text after the rendered prompt with CoT off."""
    model_opens: str = ""
    """What the model itself writes to open its thought, if the prompt with CoT on does not."""
    switch: str | None = None
    """Template variable that turns the CoT off, for templates that have one."""
    decision_text: str = Field(min_length=1)
    """Text of the token at the decision position; checked whenever a prompt is rendered."""
    think_open: str = Field(default="<think>", min_length=1)
    think_close: str = Field(default="</think>", min_length=1)
    untrained: Literal["on", "off"] | None = None
    """Mode that the model was not trained in and has no switch for; only the prefill asks for it."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)
    """Tokens that end a turn."""
    max_tokens: Positive = 4096
    """Token budget of thought and answer that its publisher recommends; the default if none is named."""
    sampling_on: Sampling = Sampling()
    """Published sampling with CoT on."""
    sampling_off: Sampling = Sampling()
    """Published sampling with CoT off."""


@cache
def families() -> dict[str, Family]:
    """Return the families that the project ships, by name, the more specific templates first."""
    order = (
        "smolthink",
        "deepseek_r1",
        "deepseek_r1_early",
        "qwen3",
        "qwen3_5",
        "qwen_thinking",
        "qwen3_instruct_2507",
    )
    folder = resources.files("presafe.models") / "families"
    return {name: parse_family((folder / f"{name}.toml").read_text(encoding="utf-8"), name) for name in order}


def parse_family(text: str, source: str) -> Family:
    """Read a family from TOML.

    Args:
        text: The TOML text.
        source: Where it comes from, for errors.

    Raises:
        ModelError: it is not TOML, or a field is missing, unknown, of the wrong type or out of bounds.
    """
    try:
        settings = parse_toml(text)
    except ValueError as error:
        raise ModelError(f"family {source} is not TOML: {error}.") from error
    try:
        return Family.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(printable(part) for part in first["loc"])
        raise ModelError(f"family {source}: {field}: {first['msg']}.") from error


def find_family(definition: str) -> Family:
    """Return a built-in family by name, or one declared in TOML.

    Args:
        definition: A name such as "qwen3", the path of a TOML file, or its text.

    Raises:
        ModelError: no such name or file, or as `parse_family`.
    """
    if "\n" in definition:
        return parse_family(definition, "of your own (the .toml file that `family` names)")
    if definition.endswith(".toml"):
        return parse_family(read_text(Path(definition), ModelError, "family", MAX_TOML_BYTES), definition)
    if definition not in families():
        raise ModelError(
            f"no chat family {definition!r}.", f"There are: {', '.join(families())}; or give a .toml file."
        )
    return families()[definition]


def detect_family(template: str | None, model: str, model_type: str | None = None) -> Family:
    """Return the family whose marks are in the chat template, and whose models have this type of config.

    Args:
        template: The tokenizer's chat template (Jinja source), or None if it has none.
        model: The model's address, for errors.
        model_type: `model_type` of the model's config; None if it is not known.

    Raises:
        ModelError: no template, a template of no known family, or one of a family whose models have other configs.
    """
    if not template:
        raise ModelError(
            f"{model} has no chat template, so there is no prompt with the chain of thought on or off.",
            "Choose a reasoning model whose tokenizer carries one.",
        )
    alike = [family for family in families().values() if _has_marks(family, template)]
    for family in alike:
        if has_config(family, model_type) and (model_type or not family.needs_config):
            return family
    hint = "Name a family, or a .toml file that declares one (`family`)."
    if model_type and (named := [family for family in alike if not family.needs_config]):
        raise ModelError(
            f"the chat template of {model} is that of {named[0].name}, but its config is of a {model_type}, and that "
            f"family has {', '.join(named[0].model_types)}.",
            hint,
        )
    raise ModelError(f"the chat template of {model} is of no known family ({', '.join(families())}).", hint)


def has_config(family: Family, model_type: str | None) -> bool:
    """Return whether a config of this type can belong to the family; an unknown type (None) can."""
    return not family.model_types or model_type is None or model_type in family.model_types


def _has_marks(family: Family, template: str) -> bool:
    marks, others = family.template_contains, family.template_lacks
    return bool(marks) and all(mark in template for mark in marks) and not any(mark in template for mark in others)
