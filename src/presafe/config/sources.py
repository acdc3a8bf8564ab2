"""Sources of prompts: one class per origin, chosen by the key of the origin that stands in a recipe's table.

{ set = "harmful" }    { file = "mine.csv" }    { hub = "org/name" }    { suite = "gsm8k" }
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, StrictBool, model_validator

from presafe.config.bounds import Count, Positive, Settings

Draw = Literal["stratified", "first"]
"""How a part of a suite is taken: drawn over its categories in proportion, or its first prompts."""
DRAWS: tuple[Draw, ...] = get_args(Draw)


class PromptSlice(Settings):
    """What every source has: how many of its prompts are taken."""

    skip: Count = 0
    """Number of prompts to skip first, so that two sources can share a split without sharing a prompt."""
    n: Positive | None = None
    """Number of prompts to take after `skip`; None takes all (arithmetic needs a number)."""


class SetSource(PromptSlice):
    """A prompt set of the project, or generated arithmetic."""

    set: Literal["harmful", "benign", "borderline", "arithmetic"]
    """Name of the set."""
    split: Literal["build", "align", "held_out"] = "held_out"
    """Split of the set."""
    drawn: StrictBool = Field(default=False, exclude_if=lambda is_drawn: not is_drawn)
    """Whether `respond.seed` decides the order of the prompts before `skip` and `n`. Two sources of one split that are
    both drawn share the order, so `skip` keeps them apart."""

    @property
    def origin(self) -> str:
        """Return what messages call this source."""
        return f"{self.set} ({self.split})"

    @model_validator(mode="after")
    def _check_arithmetic(self) -> Self:
        if self.set == "arithmetic" and self.n is None:
            raise ValueError("arithmetic is generated, so it needs `n`")
        return self


class TableSource(PromptSlice):
    """A table whose columns the recipe names."""

    target_column: str | None = None
    """Column that holds the reference answer."""
    expect: Literal["refuse", "comply", "answer"]
    """What a careful assistant does with these prompts."""

    @model_validator(mode="after")
    def _check_target(self) -> Self:
        if self.expect == "answer" and self.target_column is None:
            raise ValueError('`expect = "answer"` needs `target_column`, the reference answers')
        if self.target_column is not None and self.expect != "answer":
            raise ValueError('`target_column` belongs to `expect = "answer"`')
        return self


class FileSource(TableSource):
    """A file of the user."""

    file: Path
    """A CSV, TSV, JSON or JSONL file, gzipped or not."""
    column: str | None = None
    """Column that holds the prompt; None takes the first known name."""
    planted: StrictBool = Field(default=False, exclude_if=lambda is_planted: not is_planted)
    """Whether these alignment queries test what p′ alone teaches: p′ is 1, whatever the classifier says, and their rows
    carry no next-token loss (ours)."""

    @property
    def origin(self) -> str:
        """Return what messages call this source."""
        return str(self.file)


def check_not_planted(sources: Iterable[object], where: str) -> None:
    """Check that no source is planted.

    Args:
        sources: Sources of any kind.
        where: The setting that they are in, for the error.

    Raises:
        ValueError: one is.
    """
    if any(isinstance(source, FileSource) and source.planted for source in sources):
        raise ValueError(f"`planted` belongs to `respond.alignment_queries`: it has no effect in {where}")


class HubSource(TableSource):
    """A data set on the Hugging Face hub.

    The seed decides the order of its rows. Rows that stand in an evaluation suite, exactly or nearly, are skipped.
    """

    hub: str = Field(min_length=1)
    """Its name, "org/name", or a local folder with the same files."""
    split: str
    """Split of the data set."""
    column: str = Field(min_length=1)
    """Column that holds the prompt."""
    license: str = Field(min_length=1)
    """License of the data set, as its publisher states it, and what access to it needs."""
    revision: str | None = None
    """Branch, tag or full commit of the data set; None takes its main branch."""
    config: str | None = None
    """Configuration of the data set, if it has several."""
    where: dict[str, tuple[str, ...]] = Field(default={})
    """Values by column: keep the rows that have one of the values in each of these columns."""

    @property
    def origin(self) -> str:
        """Return what messages call this source."""
        return f"{self.hub} ({self.split})"


class SuiteSource(PromptSlice):
    """A published suite, to evaluate on."""

    suite: str
    """Name of the suite (`presafe list suites`). Its file is read from the folder that PRESAFE_DATA names; if that is
    not set, the hub's copy is fetched."""

    @property
    def origin(self) -> str:
        """Return what messages call this source."""
        return self.suite


class SafetyData(Settings):
    """Published safe thoughts and answers, in a file on this machine."""

    file: Path
    """A CSV, TSV, JSON or JSONL file, gzipped or not, with one question per row; in the working directory, or in the
    folder that PRESAFE_DATA names."""
    prompt_column: str | None = None
    """Column of the question; None takes the first known name."""
    response_column: str = "response"
    """Column of the answer, or of thought and answer with the thought between <think> and </think>."""
    thought_column: str | None = None
    """Column of the thought, if it has one of its own."""
    n: Positive | None = None
    """Number of rows, from the top; None takes all."""


_SOURCES: dict[str, type[PromptSlice]] = {"set": SetSource, "file": FileSource, "hub": HubSource, "suite": SuiteSource}


def source_class(table: Mapping[str, Any]) -> type[PromptSlice]:
    """Return the class of the origin that a table names; a key that is None does not count.

    Raises:
        ValueError: the table names no origin, or several.
    """
    origins = [origin for origin in _SOURCES if table.get(origin) is not None]
    if len(origins) != 1:
        raise ValueError("give one of `set`, `file`, `hub` and `suite`")
    return _SOURCES[origins[0]]


def _parse_source(table: object) -> object:
    """Return the source that a table describes.

    A discriminator of pydantic would do the same, but the name of the class would stand in the key of each error.
    """
    if isinstance(table, PromptSlice):
        return table
    if not isinstance(table, dict):
        raise ValueError("a source is a table with one of `set`, `file`, `hub` and `suite`")
    source = source_class(table)
    for key in table.keys() - source.model_fields.keys():
        if key == "licence":
            raise ValueError("`licence` is now `license`")
        if owners := [f"a `{origin}`" for origin, other in _SOURCES.items() if key in other.model_fields]:
            raise ValueError(f"`{key}` belongs to {' or '.join(owners)}")
    return source.model_validate(table)


def _check_query_source(source: object) -> object:
    if isinstance(source, SuiteSource):
        raise ValueError(f"{source.suite} is a `suite`: it belongs to `evaluate.suites`, and nothing is trained on it")
    return source


QuerySource = Annotated[
    SetSource | FileSource | HubSource, BeforeValidator(_check_query_source), BeforeValidator(_parse_source)
]
"""A source of prompts to learn from; validators run from right to left."""
Source = Annotated[SetSource | FileSource | HubSource | SuiteSource, BeforeValidator(_parse_source)]
"""A source of prompts to evaluate on."""
