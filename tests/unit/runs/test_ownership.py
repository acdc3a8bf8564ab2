"""A folder of the user is not written, but a study may lie beside its declaration."""

from __future__ import annotations

from pathlib import Path

import pytest

from presafe.errors import RunError
from presafe.runs.ownership import check_ownership


def test_a_study_may_lie_beside_its_declaration(tmp_path: Path) -> None:
    # Failed first: `presafe study mine/mine.toml --out mine` was refused because of mine.toml.
    for name in ("mine.toml", "queries.jsonl"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    check_ownership(tmp_path, "study.json", (".toml", ".jsonl"))
    with pytest.raises(RunError, match=r"such as mine\.toml"):
        check_ownership(tmp_path, "recipe.json")
    (tmp_path / "figures.toml").mkdir()
    (tmp_path / "figures.toml" / "mine.svg").write_text("x", encoding="utf-8")
    with pytest.raises(RunError, match=r"such as figures\.toml"):
        check_ownership(tmp_path, "study.json", (".toml", ".jsonl"))
