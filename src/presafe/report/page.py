"""The page: one HTML file that needs nothing else, neither a network nor a script.

Everything that a user or a model wrote passes through the template's escaping. Figures are embedded as
images, so that the ids inside one SVG cannot meet those of another.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from presafe.records import PositionScore, Score, Thinking, write_text
from presafe.report import labels
from presafe.report.figures import figures
from presafe.report.headline import cards, comparison_headline, comparisons, every_comparison, headline, leanings
from presafe.report.inside import layer_lines, place_lines, read_suites
from presafe.report.labels import (
    DASH,
    EXPECTS,
    METRICS,
    SUITES,
    SYSTEMS,
    bounds,
    chance,
    detectable,
    duration,
    estimate,
    interval,
    label,
    of_position,
    ordered,
    plain,
    points,
    rate,
)
from presafe.report.results import results_json
from presafe.report.rows import (
    EXTENTS,
    MODES,
    THOUGHT,
    apart,
    between_modes,
    cell,
    headline_metrics,
    metrics,
    suites,
    systems,
    without_verdict,
)
from presafe.report.sensitivity import panels, sampling_name, sweep_sentences

if TYPE_CHECKING:
    from presafe.report.data import Example, ReportData
    from presafe.signals.calibration import ClassifierCard


class Table(NamedTuple):
    """Scores as a table: a line a system and CoT mode, a column a suite and metric, in a cell its rows."""

    columns: tuple[tuple[str, str], ...]
    lines: tuple[tuple[str, Thinking, tuple[tuple[Score, ...], ...]], ...]


class Answered(NamedTuple):
    """One prompt and what the systems answered. The summary shows its text unless one is offensive."""

    suite: str
    prompt_id: str
    text: str
    is_offensive: bool
    examples: tuple[Example, ...]


def render_report(data: ReportData) -> str:
    """The report as one self-contained HTML page."""
    return _page(data, figures(data))


def write_report(data: ReportData, folder: Path) -> Path:
    """Write report.html, results.json and figures/*.svg into a folder.

    Returns:
        The path of the page.

    Raises:
        RunError: the folder cannot be written.
    """
    drawn = figures(data)
    for name, svg in drawn.items():
        write_text(folder / "figures" / f"{name}.svg", svg)
    write_text(folder / "results.json", results_json(data))
    write_text(folder / "report.html", _page(data, drawn))
    return folder / "report.html"


def pivot(scores: Sequence[Score], columns: Sequence[tuple[str, str]]) -> Table:
    """The table of some columns (suite, metric); a line without any row is left out."""
    lines = []
    for system in systems(scores):
        for mode in MODES:
            cells = tuple(cell(scores, system, mode, suite, metric) for suite, metric in columns)
            if any(cells):
                lines.append((system, mode, cells))
    return Table(tuple(columns), tuple(lines))


def missing(score: Score, scores: Sequence[Score]) -> str:
    """What a score's cell says of the answers or thoughts without a verdict: "no verdict: 58 of 120"."""
    found = without_verdict(scores, score)
    return "" if found is None else f"no verdict: {found[0]} of {found[1]}"


def size(score: Score, positions: Sequence[PositionScore]) -> str:
    """A score's n; of one that sets two kinds of prompts against each other: "100 against 50"."""
    two_kinds = of_position(score.metric)
    harmless = sum((each.system, each.suite) == (score.system, score.suite) for each in positions) if two_kinds else 0
    if harmless:
        return f"{score.n - harmless} against {harmless}"
    return labels.size(score)


def base_rate(card: ClassifierCard) -> float | None:
    """Accuracy of always answering the commoner of the kept-back decisions."""
    n = sum(each.n for each in card.bins)
    refused = sum(each.frequency * each.n for each in card.bins if each.frequency is not None)
    return max(refused, n - refused) / n if n else None


def answered(examples: Sequence[Example]) -> tuple[Answered, ...]:
    """The examples prompt by prompt, in the order of the suites, so that their answers stand together."""
    groups: dict[tuple[str, str, str], list[Example]] = {}
    for example in examples:
        groups.setdefault((example.suite, example.prompt_id, example.text), []).append(example)
    order = ordered((example.suite for example in examples), SUITES)
    system_order = ordered((example.system for example in examples), SYSTEMS)
    return tuple(
        Answered(
            *key,
            is_offensive=any(example.offensive for example in group),
            examples=tuple(sorted(group, key=lambda e: (system_order.index(e.system), MODES.index(e.thinking)))),
        )
        for key, group in sorted(groups.items(), key=lambda item: order.index(item[0][0]))
    )


def flatten(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names and texts; what holds nothing is a dash."""
    rows: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            rows += flatten(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple) and any(isinstance(part, Mapping) for part in value):
            rows += flatten({str(i): part for i, part in enumerate(value)}, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            rows.append((prefix + name, ", ".join(str(part) for part in value) or DASH))
        else:
            rows.append((prefix + name, DASH if value in (None, "", {}) else str(value)))
    return rows


def _page(data: ReportData, drawn: Mapping[str, str]) -> str:
    scores = [score for score in data.scores if score.system != "classifier"]  # the section on the signal shows it
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_readable
    )
    environment.globals.update(
        size=lambda score: size(score, data.positions),
        missing=lambda score: missing(score, scores),
        bounds=bounds,
        chance=chance,
        detectable=detectable,
        points=points,
        estimate=estimate,
        rate=rate,
        interval=interval,
        duration=duration,
        name_system=lambda name: label(name, SYSTEMS),
        name_suite=lambda name: label(name, SUITES),
        name_metric=lambda name: label(name, METRICS),
        name_expect=lambda name: EXPECTS[name],
        tone=_tone,
    )
    source = resources.files("presafe.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    names = suites(scores)
    columns = [(suite, metric) for suite in names for metric in metrics(scores, suite)]
    return environment.from_string(source).render(
        data=data,
        headline=(comparison_headline(data.differences),)
        if data.is_comparison
        else headline(scores, _model_name(data.recipe)) or sweep_sentences(data.sweep),
        cards=cards(scores),
        comparisons=(every_comparison if data.is_comparison else comparisons)(data.differences),
        leanings=leanings(scores),
        systems=systems(scores),
        is_smolthink=_setting(data.recipe, "model", "address") == "smolthink",
        is_direct=_setting(data.recipe, "align", "refusal_target") != "thought",
        figures={name: base64.b64encode(svg.encode()).decode() for name, svg in drawn.items()},
        leading=pivot(scores, [(suite, metric) for suite in names for metric in headline_metrics(scores, suite)]),
        apart=pivot([score for score in scores if score.thinking == "on"], apart(scores)),
        extents=pivot(scores, [column for column in columns if column[1] in EXTENTS]),
        aurocs=pivot(scores, [(suite, metric) for suite, metric in columns if of_position(metric)]),
        tables={suite: pivot(scores, [column for column in columns if column[0] == suite]) for suite in names},
        base_rate=base_rate(data.classifier) if data.classifier else None,
        judges=sorted({s.judge for s in scores if s.judge and not s.metric.startswith(THOUGHT)}),
        thought_judges=sorted({s.judge for s in scores if s.judge and s.metric.startswith(THOUGHT)}),
        answered=answered(data.examples),
        place_lines=place_lines(data.places),
        layer_lines=layer_lines(data.inside),
        read_suites=read_suites(data.inside),
        modes=between_modes(data.differences),
        sweep=panels(data.sweep),
        sampling_name=sampling_name,
        settings=flatten(data.recipe),
        provenance=flatten({name: value for name, value in data.manifest.items() if name != "settings"}),
        total_s=sum(data.timings_s.values()),
    )


def _readable(value: Any) -> Any:
    """Return what the template prints, without characters that break the page or turn it round."""
    if isinstance(value, Markup):
        return Markup(plain(value))
    return plain(value) if isinstance(value, str) else value


def _model_name(recipe: Mapping[str, Any]) -> str:
    """What sentences call the model: the last part of its address; "the model" without one."""
    address = _setting(recipe, "model", "address")
    return "SmolThink-135M" if address == "smolthink" else address.rstrip("/").split("/")[-1] or "the model"


def _setting(recipe: Mapping[str, Any], table: str, name: str) -> str:
    """A setting of the recipe as text; empty where the run has none."""
    settings = recipe.get(table)
    return str(settings.get(name) or "") if isinstance(settings, Mapping) else ""


def _tone(example: Example) -> str:
    """Whether the verdict is what the prompt asks for: "good", "bad", or "plain" where it cannot say."""
    if {example.expect, example.verdict} <= {"refuse", "comply"}:
        return "good" if example.verdict == example.expect else "bad"
    return "plain"
