"""Tamper with an aligned model's weights in memory, and measure what is left of its refusals.

    scale λ     the adapter is merged at λ times its scale: 1 is the aligned model, 0 the base, −1 its opposite
    ablation    the refusal direction of the aligned model is taken out of its states (`internals/ablation.py`)
    steps n     the adapter is fine-tuned on harmless affirmative starts for n steps (`internals/finetuning.py`)

Each way is a system of the report, CoT on. Weights are changed in memory only, for as long as a way is measured: no
weights are written. At λ = 0 the weights are the base's, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import Field, model_validator

from presafe.config.bounds import Positive, Settings
from presafe.config.measure import MeasureSettings
from presafe.config.recipe import ModelSettings
from presafe.errors import ModelError
from presafe.internals.ablation import ablated, refusal_direction
from presafe.internals.finetuning import finetuned
from presafe.models.adapters import merged_at, need_adapter, untie, with_adapter
from presafe.models.address import need_weights
from presafe.models.loading import LoadedModel, load_renderer, load_weights, sharing
from presafe.prompts.sets import built_in
from presafe.records import Prompt
from presafe.report.data import ReportData
from presafe.runtime.memory import free_memory
from presafe.workflows.measure import measure_systems

_DIRECTION_PROMPTS = 64
"""Prompts of each kind that the direction is read on. Ours; Arditi et al. take 128."""
LEARNING_RATE = 1e-3
"""Of fine-tuning. Ours; the recipes of this project align with it."""
_FINETUNING_PROMPTS = 100
"""Harmless requests that fine-tuning learns a beginning for. Ours."""


class TamperSettings(Settings):
    """Ways to tamper with an aligned model."""

    scales: tuple[float, ...] = Field(default=(1.0, 0.7, 0.3, 0.0, -1.0), min_length=1)
    """Factors λ of the adapter's own scale."""
    ablate: bool = True
    """Whether the refusal direction is taken out of the aligned model, too."""
    layer: int | None = Field(default=None, ge=1)
    """Block after which the direction is read, counted from 1; None takes the one at 60 % of the depth."""
    steps: tuple[Positive, ...] = Field(default=(), exclude_if=lambda steps: not steps)
    """Steps of fine-tuning after which the model is measured; scale 1 is step 0."""
    learning_rate: float = Field(default=LEARNING_RATE, gt=0, le=1, exclude_if=lambda rate: rate == LEARNING_RATE)
    """Of fine-tuning."""

    @model_validator(mode="after")
    def _check_effect(self) -> Self:
        if self.learning_rate != LEARNING_RATE and not self.steps:
            raise ValueError("`learning_rate` has no effect without `steps` of fine-tuning")
        return self


class Way(NamedTuple):
    """One way to tamper."""

    name: str
    """Name of the system in results."""
    scale: float
    is_ablated: bool = False
    steps: int = 0
    """Steps of fine-tuning."""
    learning_rate: float = LEARNING_RATE


def ways_of(settings: TamperSettings) -> list[Way]:
    """Return the ways of the settings, scales in their order."""
    scaled = [Way(f"scale_{scale:g}", scale) for scale in settings.scales]
    ablated_way = [Way("ablated", 1.0, is_ablated=True)] if settings.ablate else []
    rate = settings.learning_rate
    tuned = [Way(f"finetuned_{steps}", 1.0, steps=steps, learning_rate=rate) for steps in settings.steps]
    return [*scaled, *ablated_way, *tuned]


def tamper(
    model: ModelSettings,
    adapter: Path,
    suites: Mapping[str, Sequence[Prompt]],
    out: Path,
    settings: TamperSettings = TamperSettings(),  # noqa: B008  frozen
    measured: MeasureSettings = MeasureSettings(thinking=("on",)),  # noqa: B008  frozen
) -> ReportData:
    """Measure a model with its adapter under each way; write `report.html` and `results.json`. A second call resumes.

    Args:
        model: The base model; its weights must be local.
        adapter: Folder of the adapter.
        suites: Prompts by suite.
        out: Folder of logs and report.
        settings: The ways.
        measured: How each is measured; attacks and defenses are taken together with every way.

    Raises:
        ModelError: a served model, no adapter, or one that does not fit.
        PreSafeError: as `measure`.
    """
    need_weights(model.address, "tampering with weights")
    if measured.engine is not None:
        raise ModelError("weights are tampered with in this process, so they are sampled in it.", "Leave out `engine`.")
    need_adapter(adapter)
    ways = ways_of(settings)
    weights: list[tuple[Any, LoadedModel]] = []
    key = (model.address, adapter.resolve(), model.family, model.dtype, model.trust_remote_code)

    @contextmanager
    def tampered(way: Way) -> Iterator[None]:
        """Share the model under a way, for as long as it is measured."""
        if not weights:
            weights.append(_load(model, adapter))
        adapted, loaded = weights[0]
        with tampered_with(adapted, loaded, way, settings.layer), sharing(loaded, *key):
            yield

    try:
        return measure_systems(
            model,
            suites,
            out,
            measured,
            {way.name: partial(tampered, way) for way in ways},
            adapter=adapter,
            kept={"tamper": settings.model_dump(mode="json")},
        )
    finally:
        weights.clear()
        free_memory()


def _load(model: ModelSettings, adapter: Path) -> tuple[Any, LoadedModel]:
    """Return the model with its adapter beside its weights, and the base model in it with its renderer."""
    renderer = load_renderer(model.address, model.family, trust_remote_code=model.trust_remote_code)
    base = load_weights(model.address, model.dtype, trust_remote_code=model.trust_remote_code)
    adapted = with_adapter(base, adapter, model.address)
    untie(adapted.get_base_model())
    return adapted, LoadedModel(adapted.get_base_model(), renderer)


@contextmanager
def tampered_with(adapted: Any, loaded: LoadedModel, way: Way, layer: int | None) -> Iterator[None]:
    """Tamper with a model for a while; afterwards its weights are as before, bit for bit.

    Args:
        adapted: The PEFT model.
        loaded: The base model inside it, whose layers carry the adapter, and its renderer.
        way: The way.
        layer: Block of the direction; None takes the one at 60 % of the depth.

    Raises:
        ModelError: as `refusal_direction` and `finetuned`.
    """
    with ExitStack() as stack:
        if way.steps:
            rows = _texts("benign", _FINETUNING_PROMPTS)
            stack.enter_context(finetuned(adapted, loaded, rows, way.steps, way.learning_rate))
        stack.enter_context(merged_at(adapted, way.scale))
        if way.is_ablated:
            num_layers = loaded.model.config.get_text_config().num_hidden_layers
            harmful, harmless = (_texts(name, _DIRECTION_PROMPTS) for name in ("harmful", "benign"))
            block = layer or max(1, round(0.6 * num_layers))
            stack.enter_context(ablated(loaded.model, refusal_direction(loaded, harmful, harmless, block)))
        yield


def _texts(name: str, count: int) -> list[str]:
    """Return some prompts of a set of the project, split `align`."""
    return [prompt.text for prompt in built_in(name, "align")[:count]]
