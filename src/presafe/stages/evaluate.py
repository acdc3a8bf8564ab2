"""Stage 4: the model as it came with CoT on and off, with its thought prefilled, and every aligned system with CoT on,
or in the modes that the recipe names. All on held-out prompts.

evaluation/<system>-<thinking>/*.eval   what was said
evaluation/scores.jsonl                 rates with intervals
evaluation/differences.jsonl            PreSafe against every other system, and the modes of each, paired by prompt
evaluation/positions/<system>.jsonl     the decision position of every prompt to refuse or to comply with, CoT on; none
                                        of a served model, and none of a prefilled thought, whose decision position
                                        is that of the model as it came
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from presafe.alignment.rows import refusal_start
from presafe.config.recipe import is_served
from presafe.errors import RunError
from presafe.evaluation.answers import (
    Answers,
    collect_answers,
    collect_outcomes,
    score_answers,
)
from presafe.evaluation.differences import SystemOutcomes, mode_pairs, paired_differences
from presafe.evaluation.metrics import mean_over_seeds, position_scores
from presafe.internals.decision import decision_scores
from presafe.judges.scorers import scorers_for
from presafe.methods.registry import is_prefill, training_of
from presafe.models.decision_head import DecisionHead, has_head
from presafe.models.loading import shared_model
from presafe.models.sampling import Sampler, load_responses, sample_responses
from presafe.records import Difference, PositionScore, Prompt, Response, Score, Thinking
from presafe.runs.folder import read_records, say_set_aside
from presafe.runs.io import write_jsonl
from presafe.runtime.memory import free_memory
from presafe.runtime.progress import console, progress_bar
from presafe.stages.run_folder import RunFolder
from presafe.stages.systems import DECIDED, System, adapter_of, evaluated_systems, label_of, system_folder


def evaluate(run: RunFolder) -> None:
    """Sample and score every system."""
    suites, settings = run.workload.suites, run.recipe.evaluate
    scores: list[Score] = []
    answers: dict[tuple[str, Thinking], list[dict[str, Answers]]] = {}
    for system in evaluated_systems(run.recipe):
        said = collect_answers(suites, _sample(run, system), settings.judge, settings.judge_thought)
        answers.setdefault((system.name, system.thinking), []).append(said)
        scores += score_answers(said, system=system.name, thinking=system.thinking, seed=system.seed)
        if system.thinking == "on":
            scores += position_scores(_read_positions(run, system))
        free_memory()
    systems = [collect_outcomes(name, thinking, seeds) for (name, thinking), seeds in answers.items()]
    write_jsonl(differences_file(run), _differences(systems))
    write_jsonl(run.path / "evaluation" / "scores.jsonl", [*scores, *mean_over_seeds(scores)])


def _differences(systems: Sequence[SystemOutcomes]) -> list[Difference]:
    """The two modes of each system, and PreSafe against every other in its mode, CoT on also against the teacher."""
    ours = [system for system in systems if system.system == "presafe"]
    pairs = [
        (other, our)
        for our in ours
        for other in systems
        if other.system != our.system
        and (other.thinking == our.thinking or (other.system == "vanilla" and our.thinking == "on"))
    ]
    return paired_differences([*mode_pairs(systems), *pairs])


def responses_by_suite(run: RunFolder, system: System) -> dict[str, list[Response]]:
    """What a system said, by suite.

    Raises:
        RunError: the stage has not finished.
    """
    folder = run.path / "evaluation" / label_of(run, system)
    return load_responses(folder, system.thinking, run.workload.suites)


def _sample(run: RunFolder, system: System) -> dict[str, list[Response]]:
    recipe = run.recipe
    suites = run.workload.suites
    return sample_responses(
        label_of(run, system),
        suites,
        {
            suite: scorers_for(prompts[0].expect, recipe.evaluate.judge, recipe.evaluate.judge_thought)
            for suite, prompts in suites.items()
        },
        Sampler(
            model=recipe.model,
            thinking=system.thinking,
            adapter=adapter_of(run, system),
            batch_size=recipe.evaluate.batch_size,
            batch_tokens=recipe.evaluate.batch_tokens,
            max_tokens=recipe.evaluate.max_tokens,
            seed=recipe.evaluate.seed,
            samples=recipe.evaluate.samples,
            sampling=recipe.evaluate.sampling,
            method=system.name if is_prefill(system.name) else None,
        ),
        run.path / "evaluation" / label_of(run, system),
    )


def differences_file(run: RunFolder) -> Path:
    """Where the paired differences lie."""
    return run.path / "evaluation" / "differences.jsonl"


def positions_file(run: RunFolder, system: System) -> Path:
    """Where the decision positions of a system lie; written whole, so that it marks a system that was read."""
    return run.path / "evaluation" / "positions" / f"{label_of(run, system)}.jsonl"


def positions_of(run: RunFolder, system: System) -> list[PositionScore]:
    """Return the decision positions of a system that was read.

    Raises:
        RunError: the file cannot be read, or is not of this system and the run's prompts.
    """
    file, hint = positions_file(run, system), run.hint_to_redo("evaluate")
    positions = read_records(file, PositionScore, hint)
    expected = [] if _has_no_position(run, system) else [(suite, prompt.id) for suite, prompt in _decided(run)]
    found = [(position.suite, position.prompt_id) for position in positions]
    if found != expected or any((position.system, position.seed) != system[:2] for position in positions):
        raise RunError(f"{file} is damaged: {len(found)} positions, not those of the {len(expected)} prompts.", hint)
    return positions


def scores_of_run(run: RunFolder) -> list[Score]:
    """Return the scores of an evaluated run.

    Raises:
        RunError: the file cannot be read; a row is there twice; or its systems, modes and suites are not the run's.
    """
    file, hint = run.path / "evaluation" / "scores.jsonl", run.hint_to_redo("evaluate")
    scores = read_records(file, Score, hint)
    measured = {
        (system.name, system.thinking, suite)
        for system in evaluated_systems(run.recipe)
        for suite in run.recipe.evaluate.suites
    }
    found = {(score.system, score.thinking, score.suite) for score in scores}
    rows = {(score.system, score.thinking, score.suite, score.metric, score.seed) for score in scores}
    if found != measured or len(rows) < len(scores):
        raise RunError(f"{file} is damaged: its rows are not those of the run's systems and suites.", hint)
    return scores


def _decided(run: RunFolder) -> list[tuple[str, Prompt]]:
    """Return the prompts to refuse and to comply with, by suite."""
    suites = {name: prompts for name, prompts in run.workload.suites.items() if prompts[0].expect in DECIDED}
    return [(suite, prompt) for suite, prompts in suites.items() for prompt in prompts]


def _has_no_position(run: RunFolder, system: System) -> bool:
    """Return whether nothing is read before the CoT of a system: its thought is prefilled, or it is served."""
    return is_prefill(system.name) or is_served(run.recipe.model.address)


def _read_positions(run: RunFolder, system: System) -> list[PositionScore]:
    file = positions_file(run, system)
    if file.exists():
        try:
            return positions_of(run, system)
        except RunError as error:
            say_set_aside(file, error.problem, "It is read again.")
    model, adapter = run.recipe.model, adapter_of(run, system)
    if is_prefill(system.name):
        write_jsonl(file, [])
        return []
    if is_served(model.address):
        console.print(f"  {label_of(run, system)}: a server does not show its decision position, so there is no AUROC")
        write_jsonl(file, [])
        return []
    asked = _decided(run)
    folder_of_adapter = adapter.resolve() if adapter else None
    loaded = shared_model(model.address, folder_of_adapter, model.family, model.dtype, model.trust_remote_code)
    folder = system_folder(run, system)
    head = DecisionHead(folder) if adapter and has_head(folder) else None
    method = (
        system.name if system.seed is not None else "sft"
    )  # the model as it came: where the recipe's refusals start
    start = refusal_start(loaded.renderer, run.recipe.align.refusal_target, training_of(method))
    with progress_bar(f"{label_of(run, system)}, before its CoT", len(asked)) as bar:
        found = decision_scores(loaded, [prompt.text for _, prompt in asked], start, head, on_finished=bar.advance)
    positions = [
        PositionScore(
            system=system.name,
            seed=system.seed,
            prompt_id=prompt.id,
            suite=suite,
            expect=prompt.expect,
            refusal_logit=score.refusal_logit,
            head_probability=score.head_probability,
        )
        for (suite, prompt), score in zip(asked, found, strict=True)
    ]
    write_jsonl(file, positions)
    return positions
