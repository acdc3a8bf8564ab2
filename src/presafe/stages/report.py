"""Stage 5: gather what the other stages wrote into one page, `results.json` and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from presafe.errors import RunError
from presafe.evaluation.metrics import score_row
from presafe.evaluation.places import count_places
from presafe.internals.views import views_of
from presafe.records import (
    Difference,
    Prompt,
    RefusalPlaces,
    Response,
    Score,
)
from presafe.report.data import Example, ReportData
from presafe.report.page import write_report
from presafe.runs.folder import read_records
from presafe.runs.io import read_record
from presafe.signals.calibration import ClassifierCard
from presafe.stages.evaluate import differences_file, positions_of, responses_by_suite, scores_of_run
from presafe.stages.operating_point import operating_point
from presafe.stages.run_folder import RunFolder
from presafe.stages.systems import DECIDED, System, evaluated_systems, history_of

_EXAMPLES = 5
"""Prompts shown of each suite."""


def report(run: RunFolder) -> None:
    """Write `report/`."""
    write_report(report_data(run), run.path / "report")


def check_evaluated(run: RunFolder) -> None:
    """Fail where there is nothing to report.

    Raises:
        RunError: the run is not evaluated yet, or by a presafe that wrote less.
    """
    missing = [stage for stage in run.not_done() if stage != "report"]
    if "evaluate" in missing:
        raise RunError(f"{run.path} is not evaluated yet.", "Continue it with `presafe run`.")
    if missing:
        raise RunError(f"{run.path} is evaluated, but not done with {missing[0]}.", "Continue it with `presafe run`.")
    if not differences_file(run).exists():
        raise RunError(
            f"{run.path} was evaluated by an older presafe.",
            f"Delete {run.path / 'stages' / 'evaluate'} and continue with `presafe run`: its answers are kept.",
        )


def report_data(run: RunFolder) -> ReportData:
    """All that the report shows.

    Raises:
        RunError: the run is not evaluated yet, or a file of it is damaged.
    """
    check_evaluated(run)
    first = run.recipe.align.seeds[0]
    card = read_record(run.path / "signals" / "classifier.json", ClassifierCard, hint=run.hint_to_redo("signal"))
    shown = [system for system in evaluated_systems(run.recipe) if system.seed in (None, first)]
    positions = [position for system in shown if system.thinking == "on" for position in positions_of(run, system)]
    suites = run.workload.suites
    said = {system: responses_by_suite(run, system) for system in shown}
    return ReportData(
        title=run.recipe.name,
        recipe=run.recipe.model_dump(mode="json"),
        manifest=run.manifest(),
        timings_s=dict(run.timings()),
        scores=(*scores_of_run(run), *_classifier_scores(card)),
        differences=tuple(read_records(differences_file(run), Difference, run.hint_to_redo("evaluate"))),
        classifier=card,
        histories={system.name: tuple(history_of(run, system)) for system in shown if system.seed is not None},
        positions=tuple(positions),
        examples=tuple(_examples(suites, said)),
        places=tuple(_places(suites, said)),
        inside=tuple(views_of(run.path)),
        operating_points={system.name: point for system in shown if (point := operating_point(run, system))},
    )


def _classifier_scores(card: ClassifierCard) -> list[Score]:
    measured = {
        "classifier_held_out": card.held_out,
        "classifier_traces": card.traces,
    }
    return [
        score_row(
            interval,
            system="classifier",
            thinking="off" if suite == "classifier_held_out" else "on",
            suite=suite,
            metric="classifier_accuracy",
            seed=None,
            judge="refusal_strings",
        )
        for suite, interval in measured.items()
    ]


def _places(
    suites: Mapping[str, Sequence[Prompt]], said: Mapping[System, Mapping[str, list[Response]]]
) -> list[RefusalPlaces]:
    """Where the answers to prompts to refuse and to comply with refuse, CoT on."""
    return [
        RefusalPlaces(system=system.name, suite=suite, expect=prompts[0].expect, counts=count_places(responses[suite]))
        for system, responses in said.items()
        for suite, prompts in suites.items()
        if system.thinking == "on" and prompts[0].expect in DECIDED
    ]


def _examples(
    suites: Mapping[str, Sequence[Prompt]], said: Mapping[System, Mapping[str, list[Response]]]
) -> list[Example]:
    """The first prompts of each suite, from every system."""
    examples = []
    for system, responses in said.items():
        for suite, prompts in suites.items():
            first = [response for response in responses[suite] if response.sample == 1]
            for prompt, response in list(zip(prompts, first, strict=True))[:_EXAMPLES]:
                examples.append(
                    Example(
                        system=system.name,
                        thinking=system.thinking,
                        suite=suite,
                        prompt_id=prompt.id,
                        expect=prompt.expect,
                        text=prompt.text,
                        thought=response.thought,
                        answer=response.answer,
                        verdict=response.verdict,
                        offensive=prompt.expect == "refuse",
                        thought_verdict=response.thought_verdict,
                    )
                )
    return examples
