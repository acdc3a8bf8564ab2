"""Where the documentation's sources lie. Change a path here and nowhere else in tools/docs."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
STUDIES = ROOT / "research" / "studies"
LOG = ROOT / "research" / "LOG.md"
RECORDS = ROOT / "design"
_FOLDERS = (DOCS, ROOT / "examples", ROOT / "plugins", ROOT / "register", RECORDS, ROOT / "benchmarks")


def pages() -> list[Path]:
    """Return every page for readers that is a file in the repository; not the log and the tables of the studies."""
    front = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
    return [*front, *(page for folder in _FOLDERS for page in sorted(folder.rglob("*.md")))]
