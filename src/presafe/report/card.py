"""The model card of an exported adapter: README.md beside it, as the Hugging Face hub reads it.

It opens with what the adapter wrongly refuses. Every rate is from the run that trained the adapter, with its interval.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import Environment, StrictUndefined

from presafe.methods.registry import methods, training_of
from presafe.models.address import MADE
from presafe.report.formatting import (
    DASH,
    METRICS,
    SUITES,
    display_name,
    format_estimate,
    format_interval,
    format_size,
    plain,
)
from presafe.report.lookup import MODES, find_score, judges_of, leading_metric, suites_in
from presafe.report.public import base_on_hub, public_address, public_judge, public_settings, without_hosts

if TYPE_CHECKING:
    from presafe.records import OperatingPoint, Score, Thinking
    from presafe.report.data import ReportData


class DataSource(NamedTuple):
    """One source of prompts that the adapter learned from; `hub` is the data set's id there, if it has one."""

    used_for: str
    origin: str
    license: str
    hub: str | None = None


class AdapterFacts(NamedTuple):
    """The shape of an adapter, as its own file states it; `blocks` are counted from 0, None means all."""

    rank: int
    alpha: float
    targets: tuple[str, ...]
    blocks: tuple[int, ...] | None = None


class CardFacts(NamedTuple):
    """What a card tells of one adapter beside the run's report; `max_lora_rank` is vLLM's option for its rank.

    None: vLLM cannot serve it. `point` is None if the adapter was not scaled.
    """

    system: str
    seed: int
    adapter: AdapterFacts
    sources: tuple[DataSource, ...]
    max_lora_rank: int | None
    point: OperatingPoint | None = None


class ResultRow(NamedTuple):
    """One measured rate of the model and of the adapter, as the card's table shows it."""

    suite: str
    origin: str
    metric: str
    thinking: Thinking
    before: str
    after: str
    n: str


def model_card(data: ReportData, facts: CardFacts) -> str:
    """Return the card of an adapter as Markdown with the hub's metadata block.

    Args:
        data: The report of the run that trained the adapter.
        facts: Which adapter it is, and what it learned from.
    """
    from huggingface_hub import ModelCardData

    align, address = data.recipe["align"], data.recipe["model"]["address"]
    is_apache = _is_apache(address, facts.sources)
    metadata = ModelCardData(
        base_model=base_on_hub(address),
        base_model_relation="adapter" if base_on_hub(address) else None,
        library_name="peft",
        pipeline_tag="text-generation",
        datasets=sorted({source.hub for source in facts.sources if source.hub}) or None,
        tags=["presafe", "lora", "reasoning", "safety"],
        model_name=f"{plain(data.title)}, {facts.system}",
        eval_results=_hub_results(data.scores, facts) or None,
        license="apache-2.0" if is_apache else "other",
        license_name=None if is_apache else "see-base-model-and-data",
    )
    method, training = methods()[facts.system], training_of(facts.system)
    lambda_align, lambda_start = training.weights(align["lambda_align"], align["lambda_start"])
    template = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        resources.files("presafe.report").joinpath("card.md.j2").read_text(encoding="utf-8")
    )
    text = template.render(
        metadata=metadata.to_yaml().rstrip(),
        title=_cell(data.title),
        method=method,
        facts=facts,
        address=public_address(address),
        is_made=address in MADE,
        is_local=base_on_hub(address) is None,
        is_trained_with_head=training.head is not None,
        over_refusal=_over_refusal(data.scores, facts),
        rows=result_rows(data, facts),
        judges=[public_judge(judge) for judge in judges_of(data.scores, of_thoughts=False)],
        thought_judges=[public_judge(judge) for judge in judges_of(data.scores, of_thoughts=True)],
        sources=[DataSource(source.used_for, _cell(source.origin), _cell(source.license)) for source in facts.sources],
        align=align,
        lambda_align=lambda_align,
        lambda_start=lambda_start,
        teacher=_teacher(data.recipe),
        encoder=public_address(data.recipe["signal"]["encoder"]),
        recipe=json.dumps(public_settings(data.recipe), indent=1, ensure_ascii=False),
        manifest=data.manifest,
        base=f"{address}-merged" if address in MADE else public_address(address),
    )
    return plain(text)


def result_rows(data: ReportData, facts: CardFacts) -> list[ResultRow]:
    """Return the leading rate of every suite in both modes; suites to comply with come first."""
    suites = dict.fromkeys([*suites_in(data.scores, "comply"), *suites_in(data.scores)])
    rows = []
    for suite in suites:
        metric = leading_metric(data.scores, suite)
        for thinking in MODES:
            before = find_score(data.scores, "vanilla", thinking, suite, metric)
            after = _score_of(data.scores, facts, thinking, suite, metric)
            if metric is None or (before is None and after is None):
                continue
            rows.append(
                ResultRow(
                    without_hosts(display_name(suite, SUITES)),
                    _origin(data.manifest, suite),
                    display_name(metric, METRICS),
                    thinking,
                    format_estimate(before),
                    format_estimate(after),
                    _size(before, after),
                )
            )
    return rows


def _size(before: Score | None, after: Score | None) -> str:
    """Return n of both sides, which differ where a judge gave no verdict on some answers; one number if they agree."""
    sizes = dict.fromkeys(format_size(score) for score in (before, after) if score)
    return " → ".join(sizes)


def _teacher(recipe: Mapping[str, Any]) -> str:
    """Return whose decisions the classifier learned."""
    teacher = recipe["respond"]["teacher"]
    return "the model itself" if teacher is None else f"`{public_address(teacher['address'])}`"


def _score_of(
    scores: Sequence[Score], facts: CardFacts, thinking: Thinking, suite: str, metric: str | None
) -> Score | None:
    """Return the row of this adapter, of its own seed; None if it was not measured."""
    key = (facts.system, thinking, suite, metric, facts.seed)
    rows = [row for row in scores if (row.system, row.thinking, row.suite, row.metric, row.seed) == key]
    return rows[0] if rows and rows[0].value is not None else None


def _over_refusal(scores: Sequence[Score], facts: CardFacts) -> list[str]:
    """Return a sentence for each suite of harmless prompts: how many of them the adapter refuses, CoT on."""
    sentences = []
    for suite in suites_in(scores, "comply"):
        score = _score_of(scores, facts, "on", suite, "over_refusal_rate")
        if score is not None:
            rate = format_interval(score.value, score.low, score.high)
            sentences.append(f"{display_name(suite, SUITES)}: {rate} of {format_size(score)} prompts")
    return sentences


def _origin(manifest: Mapping[str, Any], suite: str) -> str:
    """Return where a suite is published and its license."""
    origin = manifest.get("origins", {}).get(suite)
    return _cell(f"{origin['source']} ({origin['license']})") if origin else DASH


def _hub_results(scores: Sequence[Score], facts: CardFacts) -> list[Any]:
    """Return the adapter's leading rates with CoT on as the hub's metadata holds them."""
    from huggingface_hub import EvalResult

    results = []
    for suite in suites_in(scores):
        metric = leading_metric(scores, suite)
        score = _score_of(scores, facts, "on", suite, metric)
        if score is None or metric is None:
            continue
        results.append(
            EvalResult(
                task_type="text-generation",
                dataset_type=without_hosts(suite),
                dataset_name=without_hosts(display_name(suite, SUITES)),
                metric_type=metric,
                metric_name=display_name(metric, METRICS),
                metric_value=score.value,
                metric_args={"low": score.low, "high": score.high, "n": score.n, "thinking": "on"},
            )
        )
    return results


def _is_apache(address: str, sources: Sequence[DataSource]) -> bool:
    """Return whether base and data are under Apache-2.0; else the adapter's license follows from theirs."""
    return address in MADE and all(source.license == "Apache-2.0" for source in sources)


def _cell(text: str) -> str:
    """Return text on one line that cannot end a table's cell or open a tag."""
    return " ".join(plain(str(text)).split()).replace("|", "\\|").replace("<", "&lt;")
