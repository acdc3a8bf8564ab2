"""Published benchmarks: from local files in their publishers' own columns, or from the Hugging Face hub.

No published file is shipped: the user names the folder of the files, or lets presafe fetch the hub's copy.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from presafe.config.files import published_folder
from presafe.config.sources import Draw, HubSource, SetSource, Source, SuiteSource
from presafe.errors import PromptError
from presafe.prompts.hub import hub_rows
from presafe.prompts.problems import choice_prompts, code_prompts
from presafe.prompts.rows import read_rows
from presafe.prompts.sets import from_rows, load_source, skip_and_take
from presafe.records import Expect, Prompt
from presafe.runs.manifest import sha256_of_file
from presafe.runtime.progress import console


class Layout(BaseModel):
    """Names of a table's columns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    where: tuple[str, str] | None = None
    """A column and a text: keep only rows whose column starts with it."""
    context: str | None = None
    """Column that is put before the prompt, with a rule between the two."""
    target: str | None = None
    """Column of the reference answer."""


class HubCopy(Layout):
    """A benchmark's config and split in the data set that `source` names, and its columns there."""

    config: str | None = None
    split: str


class Suite(Layout):
    """A published benchmark: its file below the data folder, how to read it, and what it should hold."""

    file: str
    expect: Expect
    source: str
    """Where it is published."""
    license: str
    version: int = 1
    """Ours: increased when presafe reads the suite differently. `presafe compare` refuses results of two versions."""
    num_prompts: int | None = None
    """Number of prompts, after `where`; None if we do not know it."""
    sha256: str | None = None
    """Of the publisher's file; None if its terms keep it from us: then only the number of prompts is checked."""
    harmful_half: str | None = None
    """For a harmless suite: the harmful suite that its publisher worded like it."""
    target_after: str = ""
    """Mark before the reference in its column, if a worked solution comes first."""
    hub: HubCopy | None = None
    """The copy on the hub; None if the hub's rows differ from the publisher's."""


PUBLISHED = {
    name: Suite.model_validate(fields)
    for name, fields in tomllib.loads(
        resources.files("presafe.evaluation").joinpath("suites.toml").read_text(encoding="utf-8")
    ).items()
}

OWN = {
    "smolthink_harmful": SetSource(set="harmful"),
    "smolthink_benign": SetSource(set="benign"),
    "smolthink_borderline": SetSource(set="borderline"),
    "arithmetic": SetSource(set="arithmetic", n=200),
}
"""The project's own held-out prompts."""


def suite_names() -> list[str]:
    """Return the names of all suites that `presafe evaluate` accepts."""
    return [*OWN, *PUBLISHED]


def harmful_half(suite: str) -> str | None:
    """Return the harmful suite that belongs to a harmless one and is worded like it, or None.

    Published pairs are known; of a user's own suites, NAME is the harmful half of NAME_benign.
    """
    if suite in PUBLISHED:
        return PUBLISHED[suite].harmful_half
    is_own_half = suite.endswith("_benign") and suite not in OWN
    return suite.removesuffix("_benign") if is_own_half else None


def suites_of(name: str) -> list[str]:
    """Return the suites that a name stands for: itself, or the suites of a benchmark such as `xstest`.

    Raises:
        PromptError: no suite of that name.
    """
    if name in suite_names():
        return [name]
    if suites := [suite for suite in suite_names() if suite.startswith(f"{name}_")]:
        return suites
    raise PromptError(f"no suite {name!r}.", f"There are: {', '.join(suite_names())}.")


def load_suite(name: str, data_dir: Path | None, seed: int) -> list[Prompt]:
    """Load the prompts of a suite.

    Args:
        name: One of `suite_names()`.
        data_dir: Folder of the published files; None fetches the hub's copy of a published suite.
        seed: Seed of generated arithmetic, and of the order of options.

    Raises:
        PromptError: no such suite; a file that is missing or empty, or lacks its column or a reference; a suite that
            the hub has no copy of, or that cannot be fetched.
    """
    if suites_of(name) != [name]:
        raise PromptError(f"{name} has several parts: {', '.join(suites_of(name))}.", "Load one of them.")
    if name in OWN:
        return load_source(OWN[name], seed)
    suite = PUBLISHED[name]
    if data_dir is None:
        copy, rows = _hub_rows(suite)
        prompts = _prompts(suite, copy, rows, suite.source, suite.source.rpartition("/")[2], seed)
        origin, sha256 = suite.source, None
    else:
        path = data_dir / suite.file
        prompts = _prompts(suite, suite, read_rows(path), str(path), path.stem, seed)
        origin, sha256 = str(path), sha256_of_file(path) if suite.sha256 else None
    is_other_number = suite.num_prompts not in (None, len(prompts))
    differing = [f"{len(prompts)} prompts, published are {suite.num_prompts}"] * is_other_number
    if sha256 and suite.sha256 and sha256 != suite.sha256:
        differing.append(f"its sha256 begins with {sha256[:12]}, the publisher's with {suite.sha256[:12]}")
    if differing:
        console.print(
            f"  {name}: {origin} differs from what presafe knows of the publisher's ({'; '.join(differing)}): compare "
            "its numbers with care.",
            soft_wrap=True,
        )
    return [prompt.model_copy(update={"version": suite.version}) for prompt in prompts]


def prompts_of(source: Source, seed: int, how: Draw) -> list[Prompt]:
    """Load the prompts of a recipe's suite: a published one, or any other source.

    Args:
        source: The suite as the recipe gives it. A published one is read from the folder that PRESAFE_DATA names.
        seed: As `load_suite`, and of the draw.
        how: How the source's `n` prompts are taken.

    Raises:
        PromptError: as `load_suite` and `load_source`, or there are fewer prompts than the source asks for.
    """
    if isinstance(source, SuiteSource):
        return skip_and_take(load_suite(source.suite, published_folder(), seed), source, how, seed)
    return load_source(source, seed, how=how)


def origin_of(name: str, data_dir: Path | None) -> dict[str, Any]:
    """Return what a manifest keeps of a suite: version, source, license, file, its sha256 and the publisher's.

    Args:
        name: One of `suite_names()`.
        data_dir: As `load_suite`.
    """
    if name in OWN:
        return {"version": 1, "source": "presafe", "license": "Apache-2.0", "file": None}
    suite = PUBLISHED[name]
    file = data_dir / suite.file if data_dir is not None else None
    return {
        "version": suite.version,
        "source": suite.source,
        "license": suite.license,
        "file": str(file) if file else None,
        "sha256": sha256_of_file(file) if file else None,
        "published_sha256": suite.sha256,
    }


def _prompts(
    suite: Suite, layout: Layout, rows: Sequence[dict[str, Any]], origin: str, stem: str, seed: int
) -> list[Prompt]:
    """Turn the rows of a suite into prompts.

    Args:
        suite: The suite.
        layout: Its columns in these rows.
        rows: Cells by column.
        origin: File or data set, for error messages.
        stem: First part of the prompts' ids.
        seed: Of the order of options.

    Raises:
        PromptError: there are no rows, or a row lacks a column or its reference.
    """
    if not rows:
        raise PromptError(f"{origin} holds no prompts.", f"Take the publisher's file ({suite.source}).")
    if suite.expect == "choice":
        return choice_prompts(rows, stem, seed)
    if suite.expect == "code":
        return code_prompts(rows)
    prompts = from_rows(
        rows,
        origin,
        stem,
        expect=suite.expect,
        column=layout.column,
        context_column=layout.context,
        target_column=layout.target,
        where=layout.where,
    )
    if not (mark := suite.target_after):
        return prompts
    split_targets = [str(prompt.target).rpartition(mark) for prompt in prompts]
    for number, (_, separator, reference) in enumerate(split_targets, start=1):
        if not (separator and reference.strip()):
            raise PromptError(f"{origin}: row {number} has no reference after {mark!r} in {layout.target!r}.")
    return [
        prompt.model_copy(update={"target": reference.strip()})
        for prompt, (_, _, reference) in zip(prompts, split_targets, strict=True)
    ]


@cache
def _hub_rows(suite: Suite) -> tuple[HubCopy, list[dict[str, Any]]]:
    """Fetch the hub's copy of a suite: its layout and its rows.

    Raises:
        PromptError: there is no copy, or it cannot be fetched.
    """
    copy = suite.hub
    if copy is None:
        raise PromptError(
            f"{suite.file} has no copy on the hub that presafe knows ({suite.source}, {suite.license}).",
            "Download the publisher's file and give the folder that holds it with `data_dir` or PRESAFE_DATA.",
        )
    source = HubSource(
        hub=suite.source,
        config=copy.config,
        split=copy.split,
        column=copy.column,
        expect="comply",  # a source needs one; the suite's own value is used
        license=suite.license,
    )
    try:
        return copy, hub_rows(source)
    except PromptError as error:
        raise PromptError(
            error.problem, f"{error.hint} Or give the folder that holds {suite.file} with `data_dir` or PRESAFE_DATA."
        ) from error
