"""Run a study, one run after another; a run that is done is never repeated, also not on another machine.

    runs/<condition>-seed<k>.json     the numbers of one run (`RunResult`), written last; small, to be committed
    study.json study.md figures/      the summary of all runs, written after every run
    work/<condition>-seed<k>/         the run folder; git ignores `work/`, and it may be deleted between two runs
    work/shared/                      files that several run folders have in common (`sharing.py`)

A run is done once its JSON exists; an interrupted run resumes from its folder if that still exists. A run that a
neighboring study (a folder beside this one) has done with the same settings and prompts is copied from there. If the
neighbor still has the run folder, and only the adapter's scale or the sampling differs, its training is copied.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from presafe.alignment.fit import HISTORY
from presafe.config.engine import EngineSettings
from presafe.config.stored import parse_stored_recipe
from presafe.errors import PreSafeError, RunError
from presafe.evaluation.answers import collect_answers, collect_outcomes
from presafe.evaluation.attacked import measured_suites, suites_in_mode
from presafe.records import SuiteShares
from presafe.report.formatting import format_duration
from presafe.runs.folder import check_same_recipe, locked
from presafe.runs.io import read_json, read_record, write_text
from presafe.runs.manifest import made_by
from presafe.runs.ownership import check_ownership
from presafe.runtime.progress import heading
from presafe.stages.evaluate import positions_of, responses_by_suite, scores_of_run
from presafe.stages.operating_point import operating_point
from presafe.stages.run_folder import RunFolder
from presafe.stages.systems import System, evaluated_systems, head_fit_of, history_of, system_folder
from presafe.stages.workload import Workload
from presafe.study.page import write_study
from presafe.study.records import RunResult, StudyHeadFit, StudySummary, settings_without_defaults
from presafe.study.sharing import link_shared, take_training, trained_by
from presafe.study.spec import Study, StudyRun, study_runs
from presafe.study.statistics import (
    check_endpoints,
    condition_scores,
    endpoint_results,
    metric_differences,
    operating_points,
    paired_differences,
    training_costs,
)
from presafe.workflows.run import run_stages

_DECLARATIONS = (".toml", ".csv", ".tsv", ".jsonl", ".gz")
"""Suffixes of the files that a study is declared with; they may stand in its folder."""


class RunStatus(NamedTuple):
    """One run of a study, its prompts, and its result if it is done."""

    run: StudyRun
    result: RunResult | None
    workload: Workload


def study_status(study: Study, out: Path) -> list[RunStatus]:
    """Return which runs of a study are done and which are missing, in the order in which they run; call no model.

    Args:
        study: The study.
        out: Its folder.

    Raises:
        RecipeError: as `study_runs` and `check_endpoints`.
        PromptError: as `Workload.check`.
        RunError: a result cannot be read, or was made with other settings or prompts.
    """
    runs = study_runs(study)
    measured = runs[0].recipe.evaluate
    check_endpoints(study.endpoint, measured_suites(measured.suites, measured.attacks))
    workloads: dict[tuple[str, int], Workload] = {}
    statuses = []
    for run in runs:
        key = run.condition.name, run.recipe.respond.seed  # the prompts do not depend on the seed of a training
        if key not in workloads:
            workloads[key] = Workload(run.recipe)
        workload = workloads[key]
        file = _result_file(out, run)
        read = _read_matching_result if file.exists() else _read_neighbor_result
        statuses.append(RunStatus(run, read(file, run, workload.sha256), workload))
    return statuses


def run_study(study: Study, out: Path, engine: EngineSettings | None = None) -> StudySummary:
    """Do every missing run, and write the summary.

    Args:
        study: The study.
        out: Its folder; one that holds results of the same study is resumed.
        engine: Where its runs sample, if not as their recipes say.

    Raises:
        RecipeError, PromptError, RunError: as `study_status`, before the first token.
        PreSafeError: as `run_stages`; finished runs are kept.
    """
    _check_folder(out)
    with locked(out / "work"):  # which git ignores
        statuses = study_status(study, out)
        write_text(out / "work" / ".gitignore", "*\n")
        runs = [status.run for status in statuses]
        results = [status.result for status in statuses if status.result is not None]
        for number, status in enumerate(statuses, start=1):
            run, file = status.run, _result_file(out, status.run)
            # a neighboring study may have finished it meanwhile
            result = status.result or _read_neighbor_result(file, run, status.workload.sha256)
            title = f"run {number} of {len(statuses)}"
            if result is None:
                heading(title, f": {run.name}{_time_left(results, len(statuses))}")
                result = _do_run(status, out, engine)
                _write_result(file, result)
                results.append(result)
                write_study(summary_of(study, runs, results), out)
            else:
                heading(title, f": {run.name}, done before")
                if status.result is None:
                    results.append(result)
                if not file.exists():  # a neighbor's result
                    _write_result(file, result)
        summary = summary_of(study, runs, results)
        write_study(summary, out)
    return summary


def _do_run(status: RunStatus, out: Path, engine: EngineSettings | None) -> RunResult:
    """Do one run in its folder, with what other runs can share, and return its result."""
    run, folder = status.run, out / "work" / status.run.name
    link_shared(run.recipe, status.workload, folder, out / "work" / "shared")
    neighbors = sorted(out.resolve().parent.glob("*/work/*-seed*"))
    take_training(run.recipe, status.workload.sha256, folder, neighbors)
    recipe = run.recipe.model_copy(update={"engine": engine}) if engine else run.recipe
    return result_of(run, run_stages(recipe, folder, "evaluate", status.workload))


def _check_folder(out: Path) -> None:
    """Check that a folder is new, empty, or that of a study.

    Raises:
        RunError: it holds other files.
    """
    if any((out / "work" / name).is_file() for name in (".lock", ".gitignore")):  # the first files of a study
        return
    files = [out / "study.json", *sorted((out / "runs").glob("*.json"))]
    for file in filter(Path.exists, files):  # without `work/`, which git ignores
        if not {"condition", "conditions"} & read_json(file).keys():
            raise RunError(f"{file} is not a file of a study.", "Choose another folder with `out`.")
    if not any(map(Path.exists, files)):
        check_ownership(out, "study.json", _DECLARATIONS)


def result_of(run: StudyRun, folder: RunFolder) -> RunResult:
    """Return the numbers that are kept of an evaluated run.

    Args:
        run: The run.
        folder: Its folder, with the stage evaluate done.

    Raises:
        RunError: a file of the folder is damaged.
    """
    manifest, timings = folder.manifest(), folder.timings()
    systems = [system for system in evaluated_systems(folder.recipe) if system.name == run.condition.system]
    system = systems[0]  # the others are the same training in another CoT mode
    history = system_folder(folder, system) / HISTORY
    steps = history_of(folder, system) if history.exists() else []
    maker = trained_by(history.parent)
    return RunResult(
        condition=run.condition.name,
        system=run.condition.system,
        seed=run.seed,
        recipe=settings_without_defaults(folder.recipe),
        recipe_sha256=manifest["recipe_sha256"],
        prompts_sha256=manifest["prompts_sha256"],
        made_by=made_by(manifest),
        timings_s=timings,
        training_s=(maker.training_s if maker else timings.get("align")) if steps else None,
        trained_tokens=sum(point.num_tokens or 0 for point in steps) if steps else None,
        scores=tuple(scores_of_run(folder)),
        positions=tuple(
            position for mode in systems if mode.thinking == "on" for position in positions_of(folder, mode)
        ),
        answered=tuple(shares for mode in systems for shares in _shares(folder, mode)),
        operating_point=operating_point(folder, system),
        head_fit=head_fit_of(folder, system),
        trained_by=maker,
    )


def _shares(folder: RunFolder, system: System) -> list[SuiteShares]:
    """Return each prompt's share of answers that count, by suite, in one CoT mode."""
    settings = folder.recipe.evaluate
    responses = responses_by_suite(folder, system)
    answers = collect_answers(
        suites_in_mode(folder.workload.suites, system.thinking), responses, settings.judge, settings.judge_thought
    )
    outcomes = collect_outcomes(system.name, system.thinking, [answers])
    return [
        SuiteShares(
            thinking=system.thinking,
            suite=suite,
            kind=kind,
            shares={prompt_id: share for prompt_id, (share,) in shares.items()},
        )
        for suite, (kind, shares) in outcomes.suites.items()
    ]


def summary_of(study: Study, runs: Sequence[StudyRun], results: Sequence[RunResult]) -> StudySummary:
    """Return the summary of the results, in the order of the study's conditions.

    Args:
        study: The study.
        runs: All of its runs.
        results: Results of the runs that are done.
    """
    names = [condition.name for condition in study.condition]
    done = {(result.condition, result.seed) for result in results}
    ordered = sorted(results, key=lambda result: (names.index(result.condition), result.seed))
    differences = tuple(metric_differences(ordered, study.baseline))
    unfitted = {result.condition for result in ordered if result.head_fit and result.head_fit.is_fitted is False}
    return StudySummary(
        name=study.name,
        recipe=study.recipe,
        baseline=study.baseline,
        conditions=tuple(names),
        done=tuple(run.name for run in runs if (run.condition.name, run.seed) in done),
        missing=tuple(run.name for run in runs if (run.condition.name, run.seed) not in done),
        scores=tuple(condition_scores(ordered)) if ordered else (),
        endpoints=tuple(endpoint_results(study.endpoint, differences, unfitted)),
        declares_endpoints=bool(study.endpoint),
        differences=tuple(paired_differences(ordered, study.baseline)),
        metric_differences=differences,
        costs=tuple(training_costs(ordered)),
        operating_points=tuple(operating_points(ordered)),
        head_fits=tuple(
            StudyHeadFit(**result.head_fit.model_dump(), condition=result.condition, seed=result.seed)
            for result in ordered
            if result.head_fit
        ),
    )


def _time_left(results: Sequence[RunResult], total: int) -> str:
    """Return an estimate from the median of the finished runs; the first run also makes what the others share."""
    if not results:
        return ""
    run_s = statistics.median(sum(result.timings_s.values()) for result in results)
    return f"; about {format_duration(run_s * (total - len(results)))} left for the whole study"


def _result_file(out: Path, run: StudyRun) -> Path:
    """Return the path of a run's result."""
    return out / "runs" / f"{run.name}.json"


def _write_result(file: Path, result: RunResult) -> None:
    """Write the result of a run."""
    write_text(file, result.model_dump_json(indent=1) + "\n")


def _read_matching_result(file: Path, run: StudyRun, prompts_sha256: str) -> RunResult:
    """Read a result, and check that it is that of a run.

    Raises:
        RunError: it cannot be read, or was made with other settings or prompts.
    """
    result = read_record(file, RunResult, hint="Delete it to do the run again.")
    check_same_recipe(file, parse_stored_recipe(result.recipe, str(file)), run.recipe)
    if result.prompts_sha256 != prompts_sha256:
        raise RunError(
            f"{file} was made with other prompts: a file of prompts, or presafe's own prompts, changed since.",
            "Choose another folder with `out`, or delete that file to do the run again.",
        )
    return result


def _read_neighbor_result(file: Path, run: StudyRun, prompts_sha256: str) -> RunResult | None:
    """Return the result of the same run in a neighboring study; None if none has done it."""
    for neighbor in sorted(file.resolve().parents[2].glob(f"*/runs/{file.name}")):
        try:
            return _read_matching_result(neighbor, run, prompts_sha256)
        except PreSafeError:  # another run of that name
            continue
    return None
