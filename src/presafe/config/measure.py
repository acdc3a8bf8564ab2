"""Settings of a measurement outside a recipe: one object for `presafe.measure`, sweeps and the command line."""

from __future__ import annotations

from pydantic import Field, field_validator

from presafe.config.attacking import AttackName, DefenseName
from presafe.config.bounds import Positive, Seed, Settings
from presafe.config.engine import EngineSettings
from presafe.config.recipe import SamplingSettings
from presafe.records import Thinking


class MeasureSettings(Settings):
    """How one model is measured. Results depend on every setting except `batch_size`, `batch_tokens` and `engine`."""

    thinking: tuple[Thinking, ...] = Field(default=("on", "off"), min_length=1)
    """CoT modes to measure, in this order."""
    attacks: tuple[AttackName, ...] = ()
    """Attacks, with their settings; each harmful suite is measured under each of them, too."""
    defenses: tuple[DefenseName, ...] = ()
    """Defenses, with their settings; the model is measured behind each of them, too."""
    max_tokens: Positive | None = None
    """Token budget of thought and answer; None takes the budget of the model's family."""
    batch_size: Positive = 64
    """Rows sampled together, at most; for a served model, requests in flight."""
    batch_tokens: Positive = 65_536
    """Rows × (longest prompt + token budget) of what is sampled together, at most: bounds the memory of its cache."""
    seed: Seed = 0
    """Seed of sampling."""
    samples: Positive = 1
    """Answers per prompt. More than one needs a temperature above 0."""
    sampling: SamplingSettings = SamplingSettings()
    """How tokens are drawn; None in a field takes what the model's family publishes."""
    sandbox: str | None = None
    """Where programs of the model run: "docker", "local" or "local-unconfined"; None takes docker. Only suites that
    ask for programs need it."""
    judge: str | None = None
    """Judge of refusals or harm (`presafe list judges`); None takes the refusal strings. Problems are compared with
    their reference. If the judge judges harm, the strings still judge harmless prompts."""
    judge_thought: str | None = None
    """Judge of the thoughts before answers to harmful prompts, CoT on; None takes strings."""
    engine: EngineSettings | None = Field(default=None, exclude=True)
    """Where the model is sampled; None samples in this process."""

    @field_validator("thinking", "attacks", "defenses")
    @classmethod
    def _check_distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("a CoT mode, an attack or a defense is named twice")
        return names
