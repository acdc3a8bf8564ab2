"""`presafe list`: every list is one aligned table."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from presafe.cli.listing import _ENTRIES, Kind
from presafe.cli.main import app


@pytest.mark.parametrize("kind", list(Kind))
def test_columns_fit_the_longest_name(kind: Kind) -> None:
    # Failed first for recipes: names of more than 24 letters pushed their titles to the right.
    entries = _ENTRIES[kind]()
    column = max(len(name) for name, _ in entries) + 1
    lines = CliRunner().invoke(app, ["list", kind.value]).output.splitlines()
    assert len(lines) == len(entries) > 0
    for line, (name, what) in zip(lines, entries, strict=True):
        assert line[:column].rstrip() == name
        assert line[column:] == what
