"""Look inside the systems of an evaluated run: what their hidden states know, before and after alignment.

Probes are fitted on alignment queries and applied to the run's suites, which neither the probes nor any training saw;
directions and planes are computed on the suites' prompts. Problems are left out: their different subject would make
the two classes easy to separate. This is no stage of a run, because it takes a few minutes and needs weights; the
report shows the views that are stored (`internals.views`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from presafe.errors import PromptError, RunError
from presafe.internals.probes import direction_cosine, fit_probe, principal_plane
from presafe.internals.states import hidden_states
from presafe.internals.views import store_views, stored_views
from presafe.models.address import need_weights
from presafe.models.loading import shared_model
from presafe.records import DirectionCosine, InsideView, ProbeScore, Prompt, StatePoint, Thinking
from presafe.runs.io import write_json
from presafe.runs.manifest import with_this_session
from presafe.runtime.memory import free_memory
from presafe.runtime.progress import console, progress_bar
from presafe.stages.run_folder import RunFolder
from presafe.stages.systems import DECIDED, System, adapter_of, aligned_systems, label_of
from presafe.stats.auroc import auroc
from presafe.stats.bootstrap import ranking_interval

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Shaped

    States = dict[Thinking, Float[np.ndarray, "prompts layers hidden"]]

_MODES: tuple[Thinking, ...] = ("on", "off")


class _Prompts(NamedTuple):
    """The prompts of the analysis: first those that probes are fitted on, then those of the suites."""

    fitted: Sequence[Prompt]
    suites: Mapping[str, Sequence[Prompt]]

    @property
    def num_fitted(self) -> int:
        """Return the number of prompts that probes are fitted on."""
        return len(self.fitted)

    @property
    def all(self) -> list[Prompt]:
        """Return all prompts, those of the suites last."""
        return [*self.fitted, *(prompt for prompts in self.suites.values() for prompt in prompts)]

    @property
    def harmful(self) -> Bool[np.ndarray, " prompts"]:
        """Return whether each of all prompts is harmful."""
        return np.array([prompt.expect == "refuse" for prompt in self.all])

    @property
    def suite_names(self) -> Shaped[np.ndarray, " suite_prompts"]:
        """Return the suite of each of the suites' prompts."""
        return np.array([name for name, prompts in self.suites.items() for _ in prompts])

    @property
    def harmless_suites(self) -> list[str]:
        """Return the names of the suites to comply with."""
        return [name for name, prompts in self.suites.items() if prompts[0].expect == "comply"]


def look(run: RunFolder, *, limit: int = 200, layer: int | None = None) -> list[InsideView]:
    """Analyze every system that was not analyzed yet with these settings, and store the views.

    Args:
        run: An aligned run.
        limit: Largest number of prompts of each class to fit probes on, and of each suite to apply them to.
        layer: Layer of the plane, counted from 1; None takes the layer that the head reads.

    Returns:
        One view per system and seed, the model as it came first.

    Raises:
        ModelError: a served model.
        PromptError: the suites have no harmful or no harmless prompts.
        RunError: the model has no such layer.
    """
    need_weights(run.recipe.model.address, "looking inside")
    prompts = _Prompts(fit_prompts(run, limit), suite_prompts(run, limit))
    settings = {"limit": limit, "layer": layer}
    stored = stored_views(run.path)
    earlier = list(stored.systems) if stored is not None and stored.settings == settings else []
    write_json(run.manifest_path, with_this_session(run.manifest()))
    views: list[InsideView] = []
    for system in [System("vanilla", None, "on"), *aligned_systems(run.recipe)]:
        view = next((view for view in earlier if (view.system, view.seed) == (system.name, system.seed)), None)
        if view is not None:
            console.print(f"  {label_of(run, system)}: looked into before")
        views.append(view or _look_into(run, system, prompts, layer))
        store_views(run.path, settings, [*views, *(view for view in earlier if view not in views)])
        free_memory()
    return views


def fit_prompts(run: RunFolder, limit: int) -> list[Prompt]:
    """Return alignment queries to fit probes on: harmful and harmless ones, at most `limit` of each.

    The harmless ones are the queries to comply with; if there are only problems, the problems.
    """
    queries = run.workload.alignment
    harmful = [query for query in queries if query.expect == "refuse"]
    to_comply_with = [query for query in queries if query.expect == "comply"]
    harmless = to_comply_with or [query for query in queries if query.expect != "refuse"]
    return [query for side in (harmful, harmless) for query in _subset(side, limit, run.recipe.respond.seed)]


def suite_prompts(run: RunFolder, limit: int) -> dict[str, list[Prompt]]:
    """Return prompts of the suites to refuse and to comply with, at most `limit` of each suite.

    Raises:
        PromptError: there are no suites of one of the two kinds.
    """
    suites = {
        name: _subset(prompts, limit, run.recipe.evaluate.seed)
        for name, prompts in run.workload.suites.items()
        if prompts[0].expect in DECIDED
    }
    if {prompts[0].expect for prompts in suites.values()} != {"refuse", "comply"}:
        raise PromptError(
            "looking inside sets harmful prompts against harmless ones, and the run's suites have one kind.",
            "Evaluate a recipe with a suite to refuse and a suite to comply with.",
        )
    return suites


def _subset(prompts: Sequence[Prompt], limit: int, seed: int) -> list[Prompt]:
    """Return at most `limit` prompts, drawn at random and in their original order."""
    if len(prompts) <= limit:
        return list(prompts)
    return [prompts[index] for index in sorted(random.Random(seed).sample(range(len(prompts)), limit))]


def _look_into(run: RunFolder, system: System, prompts: _Prompts, layer: int | None) -> InsideView:
    """Run one system on all prompts and summarize its hidden states."""
    model, adapter = run.recipe.model, adapter_of(run, system)
    folder_of_adapter = adapter.resolve() if adapter else None
    loaded = shared_model(model.address, folder_of_adapter, model.family, model.dtype, model.trust_remote_code)
    num_layers: int = loaded.model.config.get_text_config().num_hidden_layers
    layer = layer or run.recipe.align.layer or num_layers
    if layer > num_layers:
        raise RunError(f"the model has {num_layers} layers, and there is no layer {layer}.", "Name another `layer`.")
    if (family := loaded.renderer.family).off_decision_text is not None and system.name == "vanilla":
        console.print(
            f"  {family.name}: the prompt with CoT off is no continuation, so each mode is read at its own last token, "
            "and their cosines also show that the prompts differ"
        )
    texts = [prompt.text for prompt in prompts.all]
    label = f"{label_of(run, system).removesuffix('-on')}, inside"
    with progress_bar(label, len(_MODES) * len(texts)) as bar:
        states = {mode: hidden_states(loaded, texts, mode, on_finished=bar.advance) for mode in _MODES}
    suites_harmful = prompts.harmful[prompts.num_fitted :]
    plane = principal_plane(states["on"][prompts.num_fitted :, layer - 1], suites_harmful)
    return InsideView(
        system=system.name,
        seed=system.seed,
        num_fit=prompts.num_fitted,
        probes=tuple(
            score
            for number in range(1, num_layers + 1)
            for mode in _MODES
            for score in _probe_scores(states[mode][:, number - 1], prompts, mode, number)
        ),
        cosines=tuple(_layer_cosine(states, prompts, number) for number in range(1, num_layers + 1)),
        layer=layer,
        shares=plane.shares,
        points=tuple(
            StatePoint(suite=suite, x=round(x, 4), y=round(y, 4))
            for suite, (x, y) in zip(prompts.suite_names.tolist(), plane.points.tolist(), strict=True)
        ),
    )


def _probe_scores(
    states: Float[np.ndarray, "prompts hidden"], prompts: _Prompts, thinking: Thinking, layer: int
) -> list[ProbeScore]:
    """Fit a probe on one layer's states and return its AUROC on each harmless suite, against all harmful prompts."""
    harmful, num_fitted = prompts.harmful, prompts.num_fitted
    probe = fit_probe(states[:num_fitted], harmful[:num_fitted])
    logits = np.array(probe.logits(states[num_fitted:]))
    harmful_logits = logits[harmful[num_fitted:]].tolist()
    scores = []
    for suite in prompts.harmless_suites:
        interval = ranking_interval(auroc, harmful_logits, logits[prompts.suite_names == suite].tolist())
        scores.append(ProbeScore(thinking=thinking, layer=layer, suite=suite, **interval._asdict()))
    return scores


def _layer_cosine(states: States, prompts: _Prompts, layer: int) -> DirectionCosine:
    """Return the cosine of one layer's directions with CoT on and off, over the suites' prompts."""
    on, off = (states[mode][prompts.num_fitted :, layer - 1] for mode in _MODES)
    interval = direction_cosine(on, off, prompts.harmful[prompts.num_fitted :])
    return DirectionCosine(layer=layer, **interval._asdict())
