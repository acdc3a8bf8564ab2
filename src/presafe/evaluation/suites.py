"""Published benchmarks from local files, in their publishers' own columns.

Nothing published is shipped: a user downloads a benchmark from its publisher and names the folder.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from presafe.errors import PromptError
from presafe.evaluation.problems import choice_prompts, code_prompts
from presafe.manifest import sha256_of_file
from presafe.progress import console
from presafe.prompts.sets import from_file, load_source, read_rows
from presafe.recipe import Source
from presafe.records import Expect, Prompt


class Suite(BaseModel):
    """A published benchmark: where its file lies under the data folder, how to read it, and what it should hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    column: str
    expect: Expect
    source: str
    """Where it is published."""
    licence: str
    num_prompts: int
    """How many prompts it has, those only that `where` keeps."""
    sha256: str | None = None
    """Of the publisher's file; None where its terms kept it from us, and only the number of its prompts is checked."""
    where: tuple[str, str] | None = None
    """Keep rows whose column starts with a text."""
    context: str | None = None
    """Column that goes before the prompt, with a rule between."""
    target: str | None = None
    """Column of the reference answer."""
    target_after: str = ""
    """What the reference stands after in its column, where a working comes first."""


PUBLISHED = {
    name: Suite.model_validate(fields)
    for name, fields in tomllib.loads(
        resources.files("presafe.evaluation").joinpath("suites.toml").read_text(encoding="utf-8")
    ).items()
}

OWN = {
    "smolthink_harmful": Source(set="harmful"),
    "smolthink_benign": Source(set="benign"),
    "smolthink_borderline": Source(set="borderline"),
    "arithmetic": Source(set="arithmetic", n=200),
}
"""The project's own held-out prompts."""


def suite_names() -> list[str]:
    """Every suite that `presafe evaluate --suite` knows."""
    return [*OWN, *PUBLISHED]


def load_suite(name: str, data_dir: Path | None, seed: int) -> list[Prompt]:
    """The prompts of a suite.

    Args:
        name: One of `suite_names()`.
        data_dir: Folder of the published files; not needed for the project's own.
        seed: Seed of generated arithmetic, and of the order of options.

    Raises:
        PromptError: no such suite, no data folder, or a file that is missing or lacks its column.
    """
    if name in OWN:
        return load_source(OWN[name], seed)
    if name not in PUBLISHED:
        raise PromptError(f"no suite {name!r}.", f"There are: {', '.join(suite_names())}.")
    suite = PUBLISHED[name]
    if data_dir is None:
        raise PromptError(
            f"suite {name} is a published file that is not shipped ({suite.source}, {suite.licence}).",
            f"Download it and give the folder that holds {suite.file} with --data-dir.",
        )
    path = data_dir / suite.file
    prompts = _read(suite, path, seed)
    is_known = len(prompts) == suite.num_prompts if suite.sha256 is None else sha256_of_file(path) == suite.sha256
    if not is_known:
        console.print(
            f"  {name}: {path} differs from the publisher's file that presafe knows ({len(prompts)} prompts, published "
            f"are {suite.num_prompts}): compare its numbers with care."
        )
    if mark := suite.target_after:
        prompts = [each.model_copy(update={"target": str(each.target).rpartition(mark)[2].strip()}) for each in prompts]
    return prompts


def _read(suite: Suite, path: Path, seed: int) -> list[Prompt]:
    if suite.expect == "choice":
        return choice_prompts(read_rows(path), path.stem, seed)
    if suite.expect == "code":
        return code_prompts(read_rows(path))
    return from_file(
        path,
        expect=suite.expect,
        column=suite.column,
        context_column=suite.context,
        target_column=suite.target,
        where=suite.where,
    )
