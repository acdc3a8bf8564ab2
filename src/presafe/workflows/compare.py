"""Compare what was measured, prompt by prompt: the systems of runs, of measurements, or of both.

All is read from the Inspect logs, so that a folder compares on a machine without its prompt files or its model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple, cast

from presafe.errors import RunError
from presafe.evaluation.answers import Answers, collect_outcomes, score_answers
from presafe.evaluation.differences import paired_differences
from presafe.evaluation.metrics import mean_over_seeds
from presafe.methods.registry import is_prefill
from presafe.models.sampling import LoggedSuite, logged_suites
from presafe.records import Score, Thinking
from presafe.report.data import ReportData
from presafe.report.formatting import SYSTEMS, in_known_order
from presafe.report.page import write_report
from presafe.runs.io import read_json, write_json, write_jsonl
from presafe.runs.manifest import build_manifest, sha256_of
from presafe.runs.ownership import COMPARISON, check_ownership
from presafe.stages.run_folder import RunFolder

_FOLDER = re.compile(r"(?P<system>.+?)(?:-seed(?P<seed>-?\d+))?-(?P<thinking>on|off)")
"""Name of a system's folder of logs: `presafe-on`, `presafe-seed1-on`."""


class Measured(NamedTuple):
    """One system in one mode: its suites, once a seed. `seeds` is (None,) for a model as it came."""

    system: str
    thinking: Thinking
    seeds: tuple[int | None, ...]
    logs: tuple[dict[str, LoggedSuite], ...]

    @property
    def said(self) -> list[dict[str, Answers]]:
        """The answers of each seed, by suite."""
        return [{suite: Answers.from_log(log) for suite, log in logs.items()} for logs in self.logs]


def compare_folders(folders: Sequence[Path], out: Path, *, against: str | None = None) -> ReportData:
    """Compare every system with one of them; writes `report.html`, `results.json`, `differences.jsonl`.

    Args:
        folders: Run folders and folders of measurements.
        out: Folder of the report.
        against: The system compared against, such as "sft"; None takes the first. Each system is paired with it in
            its own CoT mode, or where it has none in its first. With several folders a system's name is
            "<folder>/<system>".

    Raises:
        RunError: a folder without finished suites, no such system, a single system, two folders of one name, or
            suites, references, judges or sampling that differ between any two systems; or `out` holds something else.
    """
    if len({folder.name for folder in folders}) < len(folders):
        raise RunError("two of the folders have one name, so their systems would too.", "Rename one.")
    systems = [each for folder in folders for each in _systems(folder, named=len(folders) > 1)]
    names = list(dict.fromkeys(each.system for each in systems))
    if against is not None and against not in names:
        raise RunError(f"no system {against!r} to compare against.", f"There are: {', '.join(names)}.")
    if len(systems) < 2:
        raise RunError(f"only one system in {folders[0]}: nothing to compare it with.", "Name a second folder.")
    for one, other in combinations(systems, 2):
        _check_alike(one, other)
    if not _is_older_comparison(out):
        check_ownership(out, COMPARISON)
    settings = {"folders": [str(folder) for folder in folders], "against": against or names[0]}
    references = [each for each in systems if each.system == (against or names[0])]
    pairs = [
        (next((one for one in references if one.thinking == each.thinking), references[0]), each) for each in systems
    ]
    # A reference has itself in its own mode: its other modes are compared with its first.
    pairs = [(references[0] if left is right else left, right) for left, right in pairs if right is not references[0]]
    found = {id(each): collect_outcomes(each.system, each.thinking, each.said) for each in systems}
    compared = [(found[id(left)], found[id(right)]) for left, right in pairs]
    prompts_sha256 = sha256_of({name: log.texts for name, log in systems[0].logs[0].items()})
    manifest = build_manifest(settings, prompts_sha256)
    write_json(out / "manifest.json", manifest)
    write_json(out / COMPARISON, settings)
    data = ReportData(
        title="Comparison of " + ", ".join(folder.name for folder in folders),
        recipe=settings,
        manifest=manifest,
        timings_s={},
        scores=tuple(score for each in systems for score in _scores(each)),
        differences=tuple(paired_differences(compared)),
        is_comparison=True,
    )
    write_report(data, out)
    write_jsonl(out / "differences.jsonl", data.differences)
    return data


def _is_older_comparison(out: Path) -> bool:
    """Return whether a folder holds a comparison of an older presafe, which wrote no settings."""
    files = {"report.html", "results.json", "differences.jsonl", "figures"}
    try:
        return {path.name for path in out.iterdir()} == files and {"schema", "rows"} <= read_json(
            out / "results.json"
        ).keys()
    except (OSError, RunError):
        return False


def _systems(folder: Path, *, named: bool) -> list[Measured]:
    """The systems of one folder, the model as it came first, CoT on before off."""
    seeds: dict[tuple[str, str], dict[int | None, dict[str, LoggedSuite]]] = {}
    is_run = (folder / "recipe.json").exists()
    first = RunFolder.existing(folder).recipe.align.seeds[0] if is_run else None
    for path in sorted((folder / "evaluation").glob("*")):
        match = _FOLDER.fullmatch(path.name)
        if match and path.is_dir() and (logs := logged_suites(path, cast(Thinking, match["thinking"]))):
            as_it_came = match["system"] == "vanilla" or is_prefill(match["system"])
            seed = int(match["seed"]) if match["seed"] else None if as_it_came else first
            seeds.setdefault((match["system"], match["thinking"]), {})[seed] = logs
    if not seeds:
        raise RunError(f"{folder} holds no finished suite.", "Name a folder of `presafe run`, `probe` or `evaluate`.")
    order = in_known_order((system for system, _ in seeds), SYSTEMS)
    found = sorted(seeds, key=lambda key: (order.index(key[0]), key[1] == "off"))
    return [
        Measured(
            f"{folder.name}/{system}" if named else system,
            cast(Thinking, thinking),
            tuple(seeds[system, thinking]),
            tuple(seeds[system, thinking].values()),
        )
        for system, thinking in found
    ]


_DECODING = {"max_tokens": "token budget", "samples": "samples a prompt", "dtype": "type of the weights"}
"""How `LoggedSuite.decoding` is named to a reader; other keys as they stand."""


def _check_alike(left: Measured, right: Measured) -> None:
    """Fail where two systems were not measured alike, and say in what."""
    names = f"{left.system} (CoT {left.thinking}) and {right.system} (CoT {right.thinking})"
    for one, other in ((left.logs[0], logs) for logs in (*left.logs, *right.logs)):
        if one.keys() != other.keys():
            found = ", ".join(sorted(one.keys() ^ other.keys()))
            raise RunError(f"{names} were not measured on the same suites (only one has {found}).", "Measure both.")
        for suite in one:
            if differing := _differing(one[suite], other[suite], in_one_mode=left.thinking == right.thinking):
                raise RunError(
                    f"{names} differ in the {' and the '.join(differing)} of {suite}.", "Measure both in the same way."
                )


def _differing(one: LoggedSuite, other: LoggedSuite, *, in_one_mode: bool) -> list[str]:
    """In what two measurements of a suite are not alike."""
    thoughts = (one.thought_judge, other.thought_judge)  # older logs have none
    # A family may publish other sampling for CoT off: across modes it is enough that the same was asked for.
    sampled_alike = one.sampling == other.sampling or (not in_one_mode and one.asked_sampling == other.asked_sampling)
    return [
        what
        for what, differs in (
            ("version", one.version != other.version),
            ("prompts", one.texts != other.texts),
            ("expected answers", one.expected != other.expected),
            ("judge", one.judge != other.judge),
            ("judge of thoughts", None not in thoughts and thoughts[0] != thoughts[1]),
            *(
                (_DECODING.get(key, key), one.decoding.get(key) != other.decoding.get(key))
                for key in sorted({*one.decoding, *other.decoding})
            ),
            ("sampling", not sampled_alike),
        )
        if differs
    ]


def _scores(each: Measured) -> list[Score]:
    scores = [
        score
        for seed, said in zip(each.seeds, each.said, strict=True)
        for score in score_answers(said, system=each.system, thinking=each.thinking, seed=seed)
    ]
    return [*scores, *mean_over_seeds(scores)]
