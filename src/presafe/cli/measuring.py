"""Options of measuring a model: one list for `presafe probe`, `evaluate` and `sweep`, and how they are read.

A group of options is a frozen dataclass with one field per option. `unpacked` lets a verb take whole groups.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from presafe.cli import options
from presafe.cli.output import AsJson
from presafe.errors import PreSafeError

if TYPE_CHECKING:  # half of the time that --help would take
    from presafe.config.measure import MeasureSettings
    from presafe.config.recipe import ModelSettings, SamplingSettings
    from presafe.records import Prompt

Adapter = Annotated[Path | None, typer.Option("--adapter", help="Folder of a PEFT adapter.")]


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """Options that every verb that measures has."""

    suite: options.Suites = None
    thinking: options.ThinkingModes = "on,off"
    limit: options.Limit = None
    draw: options.Draw = "stratified"
    data_dir: options.DataDir = None
    max_tokens: options.MaxTokens = None
    samples: options.Samples = 1
    sandbox: options.Sandbox = None
    batch_size: options.BatchSize = 64
    batch_tokens: options.BatchTokens = 65_536
    judge: options.Judge = None
    judge_thought: options.JudgeThought = None
    family: options.Family = None
    tokenizer: options.Tokenizer = None
    dtype: options.Dtype = "float32"
    as_json: AsJson = False
    out: options.Out = None

    def read_suites(self, default: Sequence[str] = ()) -> dict[str, list[Prompt]]:
        """Return prompts by suite: of the suites that are named, or else of the default ones.

        Raises:
            PromptError: as `load_suite`.
        """
        return options.read_suites(self.suite or default, self.data_dir, self.limit, self.draw)

    def read_origins(self, suites: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return where the known ones of the suites come from, and how prompts of them were taken."""
        taken = {} if self.limit is None else {"limit": self.limit, "draw": self.draw}
        return {name: origin | taken for name, origin in options.read_origins(suites, self.data_dir).items()}

    def read_model(self, address: str) -> ModelSettings:
        """Return the model, how it is asked and how its weights are loaded.

        Raises:
            PreSafeError: as `options.read_model`.
        """
        return options.read_model(address, self.family, self.dtype, self.tokenizer)

    def read_settings(self, sampling: SamplingSettings | None = None) -> MeasureSettings:
        """Return the settings of the measurement.

        Args:
            sampling: How tokens are drawn; None takes what the model's family publishes.

        Raises:
            PreSafeError: the CoT modes are not on or off.
        """
        from presafe.config.measure import MeasureSettings
        from presafe.config.recipe import SamplingSettings

        return MeasureSettings(
            thinking=tuple(options.read_modes(self.thinking)),
            max_tokens=self.max_tokens,
            batch_size=self.batch_size,
            batch_tokens=self.batch_tokens,
            samples=self.samples,
            sampling=sampling or SamplingSettings(),
            sandbox=self.sandbox,
            judge=self.judge,
            judge_thought=self.judge_thought,
        )

    def model_parts(self) -> tuple[object, ...]:
        """Return the parts of a default folder's name for the model and the judges.

        A judge is a part only if it is named, so that names of folders from before there were judges stay valid.
        """
        judges: list[object] = [self.judge] if self.judge else []
        judges += [("thought", self.judge_thought)] if self.judge_thought else []
        return (self.family, self.tokenizer, self.dtype, *judges)

    def draw_parts(self) -> tuple[object, ...]:
        """Return the part of a default folder's name for how `--limit` draws; none for the default."""
        return () if self.limit is None or self.draw == "stratified" else (self.draw,)


@dataclass(frozen=True, kw_only=True)
class Attacking:
    """Options of attacks on the model and of defenses around it."""

    attack: options.Attacks = None
    defense: options.Defenses = None

    def add_to(self, settings: MeasureSettings) -> MeasureSettings:
        """Return the settings with the attacks and defenses.

        Raises:
            PreSafeError: one is unknown, has a wrong setting, or is named twice.
        """
        from presafe.attacks.registry import attack_label, defense_label

        attacks = [attack_label(text) for text in self.attack or ()]
        defenses = [defense_label(text) for text in self.defense or ()]
        for label in {*attacks, *defenses}:
            if [*attacks, *defenses].count(label) > 1:
                raise PreSafeError(f"{label} is named twice.", "Name it once.")
        return settings.model_copy(update={"attacks": tuple(attacks), "defenses": tuple(defenses)})


@dataclass(frozen=True, kw_only=True)
class Placing:
    """Option of where the model is sampled."""

    engine: options.Engine = None

    def add_to(self, settings: MeasureSettings) -> MeasureSettings:
        """Return the settings with where the model is sampled.

        Raises:
            RecipeError: as `read_engine`.
        """
        return options.sampled_at(settings, self.engine)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Options of how tokens are drawn."""

    temperature: options.Temperature = None
    top_p: options.TopP = None
    top_k: options.TopK = None

    def read(self) -> SamplingSettings:
        """Return how tokens are drawn where it differs from what the family publishes.

        Raises:
            PreSafeError: a value out of bounds.
        """
        return options.read_sampling(self.temperature, self.top_p, self.top_k)


def unpacked(verb: Callable[..., None]) -> Callable[..., None]:
    """Return a verb whose groups of options are replaced by the options, as Typer reads them."""
    hints = get_type_hints(verb, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(verb).parameters.items():
        if name in groups:
            parameters += _options_of(groups[name])
        else:
            parameters.append(parameter.replace(annotation=hints[name]))
    signature = inspect.Signature(parameters, return_annotation=None)

    def call(*arguments: Any, **words: Any) -> None:
        bound = signature.bind(*arguments, **words)
        bound.apply_defaults()
        values = dict(bound.arguments)
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        verb(**values)

    unpacked_verb = update_wrapper(call, verb)
    unpacked_verb.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    vars(unpacked_verb)["__signature__"] = signature  # which Typer reads
    return unpacked_verb


def _options_of(group: Any) -> list[inspect.Parameter]:
    """Return a group's options as parameters."""
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(group)
    ]
