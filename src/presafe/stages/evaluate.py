"""Stage 4: sample and score every system on held-out prompts.

The model as it came is measured with CoT on and off, prefilled thoughts with CoT on, and every aligned system with CoT
on or in the modes that the recipe names.

evaluation/<system>-<thinking>/*.eval   the answers
evaluation/scores.jsonl                 rates with intervals
evaluation/differences.jsonl            PreSafe against every other system, and the modes of each, paired by prompt
evaluation/positions/<system>.jsonl     decision scores of every plain prompt to refuse or to comply with, CoT on; empty
                                        behind a defense, for a prefilled thought, whose decision position is that of
                                        the model as it came, and for a served model whose server does not state them
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from presafe.alignment.rows import refusal_start
from presafe.config.engine import is_served
from presafe.errors import ModelError, RunError
from presafe.evaluation.answers import Answers, collect_answers, collect_outcomes, score_answers
from presafe.evaluation.attacked import attacks_decision, suites_in_mode
from presafe.evaluation.differences import SystemOutcomes, mode_pairs, paired_differences
from presafe.evaluation.disputes import dispute_scores
from presafe.evaluation.guard import guarded
from presafe.evaluation.metrics import mean_over_seeds
from presafe.evaluation.positions import position_scores
from presafe.internals.decision import decision_scores
from presafe.judges.scorers import scorers_for
from presafe.judges.spec import models_here
from presafe.methods.registry import is_prefill, training_of
from presafe.models.address import served_model
from presafe.models.decision_head import DecisionHead, DecisionReading, has_head
from presafe.models.exchange import UnreachableError
from presafe.models.loading import load_renderer, shared_model
from presafe.models.rendering import Renderer
from presafe.models.sampling import Sampler, keep_answers, load_responses, sample_responses
from presafe.models.served_decision import served_decisions
from presafe.records import Difference, PositionScore, Prompt, Response, Score, Thinking
from presafe.runs.folder import read_records, set_aside_damaged
from presafe.runs.io import write_jsonl
from presafe.runtime.memory import free_memory
from presafe.runtime.progress import console, progress_bar
from presafe.stages.run_folder import RunFolder
from presafe.stages.systems import DECIDED, System, adapter_of, evaluated_systems, label_of, system_folder


def evaluate(run: RunFolder) -> None:
    """Sample and score every system, and compare them.

    Args:
        run: The run; its stage align is done.

    Raises:
        RunError: a file of the run cannot be written.
        ModelError: a model cannot be loaded, or a server does not answer.
    """
    suites, settings = run.workload.suites, run.recipe.evaluate
    scores: list[Score] = []
    answers: dict[tuple[str, Thinking], dict[int | None, dict[str, Answers]]] = {}
    if run.place is not None:  # all of it first: a server may hold the memory that the positions need
        for system in evaluated_systems(run.recipe):
            _keep_answers(run, system)
        for system in evaluated_systems(run.recipe):
            _sample(run, system)
        run.place.close()
    for system in evaluated_systems(run.recipe):
        asked = suites_in_mode(suites, system.thinking)
        of_seed = collect_answers(asked, _sample(run, system), settings.judge, settings.judge_thought)
        answers.setdefault((system.name, system.thinking), {})[system.seed] = of_seed
        scores += score_answers(of_seed, system=system.name, thinking=system.thinking, seed=system.seed)
        if system.thinking == "on":
            scores += position_scores(_read_positions(run, system))
        free_memory()
    if run.recipe.respond.teacher is None:  # another model as teacher is not asked about the suites
        (teacher,) = answers["vanilla", "off"].values()
        for (name, thinking), by_seed in answers.items():
            if (name, thinking) != ("vanilla", "off"):
                plain = {
                    seed: {suite: of_seed[suite] for suite in settings.suites} for seed, of_seed in by_seed.items()
                }
                scores += dispute_scores(plain, teacher, system=name, thinking=thinking)
    systems = [
        collect_outcomes(name, thinking, list(by_seed.values())) for (name, thinking), by_seed in answers.items()
    ]
    write_jsonl(differences_file(run), _differences(systems))
    write_jsonl(run.path / "evaluation" / "scores.jsonl", [*scores, *mean_over_seeds(scores)])


def _differences(systems: Sequence[SystemOutcomes]) -> list[Difference]:
    """Compare the two modes of each system, and PreSafe with every other system in its mode.

    PreSafe with CoT on is also compared with the model as it came with CoT off, the teacher.
    """
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
    """Return the responses of a system, by suite.

    Args:
        run: The run.
        system: One of its evaluated systems.

    Raises:
        RunError: the stage has not finished.
    """
    folder = run.path / "evaluation" / label_of(run, system)
    return load_responses(folder, system.thinking, suites_in_mode(run.workload.suites, system.thinking))


def _sample(run: RunFolder, system: System) -> dict[str, list[Response]]:
    """Sample a system on every suite; answers that are there already are read."""
    settings, suites = run.recipe.evaluate, suites_in_mode(run.workload.suites, system.thinking)
    return sample_responses(
        label_of(run, system),
        suites,
        {
            suite: scorers_for(prompts[0].expect, settings.judge, settings.judge_thought)
            for suite, prompts in suites.items()
        },
        _sampler(run, system),
        run.path / "evaluation" / label_of(run, system),
        solver=guarded(settings.seed, system.defense) if settings.attacks or settings.defenses else None,
    )


def _keep_answers(run: RunFolder, system: System) -> None:
    """Sample a system and keep its answers, if a judge must wait until all systems are sampled."""
    if not (run.recipe.evaluate.attacks or run.recipe.evaluate.defenses):
        suites, label = suites_in_mode(run.workload.suites, system.thinking), label_of(run, system)
        keep_answers(label, suites, _sampler(run, system), run.path / "evaluation" / label)


def _sampler(run: RunFolder, system: System) -> Sampler:
    """Return a system, and how it is sampled."""
    settings = run.recipe.evaluate
    return Sampler(
        model=run.recipe.model,
        thinking=system.thinking,
        adapter=adapter_of(run, system),
        batch_size=settings.batch_size,
        batch_tokens=settings.batch_tokens,
        max_tokens=settings.max_tokens,
        seed=settings.seed,
        samples=settings.samples,
        sampling=settings.sampling,
        method=system.method if is_prefill(system.method) else None,
        decision=_searched_decision(run, system),
        place=run.place,
        judges=models_here(settings.judge, settings.judge_thought),
    )


def differences_file(run: RunFolder) -> Path:
    """Return the path of the paired differences."""
    return run.path / "evaluation" / "differences.jsonl"


def positions_file(run: RunFolder, system: System) -> Path:
    """Return the path of a system's decision scores; the file is written at once, so it marks a finished system."""
    return run.path / "evaluation" / "positions" / f"{label_of(run, system)}.jsonl"


def positions_of(run: RunFolder, system: System) -> list[PositionScore]:
    """Return the decision scores of a system from its file.

    Args:
        run: The run.
        system: A system that was evaluated with CoT on.

    Raises:
        RunError: the file cannot be read, or is not of this system and the run's prompts.
    """
    file, hint = positions_file(run, system), run.hint_to_redo("evaluate")
    positions = read_records(file, PositionScore, hint)
    expected = [] if _has_no_position(system) else [(suite, prompt.id) for suite, prompt in _decided(run)]
    stored = [(position.suite, position.prompt_id) for position in positions]
    if not stored and is_served(run.recipe.model.address):  # the server did not state them
        return []
    of_others = [position for position in positions if (position.system, position.seed) != (system.name, system.seed)]
    if stored != expected or of_others:
        raise RunError(f"{file} is damaged: {len(stored)} positions, not those of the {len(expected)} prompts.", hint)
    return positions


def scores_of_run(run: RunFolder) -> list[Score]:
    """Return the scores of an evaluated run.

    Args:
        run: The run.

    Raises:
        RunError: the file cannot be read; a row is there twice; or its systems, modes and suites are not the run's.
    """
    file, hint = run.path / "evaluation" / "scores.jsonl", run.hint_to_redo("evaluate")
    scores = read_records(file, Score, hint)
    measured = {
        (system.name, system.thinking, suite)
        for system in evaluated_systems(run.recipe)
        for suite in suites_in_mode(run.workload.suites, system.thinking)
    }
    scored = {(score.system, score.thinking, score.suite) for score in scores}
    rows = {(score.system, score.thinking, score.suite, score.metric, score.seed) for score in scores}
    if scored != measured or len(rows) < len(scores):
        raise RunError(f"{file} is damaged: its rows are not those of the run's systems and suites.", hint)
    return scores


def _decided(run: RunFolder) -> list[tuple[str, Prompt]]:
    """Return the plain prompts to refuse and to comply with, by suite.

    Prompts under attack are left out: metrics of the position rank all harmful prompts together.
    """
    suites = {
        name: prompts
        for name, prompts in run.workload.suites.items()
        if prompts[0].expect in DECIDED and prompts[0].attacked is None
    }
    return [(suite, prompt) for suite, prompts in suites.items() for prompt in prompts]


def _has_no_position(system: System) -> bool:
    """Return whether a system has no decision scores: its thought is prefilled, or it is defended."""
    return is_prefill(system.method) or system.defense is not None


def _read_positions(run: RunFolder, system: System) -> list[PositionScore]:
    """Return the decision scores of a system; compute and write them if they are missing or damaged."""
    file = positions_file(run, system)
    if file.exists():
        try:
            return positions_of(run, system)
        except RunError as error:
            set_aside_damaged(file, error.problem, "It is read again.")
    compute = _ask_positions if is_served(run.recipe.model.address) else _compute_positions
    positions = [] if _has_no_position(system) else compute(run, system)
    write_jsonl(file, positions)
    return positions


def _ask_positions(run: RunFolder, system: System) -> list[PositionScore]:
    """Ask a served model how likely the start of a refusal is; an empty list if its server does not state it.

    Raises:
        UnreachableError: the server does not answer.
    """
    model, prompts = run.recipe.model, _decided(run)
    served = served_model(model.address)
    if served is None or not prompts:
        return []
    renderer = load_renderer(model.address, model.family, model.tokenizer, trust_remote_code=model.trust_remote_code)
    start = refusal_start(renderer, run.recipe.align.refusal_target, training_of("sft"))
    texts = [prompt.text for _, prompt in prompts]
    label = label_of(run, system)
    try:
        with progress_bar(f"{label}, before its CoT", len(prompts)) as bar:
            decisions = served_decisions(served, renderer, texts, start, ways=("odds",), on_finished=bar.advance)
    except UnreachableError:
        raise
    except ModelError as error:
        console.print(f"  {label}: a server does not show its decision position, so there is no AUROC")
        console.print(f"  {error.problem}", soft_wrap=True)
        return []
    return _position_scores(system, prompts, [(decision.logit, None) for decision in decisions])


def _compute_positions(run: RunFolder, system: System) -> list[PositionScore]:
    """Compute the decision scores of a system with CoT on."""
    model, adapter, prompts = run.recipe.model, adapter_of(run, system), _decided(run)
    adapter_folder = adapter.resolve() if adapter else None
    loaded = shared_model(model.address, adapter_folder, model.family, model.dtype, model.trust_remote_code)
    start, head = _reading(run, system, loaded.renderer)
    with progress_bar(f"{label_of(run, system)}, before its CoT", len(prompts)) as bar:
        scores = decision_scores(loaded, [prompt.text for _, prompt in prompts], start, head, on_finished=bar.advance)
    return _position_scores(system, prompts, [(score.refusal_logit, score.head_probability) for score in scores])


def _position_scores(
    system: System, prompts: Sequence[tuple[str, Prompt]], read: Sequence[tuple[float, float | None]]
) -> list[PositionScore]:
    """Return the records of what was read before the CoT of each prompt: log-odds of a refusal, p of the head."""
    return [
        PositionScore(
            system=system.name,
            seed=system.seed,
            prompt_id=prompt.id,
            suite=suite,
            expect=prompt.expect,
            refusal_logit=logit,
            head_probability=head_probability,
        )
        for (suite, prompt), (logit, head_probability) in zip(prompts, read, strict=True)
    ]


def _reading(run: RunFolder, system: System, renderer: Renderer) -> DecisionReading:
    """Return how a system's decision before the CoT is read."""
    folder = system_folder(run, system)
    # of the model as it came, the first token of the recipe's refusals is read, as SFT only learns them
    method = "sft" if system.seed is None else system.method
    start = refusal_start(renderer, run.recipe.align.refusal_target, training_of(method))
    return DecisionReading(start, DecisionHead(folder) if system.seed is not None and has_head(folder) else None)


def _searched_decision(run: RunFolder, system: System) -> DecisionReading | None:
    """Return how the decision is read by searches that attack it; None if there is none."""
    model = run.recipe.model
    if not attacks_decision(run.recipe.evaluate.attacks):
        return None
    renderer = load_renderer(model.address, model.family, trust_remote_code=model.trust_remote_code)
    return _reading(run, system, renderer)
