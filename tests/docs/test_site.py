"""The site builds as `make docs` builds it: strict, so that a broken link or a page outside the navigation fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from paths import DOCS, ROOT, STUDIES

LIMIT_S = 40
"""CPU seconds that a build may take: it should not be what a person waits for."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        timeout=300,
    )
    after = os.times()
    assert done.returncode == 0, done.stderr[-3000:]
    used = after.children_user + after.children_system - before.children_user - before.children_system
    assert used < LIMIT_S, f"the site took {used:.0f} s of CPU time"
    return out


def test_every_page_is_built(site: Path) -> None:
    pages = [page.relative_to(DOCS).with_suffix(".html") for page in DOCS.rglob("*.md")]
    assert len(pages) > 40
    assert [page for page in pages if not (site / page).exists()] == []
    for generated in ("reference/cli.html", "reference/recipe.html", "reference/api.html", "research/log.html"):
        assert (site / generated).exists()
    for study in STUDIES.glob("*/study.md"):
        assert (site / "research" / "studies" / f"{study.parent.name}.html").exists()


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    fetched = re.compile(
        r"<(?:script|img|iframe)[^>]+src=\"?(?:https?:)?//[^\"> ]+|<link[^>]+rel=\"?stylesheet[^>]+//[^>]+"
    )
    pages = list(site.rglob("*.html"))
    assert len(pages) > 70
    found = {match for page in pages for match in fetched.findall(page.read_text(encoding="utf-8"))}
    assert found == set()
    assert fetched.search('<script src="https://example.org/mermaid.js">')
    assert fetched.search('<link rel="stylesheet" href="//fonts.example.org/css">')


def test_generated_pages_have_what_the_code_has(site: Path) -> None:
    import presafe

    commands = (site / "reference/cli.html").read_text(encoding="utf-8")
    assert all(f'id="presafe-{verb}"' in commands for verb in ("probe", "run", "compare", "doctor", "list"))
    assert "--batch-tokens" in commands
    settings = (site / "reference/recipe.html").read_text(encoding="utf-8")
    assert "<code>lambda_align</code>" in settings
    assert "<code>thinking_off_share</code>" in settings
    names = (site / "reference/api.html").read_text(encoding="utf-8")
    assert [name for name in presafe.__all__ if f'id="presafe.{name}"' not in names] == []


def test_links_between_files_become_links_between_pages(site: Path) -> None:
    page = (site / "research/shipped.html").read_text(encoding="utf-8")
    assert 'href="studies/shipped.html"' in page
    assert 'href="../contributing/design/0008-rows-with-cot-off.html"' in page


def test_links_as_the_site_writes_them() -> None:
    import hooks

    def written(markdown: str, place: str = "guides/measure.md") -> str:
        page = SimpleNamespace(file=SimpleNamespace(src_uri=place), meta={})
        return hooks.on_page_markdown(markdown, page)

    assert written("[a](../concepts/cot.md#x)") == "[a](../concepts/cot.md#x)"
    assert written("[why](../../design/0001-house.md)") == "[why](../contributing/design/0001-house.md)"
    assert written("[front](../../README.md)") == "[front](../index.md)"
    # the site has no copy of a source file: its name stays, without a link
    assert written("[`pyproject.toml`](../../pyproject.toml)") == "`pyproject.toml`"
    # a link to nothing stays, and a strict build fails on it
    assert written("[nowhere](nowhere.md)") == "[nowhere](nowhere.md)"
    assert written("`[x](nowhere.md)` [y](https://example.org)") == "`[x](nowhere.md)` [y](https://example.org)"
    # a page from elsewhere: its links start from where its file lies
    assert written("[words](docs/reference/vocabulary.md)", "contributing/index.md") == (
        "[words](../reference/vocabulary.md)"
    )
