"""Entries for the register of inspect_evals, and the page on Inspect: what they name exists.

The rules are those of the register's guide and of its tools as of October 2026: `metadata.py` of inspect_evals, and the
collector that lints pinned commits. Where inspect_evals is installed, its own model reads the entries, too.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from paths import DOCS, ROOT
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from presafe.evaluation.suites import PUBLISHED, suite_names
from presafe.judges.spec import judge_names

REGISTER = ROOT / "register"
ENTRIES = sorted(REGISTER.glob("*/eval.yaml"))
Text = Annotated[str, StringConstraints(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")  # `id` comes from the folder


class EntryTask(_Part):
    """One task of an entry."""

    name: Text
    task_path: Text
    dataset_samples: Annotated[int, Field(gt=0)]


class EntrySource(_Part):
    """Where the task lies: a commit, never a branch or a tag."""

    repository_url: Annotated[str, StringConstraints(pattern=r"^https://github\.com/[\w.-]+/[\w.-]+$")]
    repository_commit: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]


class Entry(_Part):
    """An eval.yaml of the register."""

    full_title: Text
    common_title: Text
    description: Annotated[str, StringConstraints(pattern=r"^[^\n]+$")]
    contributors: Annotated[list[Text], Field(min_length=1)]
    arxiv: Annotated[str, StringConstraints(pattern=r"^https://arxiv\.org/abs/\d{4}\.\d{5}$")]
    tasks: Annotated[list[EntryTask], Field(min_length=1, max_length=1)]
    source: EntrySource


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def tasks_in(path: Path) -> set[str]:
    """Return the functions of a file with `@task`, found as the register's tools and Inspect do: unexecuted."""
    return {
        node.name
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(mark, ast.Name) and mark.id == "task" for mark in node.decorator_list)
    }


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Fill the entries in with the README's own lines."""
    folder = tmp_path_factory.mktemp("register")
    shutil.copytree(REGISTER, folder / "register")
    (code,) = re.findall(r"```sh\n(.*?)```", (REGISTER / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    code = code.replace("$(git rev-parse HEAD)", "$(printf '%040x' 255)")  # a checkout without git has no HEAD
    subprocess.run(["sh", "-ec", code], cwd=folder, check=True)
    return sorted((folder / "entries").glob("*/eval.yaml"))


def test_the_five_benchmarks_have_entries() -> None:
    names = {path.parent.name for path in ENTRIES}
    halves = {"jailbreakbench_benign", "harmbench_contextual", "wildjailbreak_benign"}
    assert names == {"jailbreakbench", "harmbench", "wildjailbreak", "or_bench_hard", "advbench", *halves}
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) for name in names)


@pytest.mark.parametrize("path", ENTRIES, ids=lambda path: path.parent.name)
def test_an_entry_names_tasks_that_exist(path: Path) -> None:
    (task,) = Entry.model_validate(read(path)).tasks
    file = ROOT / task.task_path
    assert task.name == path.parent.name
    assert task.name in tasks_in(file)
    assert (file.parent / "__init__.py").is_file()  # the register lints the package around the file
    assert task.dataset_samples == PUBLISHED[task.name].num_prompts


def test_the_readmes_lines_fill_the_entries_in(filled: list[Path]) -> None:
    assert len(filled) == len(ENTRIES)
    for path in filled:
        source = Entry.model_validate(read(path)).source
        assert source.repository_url == "https://github.com/OWNER/NAME"
        assert source.repository_commit == f"{255:040x}"


def test_the_rules_refuse_what_the_register_refuses() -> None:
    entry = read(ENTRIES[0])
    Entry.model_validate(entry)
    changes: tuple[dict[str, Any], ...] = (
        {"id": "x"},
        {"description": "two\nlines"},
        {"source": entry["source"] | {"repository_commit": "main"}},
        {"source": entry["source"] | {"repository_url": "git@github.com:a/b"}},
        {"tasks": []},
    )
    for wrong in changes:
        with pytest.raises(ValueError, match="validation error"):
            Entry.model_validate(entry | wrong)


def test_inspect_evals_reads_the_entries(filled: list[Path]) -> None:
    metadata = pytest.importorskip("inspect_evals.metadata", reason="inspect_evals is not installed")
    checkout = filled[0].parents[1].parent / "checkout"
    shutil.copytree(filled[0].parents[1], checkout / "register")
    (checkout / "src" / "inspect_evals").mkdir(parents=True)
    listing = metadata.load_listing(checkout / "src" / "inspect_evals")
    assert {entry.id for entry in listing.external_evals} == {path.parent.name for path in filled}
    assert {entry.source.maintainers[0] for entry in listing.external_evals} == {"OWNER"}


def test_the_page_on_inspect_names_every_task_and_judge() -> None:
    page = (DOCS / "guides" / "inspect.md").read_text(encoding="utf-8")
    _, tasks, rest = page.partition("## Tasks")
    table = tasks + rest.partition("`xstest` takes")[0]
    named = {name for line in table.splitlines() if line.startswith("|") for name in re.findall(r"`(\w+)`", line)}
    assert {*suite_names(), "xstest"} - named == set()
    judges = set(re.findall(r"`(\w+)`", page.partition("## Judges")[2].partition("As scorers")[0]))
    assert judges == set(judge_names())
