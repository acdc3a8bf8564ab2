"""Stage 5: write one page, `results.json` and figures from the files of the other stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from presafe.errors import RunError
from presafe.evaluation.answers import collect_answers
from presafe.evaluation.attacked import suites_in_mode
from presafe.evaluation.metrics import score_row
from presafe.evaluation.panels import panel_scores
from presafe.evaluation.places import count_places
from presafe.evaluation.thoughts import thought_bins
from presafe.internals.views import views_of
from presafe.records import Difference, Prompt, RefusalPlaces, Response, Score, ThoughtBin
from presafe.report.data import Example, ReportData
from presafe.report.page import write_report
from presafe.runs.folder import read_records
from presafe.runs.io import read_json, read_record
from presafe.runs.ownership import COMPARISON
from presafe.signals.calibration import ClassifierCard
from presafe.stages.cards import write_cards
from presafe.stages.evaluate import differences_file, positions_of, responses_by_suite, scores_of_run
from presafe.stages.operating_point import operating_point
from presafe.stages.run_folder import RunFolder
from presafe.stages.systems import DECIDED, System, evaluated_systems, head_fit_of, history_of

_EXAMPLES = 5
"""Prompts shown per suite."""
_AGAINST = "against-"
"""Beginning of the names of folders with comparisons, beside the page."""


def report(run: RunFolder, *, png: bool = False) -> None:
    """Write the folder `report` of an evaluated run, and the model cards of its adapters.

    Args:
        run: The run.
        png: Whether to write the figures as PNG, too.

    Raises:
        RunError: as `report_data`, or the folder cannot be written.
    """
    data = report_data(run)
    write_report(data, run.path / "report", png=png)
    write_cards(run, data)


def comparison_folder(run: RunFolder, other: Path) -> Path:
    """Return where a run's comparison with another folder lies: its page links to those that are there.

    It is named by the last part of the other's path; by more parts, where that one is taken by another folder.

    Args:
        run: The run.
        other: The folder of a run or a measurement.
    """
    path = other.resolve()
    for count in range(1, len(path.parts)):
        folder = run.path / "report" / (_AGAINST + "-".join(path.parts[-count:]))
        if not (folder / COMPARISON).exists() or _compared(folder) == path:
            break
    return folder


def _compared(folder: Path) -> Path | None:
    """Return the folder that the run is compared with in a folder of a comparison; None if its settings name none."""
    folders = read_json(folder / COMPARISON).get("folders")
    return Path(str(folders[-1])).resolve() if isinstance(folders, list) and folders else None


def need_report(run: RunFolder) -> None:
    """Check that the report of a finished run is there and has the run's rows.

    Args:
        run: A run whose stages are all done.

    Raises:
        RunError: the page or `results.json` is missing or damaged, or the rows are not those of the run.
    """
    folder = run.path / "report"
    if not (folder / "report.html").is_file():
        raise RunError(f"{folder / 'report.html'} is missing.")
    scores = [score.model_dump(mode="json") for score in (*scores_of_run(run), *_classifier_scores(_card_of(run)))]
    if read_json(folder / "results.json").get("rows") != scores:
        raise RunError(f"the rows of {folder / 'results.json'} are not those of the run.")


def check_evaluated(run: RunFolder) -> None:
    """Check that there is something to report.

    Args:
        run: The run.

    Raises:
        RunError: the run is not evaluated yet, or was evaluated by a presafe that wrote fewer files.
    """
    missing = [stage for stage in run.not_done() if stage != "report"]
    if "evaluate" in missing:
        raise RunError(f"{run.path} is not evaluated yet.", "Resume it with `presafe run`.")
    if missing:
        raise RunError(
            f"{run.path} is evaluated, but its stage {missing[0]} is not done.", "Resume it with `presafe run`."
        )
    if not differences_file(run).exists():
        raise RunError(
            f"{run.path} was evaluated by an older presafe.",
            f"Delete {run.path / 'stages' / 'evaluate'} and resume with `presafe run`: its answers are kept.",
        )


def report_data(run: RunFolder) -> ReportData:
    """Return the contents of the report.

    Args:
        run: An evaluated run.

    Raises:
        RunError: the run is not evaluated yet, or a file of it is damaged.
    """
    check_evaluated(run)
    first = run.recipe.align.seeds[0]
    card = _card_of(run)
    shown = [system for system in evaluated_systems(run.recipe) if system.seed in (None, first)]
    trained = [system for system in shown if system.seed is not None and system.defense is None]
    positions = [position for system in shown if system.thinking == "on" for position in positions_of(run, system)]
    suites = run.workload.suites
    responses = {system: responses_by_suite(run, system) for system in shown}
    return ReportData(
        title=run.recipe.name,
        recipe=run.recipe.model_dump(mode="json"),
        manifest=run.manifest(),
        timings_s=dict(run.timings()),
        scores=(*scores_of_run(run), *_classifier_scores(card)),
        panel=tuple(_panel(run, responses)),
        differences=tuple(read_records(differences_file(run), Difference, run.hint_to_redo("evaluate"))),
        classifier=card,
        comparisons=tuple(sorted(page.parent.name for page in (run.path / "report").glob(f"{_AGAINST}*/report.html"))),
        histories={system.name: tuple(history_of(run, system)) for system in trained},
        positions=tuple(positions),
        examples=tuple(_examples(suites, responses)),
        thoughts=tuple(_thoughts(run, responses)),
        places=tuple(_places(suites, responses)),
        inside=tuple(views_of(run.path)),
        operating_points={system.name: point for system in trained if (point := operating_point(run, system))},
        head_fits={system.name: fit for system in trained if (fit := head_fit_of(run, system))},
    )


def _panel(run: RunFolder, responses: Mapping[System, dict[str, list[Response]]]) -> list[Score]:
    """Return what each member of the panel that judged the run gives, by system."""
    suites, settings = run.workload.suites, run.recipe.evaluate
    return [
        score
        for system, by_suite in responses.items()
        for score in panel_scores(
            collect_answers(suites_in_mode(suites, system.thinking), by_suite, settings.judge, settings.judge_thought),
            system=system.name,
            thinking=system.thinking,
            seed=system.seed,
        )
    ]


def _thoughts(run: RunFolder, responses: Mapping[System, dict[str, list[Response]]]) -> list[ThoughtBin]:
    """Return success by the length of the thought, where attacks were measured."""
    suites, settings = run.workload.suites, run.recipe.evaluate
    if not settings.attacks:
        return []
    return [
        row
        for system, by_suite in responses.items()
        if system.thinking == "on"
        for row in thought_bins(collect_answers(suites, by_suite, settings.judge, None), system.name)
    ]


def _card_of(run: RunFolder) -> ClassifierCard:
    return read_record(run.path / "signals" / "classifier.json", ClassifierCard, hint=run.hint_to_redo("signal"))


def _classifier_scores(card: ClassifierCard) -> list[Score]:
    """Return the classifier's accuracy on held-out decisions and on traces."""
    measured = {"classifier_held_out": card.held_out, "classifier_traces": card.traces}
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
    suites: Mapping[str, Sequence[Prompt]], responses: Mapping[System, Mapping[str, list[Response]]]
) -> list[RefusalPlaces]:
    """Count where responses to prompts to refuse and to comply with refuse, CoT on."""
    return [
        RefusalPlaces(system=system.name, suite=suite, expect=prompts[0].expect, counts=count_places(by_suite[suite]))
        for system, by_suite in responses.items()
        for suite, prompts in suites.items()
        if system.thinking == "on" and prompts[0].expect in DECIDED
    ]


def _examples(
    suites: Mapping[str, Sequence[Prompt]], responses: Mapping[System, Mapping[str, list[Response]]]
) -> list[Example]:
    """Return the first prompts of each suite with the responses of every system."""
    examples = []
    for system, by_suite in responses.items():
        for suite, prompts in suites.items():
            if suite not in by_suite:  # it begins a thought, and CoT is off
                continue
            first = [response for response in by_suite[suite] if response.sample == 1]
            for prompt, response in list(zip(prompts, first, strict=True))[:_EXAMPLES]:
                examples.append(
                    Example(
                        system=system.name,
                        thinking=system.thinking,
                        suite=suite,
                        prompt_id=prompt.id,
                        expect=prompt.expect,
                        text=prompt.attacked.request if prompt.attacked else prompt.text,
                        thought=response.thought,
                        answer=response.answer,
                        verdict=response.verdict,
                        offensive=prompt.expect == "refuse",
                        thought_verdict=response.thought_verdict,
                    )
                )
    return examples
