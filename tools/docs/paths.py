"""Where the documentation's sources lie. Change a path here and nowhere else in tools/docs."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
STUDIES = ROOT / "research" / "studies"
LOG = ROOT / "research" / "LOG.md"
RECORDS = ROOT / "design"


def pages() -> list[Path]:
    """Return README.md and every page of the documentation that is a file in the repository."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")), *sorted(EXAMPLES.rglob("*.md"))]


EXAMPLES = ROOT / "examples"
