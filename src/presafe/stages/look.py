"""Look inside the systems of an evaluated run: what their hidden states know, before and after alignment.

    inside.json     {"settings": …, "systems": [`InsideView` of the model as it came and of every aligned system]}

Probes are fitted on alignment queries and read on the run's suites, which neither they nor any training saw; directions
and planes are of the suites' prompts. Problems are left out: another subject would make the two classes easy to tell
apart. It is no stage of a run, because it takes a few minutes and needs weights; the report shows what is there.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from presafe.errors import PromptError, RunError
from presafe.evaluation.inside import cosine, fit_probe, plane
from presafe.evaluation.metrics import auroc, ranking_interval
from presafe.evaluation.states import hidden_states
from presafe.files import read_record
from presafe.manifest import continued
from presafe.memory import free_memory
from presafe.models.address import need_weights
from presafe.models.loading import shared_model
from presafe.progress import console, progress_bar
from presafe.records import DirectionCosine, InsideView, ProbeScore, Prompt, Record, StatePoint, Thinking
from presafe.run_folder import RunFolder, write_json
from presafe.stages.systems import (
    DECIDED,
    System,
    adapter_of,
    aligned_systems,
    alignment_queries,
    evaluation_suites,
    label_of,
)

_MODES: tuple[Thinking, ...] = ("on", "off")


def look(run: RunFolder, *, limit: int = 200, layer: int | None = None) -> list[InsideView]:
    """Look into every system that was not looked into yet with these settings, and write `inside.json`.

    Args:
        run: An aligned run.
        limit: Prompts of each class to fit probes on, and of each suite to read, at most.
        layer: Layer of the plane, counted from 1; None is the one that the head reads.

    Raises:
        ModelError: a served model.
        PromptError: the suites have no harmful or no harmless prompts.
        RunError: the model has no such layer.
    """
    need_weights(run.recipe.model.address, "looking inside")
    fit, suites = fit_prompts(run, limit), read_prompts(run, limit)
    settings = {"limit": limit, "layer": layer}
    found = _found(run)
    done = [] if found is None or found.settings != settings else list(found.systems)
    write_json(run.manifest_path, continued(run.manifest()))
    views = []
    for system in [System("vanilla", None, "on"), *aligned_systems(run.recipe)]:
        before = next((view for view in done if (view.system, view.seed) == (system.name, system.seed)), None)
        if before is not None:
            console.print(f"  {label_of(run, system)}: looked into before")
        views.append(before or _look_into(run, system, fit, suites, layer))
        rest = [view for view in done if view not in views]
        write_json(
            run.path / "inside.json",
            {"settings": settings, "systems": [view.model_dump(mode="json") for view in (*views, *rest)]},
        )
        free_memory()
    return views


def views_of(run: RunFolder) -> list[InsideView]:
    """What was seen inside a run; nothing where nobody looked."""
    found = _found(run)
    return [] if found is None else list(found.systems)


def fit_prompts(run: RunFolder, limit: int) -> list[Prompt]:
    """Alignment queries to fit probes on: harmful ones and harmless ones, `limit` each at most.

    Harmless ones are those to comply with; where there are only problems, those.
    """
    queries = alignment_queries(run.recipe)
    harmful = [prompt for prompt in queries if prompt.expect == "refuse"]
    others = [prompt for prompt in queries if prompt.expect == "comply"]
    harmless = others or [prompt for prompt in queries if prompt.expect != "refuse"]
    return [prompt for part in (harmful, harmless) for prompt in _some(part, limit, run.recipe.respond.seed)]


def read_prompts(run: RunFolder, limit: int) -> dict[str, list[Prompt]]:
    """Prompts of the suites to refuse and to comply with, `limit` of each at most.

    Raises:
        PromptError: there are none of one kind.
    """
    suites = {
        name: _some(prompts, limit, run.recipe.evaluate.seed)
        for name, prompts in evaluation_suites(run.recipe).items()
        if prompts[0].expect in DECIDED
    }
    if {prompts[0].expect for prompts in suites.values()} != {"refuse", "comply"}:
        raise PromptError(
            "looking inside sets harmful prompts against harmless ones, and the run's suites have one kind.",
            "Evaluate a recipe with a suite to refuse and a suite to comply with.",
        )
    return suites


def _some(prompts: Sequence[Prompt], limit: int, seed: int) -> list[Prompt]:
    if len(prompts) <= limit:
        return list(prompts)
    return [prompts[index] for index in sorted(random.Random(seed).sample(range(len(prompts)), limit))]


def _found(run: RunFolder) -> _Inside | None:
    path = run.path / "inside.json"
    hint = f"Delete it, or look again with `presafe look {run.path}` afterwards."
    return read_record(path, _Inside, hint=hint) if path.exists() else None


class _Inside(Record):
    """What `inside.json` holds."""

    settings: dict[str, Any]
    systems: tuple[InsideView, ...]


def _look_into(
    run: RunFolder, system: System, fit: Sequence[Prompt], suites: dict[str, list[Prompt]], layer: int | None
) -> InsideView:
    model, adapter = run.recipe.model, adapter_of(run, system)
    loaded = shared_model(model.address, adapter.resolve() if adapter else None, model.family, model.dtype)
    num_layers: int = loaded.model.config.get_text_config().num_hidden_layers
    layer = layer or run.recipe.align.layer or num_layers
    if layer > num_layers:
        raise RunError(f"the model has {num_layers} layers, and there is no layer {layer}.", "Name another --layer.")
    asked = [*fit, *(prompt for prompts in suites.values() for prompt in prompts)]
    label = f"{label_of(run, system).removesuffix('-on')}, inside"
    with progress_bar(label, len(_MODES) * len(asked)) as bar:
        states = {mode: hidden_states(loaded, asked, mode, on_finished=bar.advance) for mode in _MODES}
    where = np.array([name for name, prompts in suites.items() for _ in prompts])
    harmful = np.array([prompt.expect == "refuse" for prompt in asked])
    fitted, read = harmful[: len(fit)], harmful[len(fit) :]
    probes, cosines = [], []
    for number in range(1, num_layers + 1):
        each = {mode: states[mode][:, number - 1] for mode in _MODES}
        for mode in _MODES:
            probe = fit_probe(each[mode][: len(fit)], fitted)
            logits = np.array(probe.logits(each[mode][len(fit) :]))
            for suite in (name for name, prompts in suites.items() if prompts[0].expect == "comply"):
                found = ranking_interval(auroc, logits[read].tolist(), logits[where == suite].tolist())
                probes.append(ProbeScore(thinking=mode, layer=number, suite=suite, **found._asdict()))
        turned = cosine(each["on"][len(fit) :], each["off"][len(fit) :], read)
        cosines.append(DirectionCosine(layer=number, **turned._asdict()))
    drawn = plane(states["on"][len(fit) :, layer - 1], read)
    return InsideView(
        system=system.name,
        seed=system.seed,
        num_fit=len(fit),
        probes=tuple(probes),
        cosines=tuple(cosines),
        layer=layer,
        shares=drawn.shares,
        points=tuple(
            StatePoint(suite=suite, x=round(x, 4), y=round(y, 4))
            for suite, (x, y) in zip(where.tolist(), drawn.points.tolist(), strict=True)
        ),
    )
