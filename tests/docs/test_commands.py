"""Command lines, code blocks and names in README.md, CONTRIBUTING.md, docs/ and examples/ are what the package has."""

from __future__ import annotations

import re
import shlex
import tomllib
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from paths import ROOT, pages
from typer.testing import CliRunner

from presafe.cli.main import app

PAGES = [page for page in pages() if page.name != "CHANGELOG.md"]
IDS = [page.relative_to(ROOT).as_posix() for page in PAGES]
GROUP: Any = typer.main.get_command(app)
_BLOCK = re.compile(r"```(?P<language>\w+)\n(?P<code>.*?)```", flags=re.DOTALL)
_STARTS = (["presafe"], ["python", "-m", "presafe.cli.main"], ["-m", "presafe.cli.main"])


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of one language on a page."""
    found = _BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [match["code"] for match in found if match["language"] == language]


def words_of(line: str) -> list[str] | None:
    """Return the words after `presafe` of a shell line; None where the line runs another program."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if words[:2] == ["accelerate", "launch"] and "presafe.cli.main" in words:
        return words[words.index("presafe.cli.main") + 1 :]
    return words[1:] if words[:1] == ["presafe"] else None


def shell_commands(page: Path) -> list[list[str]]:
    """Every `presafe …` line of a page's shell blocks."""
    lines = [line for code in blocks(page, "sh") for line in code.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := words_of(line)) is not None]


def inline_commands(page: Path) -> list[list[str]]:
    """Every `presafe …` that stands as code within a sentence or a table."""
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    codes = [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", text)]
    found = [words_of(code) for code in codes if re.match(r"(?:[A-Z_]+=\S+ )?presafe [a-z-]", code)]
    return [words for words in found if words is not None]


def problem_of(words: list[str], *, is_whole: bool) -> str | None:
    """Return what is wrong with a command line, without running it; a name in a sentence may leave arguments out."""
    name, *rest = words
    if name.startswith("--"):
        return None if name in {option for parameter in GROUP.params for option in parameter.opts} else name
    if name not in GROUP.commands:
        return f"no command {name}"
    try:
        GROUP.commands[name].make_context(name, list(rest))
    except Exception as error:
        if type(error).__name__ == "MissingParameter" and not is_whole:
            return None
        return f"{type(error).__name__}: {error}"
    return None


def listed(kind: str) -> str:
    return CliRunner().invoke(app, ["list", kind]).output


def test_the_parser_finds_mistakes() -> None:
    assert problem_of(["probe", "smolthink", "--limit", "3"], is_whole=True) is None
    assert "no command" in str(problem_of(["prob", "smolthink"], is_whole=True))
    assert "--limits" in str(problem_of(["probe", "smolthink", "--limits", "3"], is_whole=True))
    assert problem_of(["probe", "smolthink", "--limit", "0"], is_whole=True) is not None  # at least 1
    assert problem_of(["probe"], is_whole=True) is not None
    assert problem_of(["probe"], is_whole=False) is None
    assert words_of("PRESAFE_DATA=DATA presafe study head  # all") == ["study", "head"]
    assert words_of("vllm serve BASE") is None


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_parse(page: Path) -> None:
    problems = [(words, problem_of(words, is_whole=True)) for words in shell_commands(page)]
    problems += [(words, problem_of(words, is_whole=False)) for words in inline_commands(page)]
    assert [(words, problem) for words, problem in problems if problem] == []


def test_there_are_commands_to_parse() -> None:
    assert sum(len(shell_commands(page)) for page in PAGES) > 40
    assert sum(len(inline_commands(page)) for page in PAGES) > 60


def test_names_in_commands_exist() -> None:
    shipped = {"study": listed("studies"), "run": listed("recipes"), "plan": listed("recipes")}
    suites = listed("suites")
    assert "control" in shipped["study"].split()
    assert "smolthink-135m" in shipped["run"].split()
    assert {"strong_reject", "xstest_safe"} <= set(suites.split())
    assert "no_such_suite" not in suites.split()
    wrong = []
    for page in PAGES:
        for words in (*shell_commands(page), *inline_commands(page)):
            name, *rest = words
            if name in shipped and rest and re.fullmatch(r"[a-z][\w.-]*", rest[0]) and not rest[0].endswith(".toml"):
                wrong += [] if rest[0] in shipped[name].split() else [(page.name, *words)]
            if name == "study" and rest and rest[0].startswith("research/") and not (ROOT / rest[0]).is_file():
                wrong.append((page.name, *words))
            for option, value in pairwise(rest):
                if option == "--suite" and value != "S":
                    wrong += [(page.name, suite) for suite in value.split(",") if suite not in suites.split()]
    # names of several parts are no row of the list: xstest is xstest_safe and xstest_unsafe
    assert [line for line in wrong if line[1] != "xstest"] == []


def test_make_targets_exist() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    named = {
        target
        for page in PAGES
        for target in re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    }
    assert {"demo", "test", "docs", "check"} <= named
    assert named <= set(targets)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_code_blocks_are_code(page: Path) -> None:
    for code in blocks(page, "python"):
        if "--8<--" not in code:
            compile(code, page.name, "exec")
    for code in blocks(page, "toml"):
        assert tomllib.loads(code)


def test_names_of_the_package_exist() -> None:
    wrong, count = [], 0
    for page in PAGES:
        for name in set(re.findall(r"`(presafe(?:\.\w+)+)`", page.read_text(encoding="utf-8"))):
            count += 1
            home, _, last = name.rpartition(".")
            try:
                if not hasattr(import_module(home), last):
                    import_module(name)
            except ImportError:
                wrong.append((page.name, name))
    assert count > 15
    assert wrong == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md"])
def test_links_lead_somewhere(page: str) -> None:
    file = ROOT / page
    links = re.findall(r"\]\(([^()\s]+)\)", file.read_text(encoding="utf-8"))
    local = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert local
    for link in local:
        target, _, anchor = link.partition("#")
        assert (file.parent / target).exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.+)$", (file.parent / target).read_text(encoding="utf-8"), flags=re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}
            assert anchor in slugs, link


def test_citation_is_whole() -> None:
    import yaml

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert len(citation["preferred-citation"]["authors"]) == 6
    assert "2603.17368" in citation["preferred-citation"]["url"]


@pytest.mark.parametrize("file", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda file: file.name)
def test_workflows_call_make(file: Path) -> None:
    import yaml

    workflow = yaml.safe_load(file.read_text(encoding="utf-8"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    runs = [step["run"] for step in steps if "run" in step]
    assert any(run.startswith("make ") for run in runs)
    # an action is pinned by its version, and no job may write to the repository
    assert all(re.search(r"@v\d+(\.\d+)*$", step["uses"]) for step in steps if "uses" in step)
    assert workflow["permissions"] == {"contents": "read"}
