"""Compare systems prompt by prompt: those of runs, of measurements, or of both.

Everything is read from the Inspect logs, so folders can be compared on a machine without the prompt files or the model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple, cast, get_args

from presafe.config.recipe import Recipe
from presafe.errors import RunError
from presafe.evaluation.answers import Answers, collect_outcomes, score_answers
from presafe.evaluation.attacked import begins_thought
from presafe.evaluation.differences import SystemOutcomes, paired_differences
from presafe.evaluation.metrics import mean_over_seeds
from presafe.evaluation.panels import panel_scores
from presafe.methods.registry import is_prefill
from presafe.models.sampling import LoggedSuite, logged_suites
from presafe.records import Score, Thinking
from presafe.report.data import ReportData
from presafe.report.formatting import SYSTEMS, in_known_order
from presafe.report.page import write_report
from presafe.runs.io import read_json, write_json, write_jsonl
from presafe.runs.manifest import build_manifest, sha256_of
from presafe.runs.ownership import COMPARISON, MEASUREMENT, check_ownership
from presafe.stages.run_folder import RunFolder

_FOLDER = re.compile(
    rf"(?P<method>[^+]+?)(?:-seed(?P<seed>-?\d+))?(?P<defense>\+.+)?-(?P<thinking>{'|'.join(get_args(Thinking))})"
)
"""Name of a system's folder of logs: `presafe-on`, `presafe-seed1-on`, `presafe-seed1+self_reminder-on`."""


class Measured(NamedTuple):
    """One system in one CoT mode: its suites, once per seed. `seeds` is (None,) for a model that was not trained."""

    system: str
    thinking: Thinking
    seeds: tuple[int | None, ...]
    logs: tuple[dict[str, LoggedSuite], ...]

    @property
    def answers(self) -> list[dict[str, Answers]]:
        """Return the answers of each seed, by suite."""
        return [{suite: Answers.from_log(log) for suite, log in logs.items()} for logs in self.logs]


def compare_folders(folders: Sequence[Path], out: Path, *, against: str | None = None) -> ReportData:
    """Compare every system with a reference; write `report.html`, `results.json` and `differences.jsonl`.

    Args:
        folders: Run folders and folders of measurements.
        out: Folder of the report.
        against: The reference, such as "sft"; None takes the first system. A system is paired with the reference in
            the same CoT mode or, if the reference has no such mode, in the reference's first mode. With several
            folders a system's name is "<folder>/<system>" (`distinct_names`).

    Raises:
        RunError: a folder without finished suites, no such system, a single system, one folder twice, or
            suites, references, judges or sampling that differ between any two systems; or `out` holds something else.
    """
    folder_names = distinct_names(folders)
    prefixes = [f"{name}/" for name in folder_names] if len(folders) > 1 else [""]
    systems = [
        measured for folder, prefix in zip(folders, prefixes, strict=True) for measured in _systems(folder, prefix)
    ]
    names = list(dict.fromkeys(measured.system for measured in systems))
    if against is not None and against not in names:
        raise RunError(f"no system {against!r} to compare against.", f"There are: {', '.join(names)}.")
    if len(systems) < 2:
        raise RunError(f"only one system in {folders[0]}: nothing to compare it with.", "Name a second folder.")
    for left, right in combinations(systems, 2):
        _check_alike(left, right)
    if not _is_older_comparison(out):
        check_ownership(out, COMPARISON)
    settings = {"folders": [str(folder) for folder in folders], "against": against or names[0]}
    outcomes = [collect_outcomes(measured.system, measured.thinking, measured.answers) for measured in systems]
    prompts_sha256 = sha256_of({name: log.texts for name, log in systems[0].logs[0].items()})
    manifest = build_manifest(settings, prompts_sha256)
    write_json(out / "manifest.json", manifest)
    write_json(out / COMPARISON, settings)
    data = ReportData(
        title="Comparison of " + ", ".join(folder_names),
        recipe=settings,
        manifest=manifest,
        timings_s={},
        scores=tuple(score for measured in systems for score in _scores(measured)),
        panel=tuple(
            score
            for measured in systems
            for score in panel_scores(
                measured.answers[0], system=measured.system, thinking=measured.thinking, seed=measured.seeds[0]
            )
        ),
        differences=tuple(paired_differences(_pairs(outcomes, against or names[0]))),
        is_comparison=True,
    )
    write_report(data, out)
    write_jsonl(out / "differences.jsonl", data.differences)
    return data


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """Return a name for each folder: the last part of its path, or as many parts as tell all of them apart.

    Args:
        folders: The folders, as a user names them: "." is the working directory.

    Raises:
        RunError: one folder is named twice.
    """
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise RunError("one folder is named twice.", "Name two different folders.")
    for count in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-count:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names


def _pairs(outcomes: Sequence[SystemOutcomes], against: str) -> list[tuple[SystemOutcomes, SystemOutcomes]]:
    """Pair every system with the reference in the same CoT mode or, if there is none, with its first mode.

    The reference's own other modes are compared with its first.
    """
    references = [outcome for outcome in outcomes if outcome.system == against]
    first = references[0]
    pairs = []
    for outcome in outcomes:
        same_mode = next((reference for reference in references if reference.thinking == outcome.thinking), first)
        if outcome is not first:
            pairs.append((first if same_mode is outcome else same_mode, outcome))
    return pairs


def _is_older_comparison(out: Path) -> bool:
    """Return whether a folder holds a comparison of an older presafe, which wrote no settings."""
    files = {"report.html", "results.json", "differences.jsonl", "figures"}
    try:
        return {path.name for path in out.iterdir()} == files and {"schema", "rows"} <= read_json(
            out / "results.json"
        ).keys()
    except (OSError, RunError):
        return False


def _systems(folder: Path, prefix: str) -> list[Measured]:
    """Return the systems of one folder, with a prefix before their names: the vanilla model first, CoT on before off.

    Raises:
        RunError: the folder holds no finished suite, or its settings cannot be read.
    """
    seeds: dict[tuple[str, str], dict[int | None, dict[str, LoggedSuite]]] = {}
    # A run that lost its recipe is read as a run, and refused: without it, its seeds would be unknown.
    is_run = any((folder / name).exists() for name in ("recipe.json", "stages"))
    recipe = RunFolder.existing(folder).recipe if is_run else None
    first = recipe.align.seeds[0] if recipe else None
    order = _suite_order(folder, recipe)
    for path in sorted((folder / "evaluation").glob("*")):
        match = _FOLDER.fullmatch(path.name)
        if match and path.is_dir() and (logs := logged_suites(path, cast(Thinking, match["thinking"]))):
            is_untrained = match["method"] == "vanilla" or is_prefill(match["method"])
            seed = int(match["seed"]) if match["seed"] else None if is_untrained else first
            names = in_known_order(sorted(logs), dict.fromkeys(order, ""))
            system = match["method"] + (match["defense"] or "")
            seeds.setdefault((system, match["thinking"]), {})[seed] = {name: logs[name] for name in names}
    if not seeds:
        raise RunError(f"{folder} holds no finished suite.", "Name a folder of `presafe run`, `probe` or `evaluate`.")
    systems = in_known_order((system for system, _ in seeds), SYSTEMS)
    modes = sorted(seeds, key=lambda key: (systems.index(key[0]), get_args(Thinking).index(key[1])))
    return [
        Measured(
            prefix + system,
            cast(Thinking, thinking),
            tuple(seeds[system, thinking]),
            tuple(seeds[system, thinking].values()),
        )
        for system, thinking in modes
    ]


def _suite_order(folder: Path, recipe: Recipe | None) -> list[str]:
    """Return the suites of a run or a measurement in the order of its settings; the order of logs changes by chance.

    Raises:
        RunError: the settings of the measurement cannot be read.
    """
    if recipe is not None:
        return list(recipe.evaluate.suites)
    if not (folder / MEASUREMENT).exists():
        return []
    suites = read_json(folder / MEASUREMENT).get("suites")
    return list(suites) if isinstance(suites, dict) else []


_DECODING = {"max_tokens": "token budget", "samples": "samples a prompt", "dtype": "type of the weights"}
"""Names of the keys of `LoggedSuite.decoding` in messages; other keys keep their name."""


def _check_alike(left: Measured, right: Measured) -> None:
    """Check that two systems were measured alike.

    Raises:
        RunError: they were not; the message names what differs.
    """
    names = f"{left.system} (CoT {left.thinking}) and {right.system} (CoT {right.thinking})"
    expected = left.logs[0]
    for logs in (*left.logs, *right.logs):
        unpaired = sorted(suite for suite in expected.keys() ^ logs.keys() if not begins_thought(suite))
        if unpaired:
            only_one = ", ".join(unpaired)
            raise RunError(f"{names} were not measured on the same suites (only one has {only_one}).", "Measure both.")
        for suite, log in logs.items():
            alike = left.thinking == right.thinking
            if suite in expected and (differing := _differing(expected[suite], log, in_one_mode=alike)):
                raise RunError(
                    f"{names} differ in the {' and the '.join(differing)} of {suite}.", "Measure both in the same way."
                )


def _differing(left: LoggedSuite, right: LoggedSuite, *, in_one_mode: bool) -> list[str]:
    """Return what differs between two measurements of a suite, other than the answers."""
    thoughts = (left.thought_judge, right.thought_judge)  # older logs have none
    # A family may publish other sampling for CoT off: across modes it is enough that the same was asked for.
    is_sampled_alike = left.sampling == right.sampling or (
        not in_one_mode and left.asked_sampling == right.asked_sampling
    )
    differences = {
        "version": left.version != right.version,
        "prompts": left.texts != right.texts,
        "expected answers": left.expected != right.expected,
        "judge": left.judge != right.judge,
        "version of the refusal strings": left.strings != right.strings,
        "judge of thoughts": None not in thoughts and thoughts[0] != thoughts[1],
    }
    for key in sorted({*left.decoding, *right.decoding}):
        differences[_DECODING.get(key, key)] = left.decoding.get(key) != right.decoding.get(key)
    differences["sampling"] = not is_sampled_alike
    return [what for what, differs in differences.items() if differs]


def _scores(measured: Measured) -> list[Score]:
    """Return all rows of one system in one CoT mode, and the means over its seeds."""
    scores = [
        score
        for seed, answers in zip(measured.seeds, measured.answers, strict=True)
        for score in score_answers(answers, system=measured.system, thinking=measured.thinking, seed=seed)
    ]
    return [*scores, *mean_over_seeds(scores)]
