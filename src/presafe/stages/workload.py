"""The prompts of a recipe: each group is loaded once, and all groups are checked before the first token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from presafe.config.files import published_folder
from presafe.config.recipe import Recipe
from presafe.config.sources import HubSource, QuerySource, SuiteSource
from presafe.errors import PromptError
from presafe.evaluation.attacked import attacked_suites
from presafe.evaluation.suites import origin_of, prompts_of
from presafe.prompts.overlap import fold
from presafe.prompts.sets import load_sources
from presafe.prompts.traces import SafetyTrace, load_traces
from presafe.records import Prompt
from presafe.runs.manifest import sha256_of_prompts


class Workload:
    """The prompts that a run asks or learns from. A group is loaded when it is first used, and then kept.

    Args:
        recipe: The settings that name the prompts.

    Raises:
        PromptError: from each property: a source of the group cannot be read.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    @cached_property
    def suites(self) -> Mapping[str, Sequence[Prompt]]:
        """Return the held-out prompts by suite, harmful ones also under each attack."""
        settings = self._recipe.evaluate
        plain = {name: prompts_of(source, settings.seed, settings.draw) for name, source in settings.suites.items()}
        return attacked_suites(plain, settings.attacks, settings.seed)

    @cached_property
    def origins(self) -> Mapping[str, Mapping[str, Any]]:
        """Return where the published suites come from (`origin_of`), by the recipe's names for them."""
        return {
            name: origin_of(source.suite, published_folder())
            for name, source in self._recipe.evaluate.suites.items()
            if isinstance(source, SuiteSource)
        }

    @cached_property
    def classifier(self) -> Sequence[Prompt]:
        """Return the queries that the teacher decides."""
        return self._load(self._recipe.respond.classifier_queries)

    @cached_property
    def alignment(self) -> Sequence[Prompt]:
        """Return the queries that the model is aligned on."""
        return self._load(self._recipe.respond.alignment_queries)

    @cached_property
    def harmful(self) -> Sequence[Prompt]:
        """Return the alignment queries that a careful assistant refuses."""
        return [prompt for prompt in self.alignment if prompt.expect == "refuse"]

    @cached_property
    def harmless(self) -> Sequence[Prompt]:
        """Return the alignment queries that the model should keep answering."""
        return [prompt for prompt in self.alignment if prompt.expect != "refuse"]

    @cached_property
    def published(self) -> Mapping[str, Sequence[SafetyTrace]]:
        """Return published thoughts and answers, by the method that learns from them.

        Rows whose question is also in a suite, with case and punctuation folded, are left out: published sets share
        some questions.
        """
        held_out = {fold(prompt.text) for prompts in self.suites.values() for prompt in prompts}
        traces = {}
        for method, data in self._recipe.align.data.items():
            traces[method] = [trace for trace in load_traces(data) if fold(trace.prompt.text) not in held_out]
            if not traces[method]:
                raise PromptError(f"every question of {data.file} is also in an evaluation suite.")
        return traces

    @cached_property
    def sha256(self) -> str:
        """Return the hash of all prompts, ids included, once they are checked.

        Raises:
            PromptError: as `check`.
        """
        self.check()
        published = ([trace.prompt for trace in traces] for traces in self.published.values())
        return sha256_of_prompts([self.classifier, self.alignment, *self.suites.values(), *published])

    def check(self) -> None:
        """Load every group, and check that they may be used together.

        Raises:
            PromptError: a source cannot be read; the alignment queries are all harmful or all harmless;
                `align.over_refusal` is set, and no classifier query is to be complied with; a query is also in an
                evaluation suite, with case and punctuation folded; or every question of a method's file is.
        """
        self._check_kinds()
        self._check_held_out()
        _ = self.published

    def _load(self, sources: Sequence[QuerySource]) -> Sequence[Prompt]:
        """Load several sources; a row from the hub that is close to a suite's prompt is left out."""
        from_hub = any(isinstance(source, HubSource) for source in sources)
        held_out = [prompt.text for prompts in self.suites.values() for prompt in prompts] if from_hub else []
        return load_sources(sources, self._recipe.respond.seed, held_out)

    def _check_kinds(self) -> None:
        """Check that there are harmful and harmless queries where both are needed."""
        if not (self.harmful and self.harmless):
            present, missing = ("harmful", "harmless") if self.harmful else ("harmless", "harmful")
            raise PromptError(
                f"every alignment query is {present}.",
                f"Add {missing} queries to `respond.alignment_queries`: both kinds are needed.",
            )
        if self._recipe.align.over_refusal is not None and all(query.expect != "comply" for query in self.classifier):
            raise PromptError(
                "align.over_refusal is a share of the classifier's queries to comply with, and there is none.",
                "Add some to `respond.classifier_queries`, or leave `align.over_refusal` out.",
            )

    def _check_held_out(self) -> None:
        """Check that no query is also in a suite."""
        queries = {fold(prompt.text) for prompt in (*self.classifier, *self.alignment)}
        for name, prompts in self.suites.items():
            shared = [prompt.id for prompt in prompts if fold(prompt.text) in queries]
            if shared:
                raise PromptError(
                    f"suite {name} holds {len(shared)} prompts that the model is aligned on (first: {shared[0]}).",
                    "Use another split or file for one of the two.",
                )
