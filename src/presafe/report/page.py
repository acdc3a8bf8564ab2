"""The page: one HTML file that needs neither other files, nor a network, nor scripts.

Everything that a user or a model wrote is escaped by the template. Figures are embedded as images, so that the ids of
one SVG cannot collide with those of another.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from presafe.records import PositionScore, Score, Thinking
from presafe.report.attacks import attack_columns, attack_lines, is_attacked, measures_attacks
from presafe.report.figures import FIGURES, figures
from presafe.report.formatting import (
    DASH,
    EXPECTS,
    METRICS,
    SUITES,
    SYSTEMS,
    display_name,
    format_bounds,
    format_detectable,
    format_duration,
    format_estimate,
    format_interval,
    format_p,
    format_points,
    format_rate,
    format_size,
    in_known_order,
    is_position_metric,
    plain,
)
from presafe.report.headline import (
    all_differences,
    auroc_sentences,
    comparison_headline,
    head_sentences,
    headline,
    headline_cards,
    key_differences,
    lambda_start_note,
)
from presafe.report.internals import layer_lines, place_lines, probed_suites
from presafe.report.lookup import (
    EXTENT_METRICS,
    MODES,
    Column,
    cell_scores,
    count_verdicts,
    judges_of,
    metrics_of,
    mode_differences,
    suites_in,
    summary_metrics,
    systems_in,
    thought_and_answer_columns,
)
from presafe.report.results import results_json
from presafe.report.sweep import panels, sweep_sentences
from presafe.report.tables import write_tables
from presafe.runs.io import write_or_remove, write_text

if TYPE_CHECKING:
    from presafe.report.data import Example, ReportData
    from presafe.signals.calibration import ClassifierCard


class Line(NamedTuple):
    """One system and CoT mode in a table; each cell holds its rows."""

    system: str
    thinking: Thinking
    cells: tuple[tuple[Score, ...], ...]


class Table(NamedTuple):
    """Scores as a table: a line per system and CoT mode, a column per suite and metric."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]


class ExampleGroup(NamedTuple):
    """One prompt and the systems' responses to it. The summary shows its text unless an example is offensive."""

    suite: str
    prompt_id: str
    text: str
    is_offensive: bool
    examples: tuple[Example, ...]


def write_report(data: ReportData, folder: Path, *, png: bool = False) -> Path:
    """Write report.html, results.json, figures/*.svg and data/*.csv into a folder; what an older report left goes.

    Args:
        data: What the report shows.
        folder: Created if it does not exist.
        png: Whether to write the figures as PNG, too.

    Returns:
        The path of the page.

    Raises:
        RunError: the folder cannot be written.
    """
    drawn = figures(data)
    for name in FIGURES:
        svg = drawn.get(name)
        write_or_remove(folder / "figures" / f"{name}.svg", svg.encode() if svg else None)
        write_or_remove(folder / "figures" / f"{name}.png", svg.png() if svg and png else None)
    write_tables(data, folder / "data")
    write_text(folder / "results.json", results_json(data))
    write_text(folder / "report.html", render_page(data, drawn))
    return folder / "report.html"


def pivot(scores: Sequence[Score], columns: Sequence[Column]) -> Table:
    """Return a table of some columns; a line without any row is left out.

    Args:
        scores: The rows.
        columns: Suites and metrics.
    """
    lines = []
    for system in systems_in(scores):
        for mode in MODES:
            cells = tuple(cell_scores(scores, system, mode, suite, metric) for suite, metric in columns)
            if any(cells):
                lines.append(Line(system, mode, cells))
    return Table(tuple(columns), tuple(lines))


def unjudged_note(score: Score, scores: Sequence[Score]) -> str:
    """Return how many answers or thoughts of a score have no verdict, "no verdict: 58 of 120", or an empty text."""
    count = count_verdicts(scores, score)
    return "" if count is None else f"no verdict: {count.unjudged} of {count.total}"


def describe_size(score: Score, positions: Sequence[PositionScore]) -> str:
    """Return a score's n; if the score sets two kinds of prompts against each other, "100 against 50"."""
    if is_position_metric(score.metric):
        harmless = sum((position.system, position.suite) == (score.system, score.suite) for position in positions)
        if harmless:
            return f"{score.n - harmless} against {harmless}"
    return format_size(score)


def base_rate(card: ClassifierCard) -> float | None:
    """Return the accuracy in [0, 1] of always giving the more common of the held-out decisions; None without any."""
    n = sum(bin_.n for bin_ in card.bins)
    refused = sum(bin_.frequency * bin_.n for bin_ in card.bins if bin_.frequency is not None)
    return max(refused, n - refused) / n if n else None


def group_examples(examples: Sequence[Example]) -> tuple[ExampleGroup, ...]:
    """Group examples by prompt, in the order of the suites, so that the systems' answers stand together."""
    groups: dict[tuple[str, str, str], list[Example]] = {}
    for example in examples:
        groups.setdefault((example.suite, example.prompt_id, example.text), []).append(example)
    suites = in_known_order((example.suite for example in examples), SUITES)
    systems = in_known_order((example.system for example in examples), SYSTEMS)

    def place(example: Example) -> tuple[int, int]:
        return systems.index(example.system), MODES.index(example.thinking)

    return tuple(
        ExampleGroup(
            suite,
            prompt_id,
            text,
            is_offensive=any(example.offensive for example in group),
            examples=tuple(sorted(group, key=place)),
        )
        for (suite, prompt_id, text), group in sorted(groups.items(), key=lambda item: suites.index(item[0][0]))
    )


def flatten_settings(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as dotted names and texts; an empty value is a dash.

    Args:
        settings: Values by name.
        prefix: Put before each name.
    """
    rows: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            rows += flatten_settings(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            rows += flatten_settings({str(i): item for i, item in enumerate(value)}, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            rows.append((prefix + name, ", ".join(str(item) for item in value) or DASH))
        else:
            rows.append((prefix + name, DASH if value in (None, "", {}) else str(value)))
    return rows


def render_page(data: ReportData, drawn: Mapping[str, str]) -> str:
    """Return the report as one self-contained HTML page.

    Args:
        data: What the report shows.
        drawn: Its figures, as SVG text by file stem (`figures`).
    """
    scores = [score for score in data.scores if score.system != "classifier"]  # shown in the section on the signal
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_readable
    )
    environment.globals.update(_formatters(data, scores))
    source = resources.files("presafe.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        data=data,
        figures={name: base64.b64encode(svg.encode()).decode() for name, svg in drawn.items()},
        **_sentences(data, scores),
        **_tables(data, scores),
        is_smolthink=_setting(data.recipe, "model", "address") == "smolthink",
        is_direct=_setting(data.recipe, "align", "refusal_target") != "thought",
        base_rate=base_rate(data.classifier) if data.classifier else None,
        example_groups=group_examples(data.examples),
        settings=flatten_settings(data.recipe),
        provenance=flatten_settings({name: value for name, value in data.manifest.items() if name != "settings"}),
        total_s=sum(data.timings_s.values()),
    )


def _formatters(data: ReportData, scores: Sequence[Score]) -> dict[str, Any]:
    """Return the functions that the template formats numbers and names with."""
    return {
        "size": lambda score: describe_size(score, data.positions),
        "unjudged_note": lambda score: unjudged_note(score, scores),
        "bounds": format_bounds,
        "p_value": format_p,
        "detectable": format_detectable,
        "points": format_points,
        "estimate": format_estimate,
        "rate": format_rate,
        "interval": format_interval,
        "duration": format_duration,
        "name_system": lambda name: display_name(name, SYSTEMS),
        "name_suite": lambda name: display_name(name, SUITES),
        "name_metric": lambda name: display_name(name, METRICS),
        "name_expect": lambda name: EXPECTS[name],
        "tone": _tone,
    }


def _sentences(data: ReportData, scores: Sequence[Score]) -> dict[str, Any]:
    """Return the sentences and cards of the page."""
    lead: tuple[str, ...]
    if data.is_comparison:
        lead = (comparison_headline(data.differences),)
        differences = all_differences(data.differences)
    else:
        lead = headline(scores, _model_name(data.recipe)) or sweep_sentences(data.sweep)
        lead += lambda_start_note(data.recipe.get("align") or {}, scores)
        differences = key_differences(data.differences)
    return {
        "headline": lead,
        "cards": headline_cards(scores),
        "difference_sentences": differences,
        "auroc_sentences": auroc_sentences(scores),
        "head_sentences": head_sentences(data.head_fits),
    }


def _tables(data: ReportData, scores: Sequence[Score]) -> dict[str, Any]:
    """Return the tables of the page, and the systems and judges that they are about."""
    suites = suites_in(scores)
    columns = [(suite, metric) for suite in suites for metric in metrics_of(scores, suite)]
    return {
        "systems": systems_in(scores),
        "leading": pivot(
            scores,
            [
                (suite, metric)
                for suite in suites
                if not is_attacked(suite)
                for metric in summary_metrics(scores, suite)
            ],
        ),
        "attack_columns": attack_columns(scores),
        "attack_lines": attack_lines(scores) if measures_attacks(scores) else [],
        "thoughts_and_answers": pivot(
            [score for score in scores if score.thinking == "on"], thought_and_answer_columns(scores)
        ),
        "extents": pivot(scores, [(suite, metric) for suite, metric in columns if metric in EXTENT_METRICS]),
        "disputes": pivot(scores, [column for column in columns if column[1] == "like_teacher_rate"]),
        "aurocs": pivot(scores, [(suite, metric) for suite, metric in columns if is_position_metric(metric)]),
        "tables": {name: pivot(scores, [column for column in columns if column[0] == name]) for name in suites},
        "judges": judges_of(scores, of_thoughts=False),
        "thought_judges": judges_of(scores, of_thoughts=True),
        "place_lines": place_lines(data.places),
        "layer_lines": layer_lines(data.inside),
        "probed_suites": probed_suites(data.inside),
        "mode_differences": mode_differences(data.differences),
        "sweep": panels(data.sweep),
    }


def _model_name(recipe: Mapping[str, Any]) -> str:
    """Return what sentences call the model: the last component of its address, or "the model" without one."""
    address = _setting(recipe, "model", "address")
    return "SmolThink-135M" if address == "smolthink" else address.rstrip("/").split("/")[-1] or "the model"


def _setting(recipe: Mapping[str, Any], table: str, name: str) -> str:
    """Return a setting of the recipe as text; empty if the run has none."""
    settings = recipe.get(table)
    return str(settings.get(name) or "") if isinstance(settings, Mapping) else ""


def _tone(example: Example) -> str:
    """Return whether the verdict is what the prompt asks for: "good", "bad", or "plain" if it does not tell."""
    if {example.expect, example.verdict} <= {"refuse", "comply"}:
        return "good" if example.verdict == example.expect else "bad"
    return "plain"


def _readable(value: Any) -> Any:
    """Return what the template prints, without characters that break the page or turn its text round."""
    if isinstance(value, Markup):
        return Markup(plain(value))
    return plain(value) if isinstance(value, str) else value
