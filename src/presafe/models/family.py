"""A chat family: how one kind of reasoning model is asked with its chain of thought (CoT) on and off.

A family is a TOML file in `families/`, or a user's own. What a family declares:

    the template renders        ... user text ... <assistant turn opens>, asked as the mode says (`Mode`)
    on(x)  = template asked as `on` + on_prefill
    off(x) = template asked as `off` + off_prefill
    a level between the two     template asked as `levels.NAME` + on_prefill
    decision position           the last token of on(x): the last prompt token before the CoT (paper, section 4)

Where off(x) does not begin with on(x), it has a decision position of its own, its last token (`off_decision_text`). A
family is recognized by what the template renders (`recognition`), and by the model's config if several kinds of model
share a template.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError

from presafe.config.bounds import Count, Positive, Temperature, TopP
from presafe.config.files import MAX_TOML_BYTES, parse_toml
from presafe.errors import ModelError
from presafe.records import Level, Thinking
from presafe.runtime.reading import printable, read_text

Name = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]
"""Name of a template variable."""
_COLDEST = 1e-6
"""Temperature below which decoding is greedy: divided by it, float32 logits overflow. Ours."""


_SHIPPED = (
    *("smolthink", "deepseek_r1", "deepseek_r1_early", "qwen3", "qwen3_5", "qwen_thinking", "qwen3_instruct_2507"),
    *("qwen3_8", "gpt_oss", "gemma4", "glm4_moe", "nemotron_3", "nemotron_3_super", "nemotron_3_ultra"),
    *("nemotron_nano_v2", "llama_nemotron", "llama_nemotron_v1", "lfm2_5", "muse_glimmer", "deepseek_v3_1"),
    *("smollm3", "magistral", "granite_3_3", "exaone4", "phi4_reasoning", "olmo3_think", "kimi_k2_thinking"),
    *("minimax_m2", "qwenthink"),
)
"""Files in `families/`."""


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


class Mode(BaseModel):
    """How the chat template is asked for one CoT mode; what is left out asks for nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variables: dict[Name, StrictBool | StrictInt | StrictStr] = {}
    """Template variables and their values."""
    system: str = ""
    """Text of a system message before the user's turn."""
    suffix: str = ""
    """Text after the user's text, in the user's turn."""


class Family(BaseModel):
    """One kind of reasoning model; see the module for what the fields mean together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    models: str = ""
    """Its models, in words."""
    rendered: dict[Thinking, tuple[Annotated[str, Field(min_length=1)], ...]] = {}
    """What the chat template renders in each mode, up to the prefill: one of these texts, at the end of the rendering.
    `{user}` stands for the user's text, `{any}` for any text. Without `on`, the family is chosen only by name."""
    rendered_turn: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """What it renders of a finished turn, with `{user}`, `{thought}`, `{answer}` and `{any}`; where prompts alone do
    not tell families apart."""
    takes_tools: StrictBool | None = None
    """Whether the template tells the model of tools; where prompts alone do not tell families apart."""
    model_types: tuple[str, ...] = ()
    """`model_type` of its models' configs; a config of another type is not of this family. Empty allows all."""
    needs_config: StrictBool = False
    """Whether other models share its template; then the family is recognized only if the config is known."""
    on: Mode = Mode()
    off: Mode = Mode()
    levels: dict[Level, Mode] = {}
    """Levels of thinking between on and off."""
    switch: Name | None = None
    """Template variable that is true with CoT on and false with CoT off: short for `variables` in `on` and `off`."""
    on_prefill: str = ""
    """Text after the rendered prompt with CoT on, and in every level."""
    off_prefill: str = ""
    """Text after the rendered prompt with CoT off."""
    model_opens: str = ""
    """What the model itself writes to open its thought, if the prompt with CoT on does not."""
    model_closes: str | None = None
    """What the model itself writes from its thought to its answer; None: a newline, `think_close`, an empty line."""
    decision_text: str = Field(min_length=1)
    """Text of the token at the decision position; checked whenever a prompt is rendered."""
    off_decision_text: str | None = Field(default=None, min_length=1)
    """Text of the last token of off(x), where off(x) does not begin with on(x); None: it does."""
    think_open: str = Field(default="<think>", min_length=1)
    think_close: str = Field(default="</think>", min_length=1)
    answer_open: str = ""
    """Mark that opens the answer, for families that have one: what comes before it is no answer."""
    answer_close: str = ""
    """Mark that closes the answer, before the end of the turn."""
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

    @property
    def modes(self) -> dict[Thinking, Mode]:
        """Return how the template is asked in each mode: on, the levels, off."""
        asked: dict[Thinking, Mode] = {"on": self.on}
        asked.update(self.levels.items())
        asked["off"] = self.off
        if self.switch is None:
            return asked
        return {
            name: mode.model_copy(update={"variables": {self.switch: name != "off"} | mode.variables})
            for name, mode in asked.items()
        }

    @property
    def closing(self) -> str:
        """Return what the model writes from its thought to its answer."""
        return f"\n{self.think_close}\n\n" if self.model_closes is None else self.model_closes

    @property
    def gap(self) -> str:
        """Return the white space between a thought and its closing mark, which is tokenized with the thought."""
        return self.closing[: len(self.closing) - len(self.closing.lstrip())]

    def sampling(self, thinking: Thinking) -> Sampling:
        """Return the published sampling of a mode; a level is sampled as CoT on."""
        return self.sampling_off if thinking == "off" else self.sampling_on


@cache
def families() -> dict[str, Family]:
    """Return the families that the project ships, by name."""
    folder = resources.files("presafe.models") / "families"
    return {name: parse_family((folder / f"{name}.toml").read_text(encoding="utf-8"), name) for name in _SHIPPED}


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


def has_config(family: Family, model_type: str | None) -> bool:
    """Return whether a config of this type can belong to the family; an unknown type (None) can."""
    return not family.model_types or model_type is None or model_type in family.model_types
