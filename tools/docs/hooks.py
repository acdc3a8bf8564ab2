"""What the site has beside the files of docs/: generated reference pages, and files that live elsewhere in the project.

Links in a page are written as they are in the repository. A link to a file that is on the site leads to its page there;
a link to another file of the repository becomes plain text, because the site has no copy of it. A link to nothing is
left as it is, so that a strict build fails.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import mends
import reference
from mkdocs.structure.files import File
from paths import LOG, RECORDS, ROOT, STUDIES

_LINK = re.compile(
    r"```.*?```|`[^`\n]+`|(?P<before>!?\[(?:[^\[\]]|\[[^\]]*\])*\])\((?P<target>[^()\s]+)\)", flags=re.DOTALL
)
"""A link; or code, in which nothing is a link."""


def _studies() -> dict[str, Path]:
    return {f"research/studies/{file.parent.name}.md": file for file in sorted(STUDIES.glob("*/study.md"))}


def _records() -> dict[str, Path]:
    return {f"contributing/design/{file.name}": file for file in sorted(RECORDS.glob("[0-9]*.md"))}


def _elsewhere() -> dict[str, Path]:
    """Return the pages of the site whose source lies outside docs/, by their place on the site."""
    return {
        **_studies(),
        **_records(),
        "research/log.md": LOG,
        "contributing/index.md": ROOT / "CONTRIBUTING.md",
        "contributing/security.md": ROOT / "SECURITY.md",
        "start/examples.md": ROOT / "examples" / "README.md",
    }


def _pictures() -> dict[str, Path]:
    return {
        f"research/studies/{file.parent.parent.name}/{file.name}": file
        for file in sorted(STUDIES.glob("*/figures/*.svg"))
    }


def _title(file: Path) -> str:
    line = next(line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("# "))
    return line.removeprefix("# ").strip()


def on_config(config: Any) -> Any:
    """Add the generated pages to the navigation."""
    sections = {title: pages for entry in config.nav for title, pages in entry.items()}
    sections["Getting started"].append({"Examples": "start/examples.md"})
    sections["Research"].append({"Experiment log": "research/log.md"})
    tables = [{file.parent.name.replace("_", " "): place} for place, file in _studies().items()]
    sections["Research"].append({"Tables of every study": tables})
    sections["Contributing"].append({"Design records": [{_title(file): place} for place, file in _records().items()]})
    sections["Contributing"].append({"Security": "contributing/security.md"})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages, and the files from elsewhere."""
    generated = {
        "reference/cli.md": reference.command_line(),
        "reference/recipe.md": reference.recipe(),
        "reference/api.md": reference.api(),
    }
    for place, text in generated.items():
        files.append(File.generated(config, place, content=text))
    for place, file in {**_elsewhere(), **_pictures()}.items():
        files.append(File.generated(config, place, abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    place = page.file.src_uri
    if "<!-- modules -->" in markdown:
        markdown = markdown.replace("<!-- modules -->", reference.modules())
    if "<!-- mends -->" in markdown:
        markdown = markdown.replace("<!-- mends -->", mends.table())
    if place.startswith("research/studies/"):
        page.meta["search"] = {"exclude": True}  # tables of numbers: no words to search for
    source = _elsewhere().get(place, ROOT / "docs" / place)
    homes = {file: where for where, file in {**_elsewhere(), **_pictures()}.items()}

    def rewritten(match: re.Match[str]) -> str:
        target, _, anchor = (match["target"] or "").partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        file = (source.parent / target).resolve()
        if file in homes:
            home = homes[file]
        elif file.is_relative_to(ROOT / "docs"):
            home = file.relative_to(ROOT / "docs").as_posix()
        elif file == ROOT / "README.md":
            home = "index.md"
        elif file.exists():
            return match["before"].lstrip("!")[1:-1]
        else:
            return match[0]
        relative = posixpath.relpath(home, posixpath.dirname(place) or ".")
        return f"{match['before']}({relative}{'#' + anchor if anchor else ''})"

    return _LINK.sub(rewritten, markdown)
