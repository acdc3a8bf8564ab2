"""Files of safe thoughts and answers, in the columns of their publishers and in a user's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from presafe.config.sources import SafetyData
from presafe.errors import PromptError
from presafe.prompts.traces import load_traces

STAR = [
    {"id": "1", "question": "A?", "response": "<think>\nWhy a.\n</think>\n\nNo.", "category": ["Theft"]},
    {"id": "2", "question": "B?", "response": "<think>Why b.</think>I won't.", "category": ["Fraud"]},
]


def write(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def test_star1s_columns_load_as_they_are(tmp_path: Path) -> None:
    traces = load_traces(SafetyData(file=write(tmp_path, STAR)))
    assert [(t.prompt.id, t.prompt.text, t.prompt.expect) for t in traces] == [
        ("mine-0001", "A?", "refuse"),
        ("mine-0002", "B?", "refuse"),
    ]
    assert [(t.response.prompt_id, t.response.thought, t.response.answer) for t in traces] == [
        ("mine-0001", "Why a.", "No."),
        ("mine-0002", "Why b.", "I won't."),
    ]
    assert traces[0].prompt.target != traces[1].prompt.target
    assert all(t.response.complete for t in traces)


def test_other_columns_are_named(tmp_path: Path) -> None:
    rows = [{"ask": "A?", "why": "Why a.", "say": "No."}, {"ask": "B?", "why": "Why b.", "say": "No b."}]
    data = SafetyData(file=write(tmp_path, rows), prompt_column="ask", thought_column="why", response_column="say", n=1)
    (trace,) = load_traces(data)
    assert (trace.prompt.text, trace.response.thought, trace.response.answer) == ("A?", "Why a.", "No.")


def test_file_is_looked_for_in_the_published_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder, rows in ((here, STAR[:1]), (there, STAR)):
        folder.mkdir()
        write(folder, rows)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRESAFE_DATA", str(there))
    assert len(load_traces(SafetyData(file=Path("mine.json")))) == 2
    monkeypatch.chdir(here)  # a file that is there comes first
    assert len(load_traces(SafetyData(file=Path("mine.json")))) == 1
    monkeypatch.delenv("PRESAFE_DATA")
    with pytest.raises(PromptError, match=r"other\.json"):
        load_traces(SafetyData(file=Path("other.json")))


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"question": "A?", "answer": "No."}, "no text in column 'response'; it has: question, answer"),
        ({"question": "A?", "response": "No."}, "row 1 has no thought"),
        ({"question": "A?", "response": "<think>Hm.</think> "}, "row 1 has no answer"),
        ({"question": "A?", "response": None}, "no text in column 'response'"),
    ],
)
def test_a_row_without_its_parts_is_named(tmp_path: Path, row: dict[str, Any], complaint: str) -> None:
    with pytest.raises(PromptError, match=complaint):
        load_traces(SafetyData(file=write(tmp_path, [row])))


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"No such file.*PRESAFE_DATA"):
        load_traces(SafetyData(file=tmp_path / "none.json"))
