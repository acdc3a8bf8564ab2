"""Files of a run: written whole or not at all, read back as written; errors name the line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from presafe.errors import PromptError, RunError
from presafe.records import Prompt, Signal
from presafe.runs.io import read_jsonl, read_record, set_aside, write_jsonl, write_text

ONE = Signal(prompt_id="a", probability=0.25)
TWO = Signal(prompt_id="b", probability=1.0)
TWICE = '{"prompt_id": "a", "prompt_id": "b", "probability": 1}'


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "signals.jsonl"
    write_jsonl(path, [ONE, TWO])
    assert path.read_text(encoding="utf-8") == (
        '{"prompt_id":"a","probability":0.25}\n{"prompt_id":"b","probability":1.0}\n'
    )
    assert read_jsonl(path, Signal) == [ONE, TWO]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(min_size=1))
def test_any_text_comes_back(tmp_path: Path, text: str) -> None:
    # Failed first on U+0085 and U+2028, where `str.splitlines` breaks a line and JSON does not.
    prompt = Prompt(id="p", text=f"{text}\u2028\x85.", category="c", split="build", license="l", expect="comply")
    write_jsonl(tmp_path / "p.jsonl", [prompt, prompt])
    assert read_jsonl(tmp_path / "p.jsonl", Prompt) == [prompt, prompt]


def test_empty_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "signals.jsonl"
    path.write_text('\n{"prompt_id": "a", "probability": 0.25}\n\n', encoding="utf-8")
    assert read_jsonl(path, Signal) == [ONE]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt_id": "b", "probability": 1.5}', "probability: Input should be less than or equal to 1"),
        ('{"prompt_id": "b", "probability": "x"}', "probability: Input should be a valid number"),
        ('{"prompt_id": "b"}', "probability: Field required"),
        ('{"prompt_id": "b", "probability": 1, "p": 1}', "p: Extra inputs are not permitted"),
        ('{"prompt_id": "b", ', "line: Invalid JSON"),
        # Failed first: these were read as 0.5, 1 and 0.75.
        ('{"prompt_id": "b", "probability": "0.5"}', "probability: Input should be a valid number"),
        ('{"prompt_id": "b", "probability": true}', "probability: Input should be a valid number"),
        ('{"prompt_id": "b", "probability": 0.5, "probability": 0.75}', "the name 'probability' stands twice"),
    ],
)
def test_a_line_that_does_not_fit_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "signals.jsonl"
    path.write_text(f'{{"prompt_id": "a", "probability": 0.25}}\n\n{line}\n', encoding="utf-8")
    with pytest.raises(RunError) as caught:
        read_jsonl(path, Signal)
    assert str(caught.value).startswith(f"{path}:3: {message}")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot read .*none\.jsonl"):
        read_jsonl(tmp_path / "none.jsonl", Signal)
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(RunError, match=r"cannot read .*bytes\.jsonl: it is not UTF-8 text"):
        read_jsonl(tmp_path / "bytes.jsonl", Signal)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "signals.jsonl"
    write_jsonl(path, [ONE])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError, match=r"cannot write .*signals\.jsonl: No space left on device") as caught:
        write_jsonl(path, [TWO])
    assert "with `out`" in caught.value.hint
    assert read_jsonl(path, Signal) == [ONE]


def test_records_that_fail_half_way_leave_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "signals.jsonl"
    write_jsonl(path, [ONE])

    def broken() -> Iterator[Signal]:
        yield TWO
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_jsonl(path, broken())
    assert read_jsonl(path, Signal) == [ONE]


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    write_text(tmp_path / "a.txt", "größer\n")
    assert (tmp_path / "a.txt").read_bytes() == "größer\n".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(RunError, match=r"cannot write .*a\.txt"):
        write_text(tmp_path / "a.txt", "x")


def test_a_link_stays_and_what_it_points_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    link = tmp_path / "here" / "link.txt"
    link.symlink_to(Path("..") / "there" / "file.txt")  # not there yet
    write_text(link, "one")
    write_text(link, "two")
    assert link.is_symlink()
    assert (tmp_path / "there" / "file.txt").read_text() == "two"
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["link.txt"]


def test_a_cut_file_of_a_run_is_a_run_error(tmp_path: Path) -> None:
    # Failed first: a cut file of a run was called a mistake in the prompts.
    path = tmp_path / "signals.jsonl"
    write_jsonl(path, [ONE, TWO])
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(RunError, match=r"signals\.jsonl:2: line: Invalid JSON.* Do this\.$"):
        read_jsonl(path, Signal, hint="Do this.")
    with pytest.raises(PromptError, match=r"signals\.jsonl:2: line: Invalid JSON"):
        read_jsonl(path, Signal, error=PromptError)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", TWICE, '{"prompt_id": "a", "probability": 2}', "[" * 100_000])
def test_a_damaged_record_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "one.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=r"^cannot read .*one\.json: .* Do this\.$"):
        read_record(path, Signal, hint="Do this.")
    path.write_text(ONE.model_dump_json(), encoding="utf-8")
    assert read_record(path, Signal) == ONE


def test_set_aside_replaces_no_file_and_no_target_of_a_link(tmp_path: Path) -> None:
    for expected in ("a.eval.damaged", "a.eval.damaged2", "a.eval.damaged3"):
        (tmp_path / "a.eval").write_text(expected, encoding="utf-8")
        assert set_aside(tmp_path / "a.eval") == tmp_path / expected
    assert (tmp_path / "a.eval.damaged").read_text(encoding="utf-8") == "a.eval.damaged"
    (tmp_path / "mine").write_text("mine", encoding="utf-8")
    (tmp_path / "b.eval").symlink_to(tmp_path / "mine")
    assert set_aside(tmp_path / "b.eval").is_symlink()
    assert (tmp_path / "mine").read_text(encoding="utf-8") == "mine"
