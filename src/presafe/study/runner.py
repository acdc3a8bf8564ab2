"""A study, run by run: what is done is not done again, here or on another machine.

    runs/<condition>-seed<k>.json     one run's numbers (`RunResult`), written last; small, to be committed
    study.json study.md figures/      what they say together, written after every run
    work/<condition>-seed<k>/         the run folder; git ignores `work/`, and it may be deleted between two runs
    work/shared/                      what several run folders have in common (`sharing.py`)

A run whose JSON is there is done. One that was cut goes on in its run folder, where that is still there. A run that a
study in a folder beside this one has done, with the same settings and prompts, is taken from there; and where its run
folder is still there and only how the adapter is scaled or sampled differs, its training.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from presafe.alignment.fit import HISTORY
from presafe.config.recipe import parse_recipe
from presafe.errors import PresafeError, RunError
from presafe.evaluation.answers import collect_answers, collect_outcomes
from presafe.records import SuiteShares
from presafe.report.formatting import format_duration
from presafe.runs.folder import check_same_recipe, locked
from presafe.runs.io import read_json, read_record, write_text
from presafe.runs.manifest import made_by
from presafe.runs.ownership import check_ours
from presafe.runtime.progress import heading
from presafe.stages.evaluate import responses_by_suite, scores_of_run
from presafe.stages.operating_point import operating_point
from presafe.stages.run_folder import RunFolder
from presafe.stages.systems import evaluated_systems, history_of, system_folder
from presafe.stages.workload import Workload
from presafe.study.page import write_study
from presafe.study.records import RunResult, StudySummary
from presafe.study.sharing import link_shared, take_training, trained_by
from presafe.study.spec import Study, StudyRun, study_runs
from presafe.study.statistics import (
    condition_scores,
    operating_points,
    paired_differences,
    seed_differences,
    training_costs,
)
from presafe.workflows.run import run_stages


class Standing(NamedTuple):
    """One run of a study, and its result where it is done."""

    run: StudyRun
    result: RunResult | None
    workload: Workload


def standing(study: Study, out: Path) -> list[Standing]:
    """Which runs of a study are done and which are missing, in the order in which they are run; calls no model.

    Raises:
        RecipeError: as `study_runs`.
        PromptError: as `Workload.check`.
        RunError: a result cannot be read, or was made with other settings or prompts.
    """
    workloads: dict[str, Workload] = {}
    found = []
    for run in study_runs(study):
        if run.condition.name not in workloads:  # they do not depend on the seed of a training
            workloads[run.condition.name] = Workload(run.recipe)
        workload = workloads[run.condition.name]
        own = _result_file(out, run)
        find = _result_that_fits if own.exists() else _result_of_a_neighbour
        found.append(Standing(run, find(own, run, workload.sha256), workload))
    return found


def run_study(study: Study, out: Path) -> StudySummary:
    """Do every run that is missing, and write the summary.

    Args:
        study: The study.
        out: Its folder; one that holds results of the same study is continued.

    Raises:
        RecipeError, PromptError, RunError: as `standing`, before the first token.
        PresafeError: as `run_stages`; what is done is kept.
    """
    _check_folder(out)
    with locked(out / "work"):  # which git ignores
        runs = standing(study, out)
        write_text(out / "work" / ".gitignore", "*\n")
        results = [result for _, result, _ in runs if result is not None]
        for number, (run, result, workload) in enumerate(runs, start=1):
            if result is None:
                result = _result_of_a_neighbour(_result_file(out, run), run, workload.sha256)  # done meanwhile
                if result is not None:
                    results.append(result)
            if result is not None:
                heading(f"run {number} of {len(runs)}", f": {run.name}, done before")
                if not _result_file(out, run).exists():  # it is a neighbour's
                    _write_result(out, run, result)
                continue
            heading(f"run {number} of {len(runs)}", f": {run.name}{_time_left(results, len(runs))}")
            folder = out / "work" / run.name
            link_shared(run.recipe, workload, folder, out / "work" / "shared")
            others = sorted(out.resolve().parent.glob("*/work/*-seed*"))
            take_training(run.recipe, workload.sha256, folder, others)
            result = result_of(run, run_stages(run.recipe, folder, "evaluate", workload))
            _write_result(out, run, result)
            results.append(result)
            write_study(summary_of(study, runs, results), out)
        summary = summary_of(study, runs, results)
        write_study(summary, out)
    return summary


def _check_folder(out: Path) -> None:
    """Check that a folder is new, empty, or that of a study.

    Raises:
        RunError: it holds other files.
    """
    if any((out / "work" / name).is_file() for name in (".lock", ".gitignore")):  # the first that is written
        return
    files = [out / "study.json", *sorted((out / "runs").glob("*.json"))]
    for file in filter(Path.exists, files):  # without `work/`, which git ignores
        if not {"condition", "conditions"} & read_json(file).keys():
            raise RunError(f"{file} is no file of a study.", "Choose another folder with `out`.")
    if not any(map(Path.exists, files)):
        check_ours(out, "study.json")


def result_of(run: StudyRun, folder: RunFolder) -> RunResult:
    """What is kept of an evaluated run."""
    manifest, timings = folder.manifest(), folder.timings()
    own = [system for system in evaluated_systems(folder.recipe) if system.name == run.condition.system]
    history = system_folder(folder, own[0]) / HISTORY  # one system with one seed, in one mode or both
    steps = history_of(folder, own[0]) if history.exists() else []
    maker = trained_by(history.parent)
    shares = []
    for system in own:
        settings = folder.recipe.evaluate
        said = collect_answers(
            folder.workload.suites,
            responses_by_suite(folder, system),
            settings.judge,
            settings.judge_thought,
        )
        for suite, (kind, of) in collect_outcomes(system.name, system.thinking, [said]).suites.items():
            by_prompt = {name: share for name, (share,) in of.items()}
            shares.append(SuiteShares(thinking=system.thinking, suite=suite, kind=kind, shares=by_prompt))
    return RunResult(
        condition=run.condition.name,
        system=run.condition.system,
        seed=run.seed,
        recipe=folder.recipe.model_dump(mode="json"),
        recipe_sha256=manifest["recipe_sha256"],
        prompts_sha256=manifest["prompts_sha256"],
        made_by=made_by(manifest),
        timings_s=timings,
        training_s=(maker.training_s if maker else timings.get("align")) if steps else None,
        trained_tokens=sum(point.num_tokens or 0 for point in steps) if steps else None,
        scores=tuple(scores_of_run(folder)),
        answered=tuple(shares),
        operating_point=operating_point(folder, own[0]),
        trained_by=maker,
    )


def summary_of(study: Study, runs: Sequence[Standing], results: Sequence[RunResult]) -> StudySummary:
    """What the results say together, in the order of the study's conditions."""
    names = [condition.name for condition in study.condition]
    done = {(result.condition, result.seed) for result in results}
    ordered = sorted(results, key=lambda result: (names.index(result.condition), result.seed))
    is_done = {run.name: (run.condition.name, run.seed) in done for run, _, _ in runs}
    return StudySummary(
        name=study.name,
        recipe=study.recipe,
        baseline=study.baseline,
        conditions=tuple(names),
        done=tuple(name for name, there in is_done.items() if there),
        missing=tuple(name for name, there in is_done.items() if not there),
        scores=tuple(condition_scores(ordered)) if ordered else (),
        differences=tuple(paired_differences(ordered, study.baseline)),
        seed_differences=tuple(seed_differences(ordered, study.baseline)),
        costs=tuple(training_costs(ordered)),
        operating_points=tuple(operating_points(ordered)),
    )


def _time_left(results: Sequence[RunResult], total: int) -> str:
    """From the runs that are done; their median, because the first also makes what the others share."""
    if not results:
        return ""
    each = statistics.median(sum(result.timings_s.values()) for result in results)
    return f"; about {format_duration(each * (total - len(results)))} left for the whole study"


def _result_file(out: Path, run: StudyRun) -> Path:
    return out / "runs" / f"{run.name}.json"


def _write_result(out: Path, run: StudyRun, result: RunResult) -> None:
    write_text(_result_file(out, run), result.model_dump_json(indent=1) + "\n")


def _result_that_fits(path: Path, run: StudyRun, prompts_sha256: str) -> RunResult:
    """A result, checked to be that of a run.

    Raises:
        RunError: it cannot be read, or was made with other settings or prompts.
    """
    result = _read_result(path)
    check_same_recipe(path, parse_recipe(result.recipe, str(path)), run.recipe)
    if result.prompts_sha256 != prompts_sha256:
        raise RunError(
            f"{path} was made with other prompts: a file of them, or presafe's own, changed since.",
            "Choose another folder with `out`, or delete that file to do the run again.",
        )
    return result


def _result_of_a_neighbour(own: Path, run: StudyRun, prompts_sha256: str) -> RunResult | None:
    """That of the same run in a study beside this one; None where none has done it."""
    for path in sorted(own.resolve().parents[2].glob(f"*/runs/{own.name}")):
        try:
            return _result_that_fits(path, run, prompts_sha256)
        except PresafeError:  # another run of that name
            continue
    return None


def _read_result(path: Path) -> RunResult:
    return read_record(path, RunResult, hint="Delete it to do the run again.")
