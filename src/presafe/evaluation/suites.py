"""Published benchmarks from local files, in their publishers' own columns.

Nothing published is shipped: a user downloads a benchmark from its publisher and names the folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from presafe.errors import PromptError
from presafe.prompts.sets import from_file, load_source
from presafe.recipe import Source
from presafe.records import Expect, Prompt


class Suite(NamedTuple):
    """A published benchmark: where its file lies under the data folder, and how to read it."""

    file: str
    column: str
    expect: Expect
    source: str
    licence: str
    where: tuple[str, str] | None = None
    """Keep rows whose column starts with a text."""


PUBLISHED = {
    "strong_reject": Suite(
        "strongreject/strongreject_dataset.csv", "forbidden_prompt", "refuse", "walledai/StrongREJECT", "MIT"
    ),
    "jailbreakbench": Suite(
        "jailbreakbench/harmful-behaviors.csv", "Goal", "refuse", "JailbreakBench/JBB-Behaviors", "MIT"
    ),
    "jailbreakbench_benign": Suite(
        "jailbreakbench/benign-behaviors.csv", "Goal", "comply", "JailbreakBench/JBB-Behaviors", "MIT"
    ),
    "xstest_safe": Suite(
        "xstest/xstest_prompts.csv", "prompt", "comply", "walledai/XSTest", "CC-BY-4.0", ("label", "safe")
    ),
    "xstest_unsafe": Suite(
        "xstest/xstest_prompts.csv", "prompt", "refuse", "walledai/XSTest", "CC-BY-4.0", ("label", "unsafe")
    ),
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
        seed: Seed of generated arithmetic.

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
    return from_file(data_dir / suite.file, expect=suite.expect, column=suite.column, where=suite.where)
