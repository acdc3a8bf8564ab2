"""Settings of a run, read from TOML: one class per stage, in the order in which the stages run.

A recipe names the model, the queries and every number that a user may want to change. Sampling follows the model's
family (`models/families/`), unless `evaluate.sampling` changes it. An unknown key, a value out of bounds and a setting
that cannot take effect are errors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    Field,
    StrictBool,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from presafe.config.attacking import AttackName, DefenseName, MethodName
from presafe.config.bounds import (
    CallbackName,
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
    Tracker,
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
from presafe.config.sources import Draw, QuerySource, SafetyData, Source, check_not_planted
from presafe.errors import RecipeError
from presafe.methods.method import Position
from presafe.methods.registry import methods
from presafe.records import Thinking
from presafe.runtime.dtype import Dtype, fastest_dtype
from presafe.runtime.reading import read_text


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError("no value may stand twice")
    return values


def is_served(address: str) -> bool:
    """Return whether an address is that of a model behind a server, whose weights are not on this machine."""
    return address.startswith(("http://", "https://"))


class ModelSettings(Settings):
    """A model, and how it is loaded."""

    address: str
    """Hub id, local folder, GGUF file or a folder with one, `smolthink`, or a served model: http://host:port#name."""
    tokenizer: str | None = None
    """For a served model: hub id or folder of its tokenizer, or `smolthink`; None takes the model's name there."""
    family: str | None = None
    """Chat family: the name of a built-in family, or a TOML file that declares one, whose text is stored here. None
    detects it from the tokenizer's template."""
    dtype: Dtype = "float32"
    """Type of the frozen weights. `auto` is bfloat16 on a GPU or CPU that multiplies it in hardware, else float32. The
    run stores the resolved type; it cannot be resumed on a machine where `auto` is another type."""

    trust_remote_code: StrictBool = Field(default=False, exclude_if=lambda is_trusted: not is_trusted)
    """Run the Python code in the model's own folder (`auto_map` in its config). Read that code first: it can do all
    that you can. Not written where it is false, so that folders from before this setting resume."""

    @field_validator("dtype", mode="before")
    @classmethod
    def _resolve_auto(cls, dtype: object, info: ValidationInfo) -> object:
        if dtype != "auto":
            return dtype
        return (
            "float32" if is_served(info.data.get("address", "")) else fastest_dtype()
        )  # a served model has its own type

    @field_validator("family")
    @classmethod
    def _read_family_file(cls, family: str | None) -> str | None:
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
    def _check_server_settings(self) -> Self:
        if is_served(self.address):
            if self.dtype != "float32":
                raise ValueError("`dtype` belongs to weights that are loaded here; a server has its own")
        elif self.tokenizer is not None:
            raise ValueError("`tokenizer` belongs to a served model; other models bring their own")
        return self


class SamplingSettings(Settings):
    """How tokens are drawn; None keeps the value of the model's family."""

    temperature: Temperature | None = None
    """0 is greedy decoding."""
    top_p: TopP | None = None
    """Nucleus mass kept; 1 keeps all."""
    top_k: Count | None = None
    """Most likely tokens kept; 0 keeps all."""


class RespondSettings(Settings):
    """Stage 1: sample the teacher's answers (CoT off) and the model's own answers, which it should keep."""

    teacher: ModelSettings | None = None
    """Model whose decisions are learned (paper, appendix A.1), asked with CoT off. None takes the model itself."""
    classifier_queries: tuple[QuerySource, ...] = Field(min_length=1)
    """Queries whose teacher decisions train the classifier (paper: about 1,500)."""
    alignment_queries: tuple[QuerySource, ...] = Field(min_length=1)
    """Queries the model is aligned on (paper: 5,000 harmful, 3,000 benign)."""
    teacher_max_tokens: Positive = 32
    """Token budget of an answer with CoT off, of the teacher or the model; a refusal shows in the first words."""
    max_tokens: Positive = 160
    """Token budget of thought and answer with CoT on."""
    batch_size: Positive = 64
    """Most rows sampled together; for a served model, most requests in flight."""
    batch_tokens: Positive = 65_536
    """Most tokens of rows sampled together: rows × (longest prompt + token budget). Bounds the size of the cache."""
    seed: Seed = 0
    """Seed of generated arithmetic and of sampling."""

    @field_validator("classifier_queries")
    @classmethod
    def _check_classifier_queries(cls, queries: tuple[QuerySource, ...]) -> tuple[QuerySource, ...]:
        check_not_planted(queries, "`respond.classifier_queries`")
        return queries


class SignalSettings(Settings):
    """Stage 2: train a BERT-type classifier on the teacher's decisions."""

    encoder: str = "minilm"
    """`minilm` (fetched by wheel), a hub id, or a local folder."""
    reads: Literal["query", "query_and_answer"] = "query"
    """Text that it reads: the query, or as an ablation the query and the teacher's answer."""
    held_out: Share = Field(default=0.25, gt=0)
    """Share of the teacher's decisions kept to measure the classifier."""
    epochs: Positive = 4
    """Passes over the training decisions."""
    learning_rate: Rate = 1e-4
    """Peak learning rate."""
    batch_size: Positive = 16
    """Rows per step."""
    max_length: Positive = 192
    """Most tokens of a text that the encoder reads; of a trace it reads the query and the beginning of the thought."""
    save_steps: Positive = 20
    """Steps between checkpoints: the most that a kill can lose."""
    seed: Seed = 0
    """Seed of the split, the new layer and the order of rows."""


class AlignSettings(Settings):
    """Stage 3: train LoRA adapters with L = L_SFT + λ · L_align (paper, section 4), and those to compare with."""

    systems: tuple[MethodName, ...] = ("sft", "presafe")
    """Methods to train; those that only prefill the thought are sampled (`presafe list methods`)."""
    data: dict[MethodName, SafetyData] = Field(default={})
    """Files by method, for the methods that learn from a file."""
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1)
    """Seeds; every system is trained once per seed."""
    lambda_align: Weight = 1.0
    """λ, the weight of the auxiliary loss. The paper gives no value; SafeKey uses 0.2."""
    lambda_start: Weight = 0.0
    """Weight of L_start, which trains the model's own next token towards the same soft decision (ours; 0 is the paper's
    method)."""
    decision_position: Position = "prompt_end"
    """Where the head reads: at the last prompt token before the CoT (paper), at the CoT's first token (in training,
    the target's), or the mean over the prompt. Like λ and `layer`, it has no effect on a system without a head."""
    layer: Positive | None = None
    """Block after which the head reads, counted from 1; None and the last block mean after the final norm."""
    refusal_target: Literal["direct", "thought"] = "direct"
    """Target for a harmful query: the refusal at once, or a short safe thought and then the refusal."""
    thinking_off_share: Share = 0.0
    """Share of the rows that are alignment queries with CoT off. Their targets are the model's own answers there, so
    that the next-token loss keeps its behavior with CoT off (ours, design/0008; 0 trains with CoT on only, as the paper
    does)."""
    max_steps: Positive = 60
    """Optimizer steps."""
    batch_size: Positive = 8
    """Rows per forward pass."""
    accumulation: Positive = 1
    """Forward passes per step."""
    learning_rate: Rate = 2e-4
    """Peak learning rate of the adapter."""
    standardize_head: StrictBool = True
    """Whether the head reads its state standardized over the training rows, and its gradient is clipped apart from the
    adapter's. False is how runs before 0.2 trained it: the raw state, and both clipped together."""
    head_learning_rate: Rate = 1e-2
    """Peak learning rate of the auxiliary head. Adam moves a head's output by about this times the hidden size a step:
    use less for wide models."""
    warmup_steps: Count = 5
    """Steps of linear warm-up before the cosine."""
    lora_rank: Positive = 16
    """Rank of the adapter."""
    lora_alpha: Positive = 32
    """Scale of the adapter: its output is multiplied by alpha / rank."""
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
    """Share of the classifier's harmless queries that an aligned model may refuse at once; "teacher" is the share that
    the teacher refuses. After training every adapter is scaled to that share (ours, `alignment/scale.py`); None
    does not scale."""
    max_scale: float = Field(default=1.5, strict=True, ge=1, le=1.5)
    """Largest scale of an adapter, if `over_refusal` is set. A scale above 1 amplifies what was learned. With 1, an
    adapter that refuses less than the allowed share is not scaled."""
    max_length: Positive = 1024
    """Most tokens of a row. Longer rows are truncated and counted; rows whose prompt alone exceeds this are dropped."""
    save_steps: Positive = 1
    """Steps between checkpoints: the most that a kill can lose."""
    report_to: tuple[Tracker, ...] = Field(default=(), exclude_if=lambda trackers: not trackers)
    """Experiment trackers that get the training curves; each needs its own package. `tensorboard` writes below the
    checkpoints, `wandb` and `trackio` send as their own settings say. Not written where it is empty, so that folders
    from before this setting resume."""
    callbacks: tuple[CallbackName, ...] = Field(default=(), exclude_if=lambda names: not names)
    """Callbacks of transformers' Trainer, "package.module:Class", of modules that can be imported; each training makes
    its own of every class, without arguments. Not written where it is empty."""

    _check_distinct = field_validator("systems", "seeds", "report_to", "callbacks")(_distinct)

    @model_validator(mode="after")
    def _check_effect(self) -> Self:
        trainings = {name: training for name in self.systems if (training := methods()[name].training)}
        needed = {name for name, training in trainings.items() if training.needs_data}
        if missing := sorted(needed - self.data.keys()):
            raise ValueError(f"{missing[0]} learns from a file: name it in [align.data.{missing[0]}]")
        if unused := sorted(self.data.keys() - needed):
            name = unused[0]
            raise ValueError(f"`data.{name}` has no effect: {name} is none of `systems` that learn from a file")
        for name in ("presafe_start", "sft_weighted"):
            if self.lambda_start == 0 and name in self.systems:
                raise ValueError(f"{name} is `sft` by another name where `lambda_start` is 0")
        return self


class EvaluateSettings(Settings):
    """Stage 4: measure every system on held-out prompts."""

    suites: dict[SuiteName, Source] = Field(min_length=1)
    """Prompts by suite name."""
    draw: Draw = "stratified"
    """How the `n` prompts of a suite are taken after `skip`: drawn over its categories in proportion, by `seed`, or the
    first ones, as runs before this setting did. Prompts from the hub are drawn at random in any case."""
    attacks: tuple[AttackName, ...] = Field(default=(), exclude_if=lambda names: not names)
    """Attacks, with their settings: each harmful suite is measured under each of them, too, as SUITE@ATTACK."""
    defenses: tuple[DefenseName, ...] = Field(default=(), exclude_if=lambda names: not names)
    """Defenses, with their settings: each system is measured behind each of them, too, CoT on, as SYSTEM+DEFENSE."""
    aligned_thinking: tuple[Thinking, ...] = Field(default=("on",), min_length=1)
    """CoT modes of the aligned systems; "on" must be among them. The original model is measured in both."""
    max_tokens: Positive = 160
    """Token budget of thought and answer."""
    samples: Positive = 1
    """Answers per prompt. More than one needs a temperature above 0."""
    sampling: SamplingSettings = SamplingSettings()
    """How tokens are drawn, if not as the model's family does."""
    batch_size: Positive = 64
    """Most rows sampled together; for a served model, most requests in flight."""
    batch_tokens: Positive = 65_536
    """Most tokens of rows sampled together: rows × (longest prompt + token budget). Bounds the size of the cache."""
    seed: Seed = 0
    """Seed of generated arithmetic, of `draw` and of sampling."""
    judge: str | None = None
    """Judge of the answers, such as "strong_reject_rubric=openai/gpt-4o-mini" (`presafe list judges`); None takes the
    refusal strings. Stage 1 always uses the strings."""
    judge_thought: str | None = None
    """Judge of the thoughts before answers to harmful prompts; None takes the strings."""

    _check_distinct = field_validator("attacks", "defenses")(_distinct)

    @field_validator("suites")
    @classmethod
    def _check_suites(cls, suites: dict[str, Source]) -> dict[str, Source]:
        check_not_planted(suites.values(), "`evaluate.suites`")
        return suites

    @field_validator("aligned_thinking")
    @classmethod
    def _check_modes(cls, modes: tuple[Thinking, ...]) -> tuple[Thinking, ...]:
        if "on" not in _distinct(modes):
            raise ValueError('"on" is the mode that is aligned: "off" may stand beside it')
        return modes


class Recipe(Settings):
    """All settings of a run."""

    name: Name
    """Name of the run and title of its report."""
    seed: Seed | None = Field(default=None, exclude_if=lambda seed: seed is None)
    """One seed for all that is drawn before the evaluation, where a table does not set its own: `respond.seed` (drawn
    queries, sampling), `signal.seed` (the classifier) and `align.seeds` (the training). `evaluate.seed` stays, so that
    runs with several seeds are measured on the same prompts."""
    model: ModelSettings
    respond: RespondSettings
    signal: SignalSettings = SignalSettings()
    align: AlignSettings = AlignSettings()
    evaluate: EvaluateSettings

    @model_validator(mode="before")
    @classmethod
    def _spread_seed(cls, settings: Any) -> Any:
        seed = settings.get("seed") if isinstance(settings, dict) else None
        if seed is None:
            return settings
        own = {"respond": {"seed": seed}, "signal": {"seed": seed}, "align": {"seeds": (seed,)}}
        tables = {name: settings.get(name, {}) for name in own}
        return settings | {
            name: own[name] | table if isinstance(table, dict) else table for name, table in tables.items()
        }


def shipped_recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
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
    """Return the settings of a recipe, merged over those of the shipped recipe that it `extends`; not checked yet.

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
    """Check the settings of a recipe.

    Args:
        settings: Its tables.
        source: File or name that they are from, for errors.

    Raises:
        RecipeError: a key that is unknown, missing or out of bounds; all of them are named.
    """
    try:
        return Recipe.model_validate(settings)
    except ValidationError as error:
        raise RecipeError(f"recipe {source}: {format_validation_error(error, 'recipe')}.") from error
