"""Measure one model outside a recipe: any suites, CoT on and off, with or without an adapter.

If both modes are measured, they are compared prompt by prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from presafe.alignment.rows import refusal_start
from presafe.config.engine import stored_engine
from presafe.config.measure import MeasureSettings
from presafe.config.recipe import ModelSettings
from presafe.errors import AttackError, JudgeError, PromptError
from presafe.evaluation.answers import collect_answers, collect_outcomes, score_answers
from presafe.evaluation.attacked import attacked_suites, attacks_decision, defended, file_name, suites_in_mode
from presafe.evaluation.differences import SystemOutcomes, mode_pairs, paired_differences
from presafe.evaluation.guard import guarded
from presafe.evaluation.panels import panel_scores
from presafe.evaluation.thoughts import thought_bins
from presafe.judges.code import Sandbox, find_sandbox
from presafe.judges.scorers import check_judges, scorers_for
from presafe.judges.spec import models_here
from presafe.methods.registry import training_of
from presafe.models.adapters import need_adapter
from presafe.models.address import need_weights_for
from presafe.models.decision_head import DecisionHead, DecisionReading, has_head
from presafe.models.loading import load_renderer
from presafe.models.place import placed
from presafe.models.sampling import Sampler, keep_answers, sample_responses
from presafe.records import Expect, Prompt, Score, ThoughtBin
from presafe.report.data import ReportData
from presafe.report.page import write_report
from presafe.runs.folder import create_folder, locked, read_timings, resume_folder, timed
from presafe.runs.manifest import Origins, sha256_of_file, sha256_of_prompts
from presafe.runs.ownership import MEASUREMENT, check_ownership
from presafe.workflows.export import run_of


def measure(
    model: ModelSettings,
    suites: Mapping[str, Sequence[Prompt]],
    out: Path,
    settings: MeasureSettings = MeasureSettings(),  # noqa: B008  frozen
    *,
    adapter: Path | None = None,
    origins: Origins | None = None,
) -> ReportData:
    """Sample, judge and report one model; write `report.html` and `results.json`. The same call again resumes.

    Args:
        model: Its address, and its family and dtype if they are not the defaults.
        suites: Prompts by suite name; all prompts of a suite expect the same of the model. Harmful ones are measured
            again under each attack of the settings.
        out: Folder of logs and report. It belongs to one call's settings.
        settings: How the model is measured: CoT modes, token budget, sampling, judges.
        adapter: Folder of a PEFT adapter.
        origins: Where the suites come from (`origin_of`), kept in the manifest.

    Raises:
        ModelError: no adapter in the folder, or no such model.
        AttackError: an attack has no harmful suite or no mode to be measured in.
        JudgeError: no such judge, one that cannot be asked, or one with nothing to judge: no suite, or no thought.
        PromptError: no suite, or an empty one.
        RunError: the folder holds something else, or a measurement with other settings or prompts; or no sandbox.
        PreSafeError: as `sample_responses`.
    """
    system = "adapted" if adapter else "vanilla"
    return measure_systems(model, suites, out, settings, {system: nullcontext}, adapter=adapter, origins=origins)


def measure_systems(
    model: ModelSettings,
    suites: Mapping[str, Sequence[Prompt]],
    out: Path,
    settings: MeasureSettings,
    systems: Mapping[str, Callable[[], AbstractContextManager[None]]],
    *,
    adapter: Path | None = None,
    origins: Origins | None = None,
    kept: Mapping[str, Any] = MappingProxyType({}),
) -> ReportData:
    """Measure one model as several systems, each of which is set up for as long as it is measured; see `measure`.

    Args:
        model: Its address, and its family and dtype if they are not the defaults.
        suites: Prompts by suite name; all prompts of a suite expect the same of the model.
        out: Folder of logs and report. It belongs to one call's settings.
        settings: How the model is measured: CoT modes, token budget, sampling, judges.
        systems: By name, what sets the system up.
        adapter: Folder of a PEFT adapter.
        origins: Where the suites come from (`origin_of`), kept in the manifest.
        kept: More settings that the folder belongs to.

    Raises:
        PreSafeError: as `measure`.
    """
    suites = attacked_suites(suites, settings.attacks, settings.seed)
    kinds = _check(suites, settings, adapter)
    need_weights_for(model.address, settings.attacks, settings.defenses)
    sandbox = find_sandbox(settings.sandbox) if "code" in kinds.values() else None
    decision = _decision_of(model, adapter) if attacks_decision(settings.attacks) else None
    max_tokens = token_budget(model, settings)
    stored = {**_stored_settings(model, suites, settings, adapter, max_tokens, sandbox), **kept}
    check_ownership(out, MEASUREMENT)
    with locked(out), placed(settings.engine, model, out, has_weights=False) as place:
        manifest = _open(out, stored, sha256_of_prompts(suites.values()), origins, stored_engine(settings.engine))
        scores: list[Score] = []
        panel: list[Score] = []
        thoughts: list[ThoughtBin] = []
        modes: list[SystemOutcomes] = []
        parts = _parts(model, suites, out, settings, adapter, max_tokens, list(systems))
        if place is not None and not (settings.attacks or settings.defenses):  # a judge may wait for all answers
            for part in parts:
                with timed(out, part.label):
                    keep_answers(part.shown, part.suites, part.sampler._replace(place=place), part.folder)
        for part in parts:
            name, mode, asked = part.name, part.sampler.thinking, part.suites
            with timed(out, part.label), systems[part.system]():
                responses = sample_responses(
                    part.shown,
                    asked,
                    {suite: scorers_for(kinds[suite], settings.judge, settings.judge_thought) for suite in asked},
                    part.sampler._replace(decision=decision, place=place),
                    part.folder,
                    sandbox=sandbox,
                    solver=guarded(settings.seed, part.defense) if settings.attacks or settings.defenses else None,
                )
            answers = collect_answers(asked, responses, settings.judge, settings.judge_thought)
            modes.append(collect_outcomes(name, mode, [answers]))
            scores += score_answers(answers, system=name, thinking=mode, seed=None)
            if settings.attacks and mode == "on":
                thoughts += thought_bins(answers, name)
            panel += panel_scores(answers, system=name, thinking=mode, seed=None)
        data = ReportData(
            title=f"{model.address} with {adapter}" if adapter else model.address,
            recipe=stored,
            manifest=manifest,
            timings_s=read_timings(out),
            scores=tuple(scores),
            panel=tuple(panel),
            thoughts=tuple(thoughts),
            differences=tuple(paired_differences(mode_pairs(modes))),
        )
        write_report(data, out)
    return data


def token_budget(model: ModelSettings, settings: MeasureSettings) -> int:
    """Return the token budget of the settings or, if they name none, of the model's family.

    Raises:
        ModelError: the family has no level that is to be measured; or as `load_renderer`.
    """
    levels = [mode for mode in settings.thinking if mode not in ("on", "off")]
    if settings.max_tokens is not None and not levels:
        return settings.max_tokens
    renderer = load_renderer(model.address, model.family, model.tokenizer, trust_remote_code=model.trust_remote_code)
    for level in levels:
        renderer.need_mode(level)
    return settings.max_tokens or renderer.family.max_tokens


def model_with_adapter(model: ModelSettings, adapter: Path | None) -> dict[str, Any]:
    """Return a model's settings as a folder keeps them, with what identifies its adapter."""
    return {**model.model_dump(), "adapter": _fingerprint(adapter) if adapter else None}


def _check(
    suites: Mapping[str, Sequence[Prompt]], settings: MeasureSettings, adapter: Path | None
) -> dict[str, Expect]:
    """Check what can be checked before a model is loaded; return what the prompts of each suite expect.

    Raises:
        PreSafeError: as `measure`.
    """
    if not suites or not all(suites.values()):
        raise PromptError("nothing to measure on: no suite, or one without prompts.")
    kinds = {name: prompts[0].expect for name, prompts in suites.items()}
    check_judges(settings.judge, settings.judge_thought, kinds.values())
    for name, prompts in suites.items():
        if not any(name in suites_in_mode({name: prompts}, mode) for mode in settings.thinking):
            raise AttackError(f"{name} begins a thought, and CoT is off.", "Measure it with `thinking = on`, too.")
    if settings.judge_thought and set(settings.thinking) == {"off"}:
        raise JudgeError(
            f"judge {settings.judge_thought} would judge no thought: CoT is off.", "Measure CoT on, too, or drop it."
        )
    if adapter is not None:
        need_adapter(adapter)
    return kinds


def _stored_settings(
    model: ModelSettings,
    suites: Mapping[str, Sequence[Prompt]],
    settings: MeasureSettings,
    adapter: Path | None,
    max_tokens: int,
    sandbox: Sandbox | None,
) -> dict[str, Any]:
    """Return what a folder of a measurement belongs to; its keys are those of older folders, which are resumed."""
    attacked = {"attacks": list(settings.attacks)} if settings.attacks else {}
    defended = {"defenses": list(settings.defenses)} if settings.defenses else {}
    return (
        attacked
        | defended
        | {
            "model": model_with_adapter(model, adapter),
            "suites": {name: len(prompts) for name, prompts in suites.items()},
            "thinking": list(settings.thinking),
            "max_tokens": max_tokens,
            "seed": settings.seed,
            "samples": settings.samples,
            "sampling": settings.sampling.model_dump(),
            "sandbox": None if sandbox is None else settings.sandbox or "docker",
            "judge": settings.judge,
            "judge_thought": settings.judge_thought,
        }
    )


class _Part(NamedTuple):
    """One system in one mode, perhaps behind a defense."""

    system: str
    defense: str | None
    name: str
    """Name in results."""
    label: str
    """Label of its time."""
    shown: str
    """Label of its progress bar."""
    suites: dict[str, Sequence[Prompt]]
    sampler: Sampler
    folder: Path
    """Folder of its logs."""


def _parts(
    model: ModelSettings,
    suites: Mapping[str, Sequence[Prompt]],
    out: Path,
    settings: MeasureSettings,
    adapter: Path | None,
    max_tokens: int,
    systems: Sequence[str],
) -> list[_Part]:
    """Return all that is sampled, in order."""
    parts = []
    for system, defense, mode in product(systems, (None, *settings.defenses), settings.thinking):
        name = defended(system, defense)
        label = f"CoT {mode}{f' with {defense}' if defense else ''}"
        label = label if len(systems) == 1 else f"{system}, {label}"
        sampler = Sampler(
            model,
            mode,
            adapter,
            batch_size=settings.batch_size,
            batch_tokens=settings.batch_tokens,
            max_tokens=max_tokens,
            seed=settings.seed,
            samples=settings.samples,
            sampling=settings.sampling,
            judges=models_here(settings.judge, settings.judge_thought),
        )
        folder, shown = out / "evaluation" / f"{file_name(name)}-{mode}", f"{model.address} {label}"
        parts.append(_Part(system, defense, name, label, shown, suites_in_mode(suites, mode), sampler, folder))
    return parts


def _decision_of(model: ModelSettings, adapter: Path | None) -> DecisionReading:
    """Return how a model's decision before the CoT is read, for searches that attack it.

    An adapter in a run is read as the run reads it: its method's refusals, and its head if it has one. Any other model
    is read by refusals at once.
    """
    renderer = load_renderer(model.address, model.family, trust_remote_code=model.trust_remote_code)
    folder = adapter.absolute().parent if adapter else None
    if folder is None or folder.parent.name != "alignment":
        return DecisionReading(refusal_start(renderer, "direct"))
    training = training_of(folder.name.partition("-seed")[0])
    start = refusal_start(renderer, run_of(folder).recipe.align.refusal_target, training)
    return DecisionReading(start, DecisionHead(folder) if has_head(folder) else None)


def _open(
    out: Path,
    settings: dict[str, Any],
    prompts_sha256: str,
    origins: Origins | None,
    engine: dict[str, Any] | None,
) -> dict[str, Any]:
    """Create the manifest of a measurement, or resume one; return it."""
    # Without a log nothing was sampled, and the adapter may have been broken: the folder is created again.
    if any((out / "evaluation").glob("*/*.eval")):
        return resume_folder(out, out / MEASUREMENT, settings, prompts_sha256, engine)
    return create_folder(out, out / MEASUREMENT, settings, prompts_sha256, origins, engine)


def _fingerprint(adapter: Path) -> dict[str, str | None]:
    """Return an adapter's folder and the sha256 of its weights: trained again in the same folder, it is another."""
    weights = adapter / "adapter_model.safetensors"
    return {"folder": str(adapter), "sha256": sha256_of_file(weights) if weights.is_file() else None}
