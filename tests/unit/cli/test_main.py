"""How errors are printed: the library names settings, and the command line prints the verb's own options."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from presafe.cli.main import main, with_flags


def printed_line(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that fails, and return its one line on stderr."""
    monkeypatch.setattr(sys, "argv", ["presafe", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("verb", "message", "expected"),
    [
        ("probe", "Raise `max_tokens`.", "Raise --max-tokens."),
        ("sweep", "Lower `batch_tokens` or `max_tokens`.", "Lower --batch-tokens or --max-tokens."),
        ("evaluate", "Name one with `column`.", "Name one with --column."),
        ("evaluate", "Set `data_dir` or PRESAFE_DATA.", "Set --data-dir or PRESAFE_DATA."),
        ("look", "Name another `layer`.", "Name another --layer."),
        ("run", 'Stop with `until = "signal"`.', "Stop with --until signal."),
        ("evaluate", 'Take it as it is (`sandbox = "local"`).', "Take it as it is (--sandbox local)."),
        ("run", "Choose another folder with `out`.", "Choose another folder with --out."),
        # A recipe's settings are no options of `presafe run`, and keep their names.
        ("run", "Raise `max_tokens`, or name a `judge`.", "Raise `max_tokens`, or name a `judge`."),
        ("probe", "See `presafe list suites`, or `thinking_off`.", "See `presafe list suites`, or `thinking_off`."),
    ],
)
def test_settings_are_printed_as_options(verb: str, message: str, expected: str) -> None:
    assert with_flags(message, [verb, "smolthink"]) == expected
    assert with_flags(message, ["--version"]) == message


def test_a_users_folder_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "letter.txt").write_text("mine", encoding="utf-8")
    words = ["run", "smolthink-135m", "--out", str(tmp_path)]
    line = printed_line(words, monkeypatch, capsys)
    assert line == (
        f"presafe: {tmp_path} holds files that are not presafe's (such as letter.txt). "
        "Choose another folder with --out."
    )


def test_a_folder_without_a_study_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.json").write_text("{}", encoding="utf-8")
    line = printed_line(["study", "control", "--out", str(tmp_path)], monkeypatch, capsys)
    assert line == f"presafe: {tmp_path / 'study.json'} is not a file of a study. Choose another folder with --out."


def test_a_suite_without_a_hub_copy_names_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PRESAFE_DATA", raising=False)
    words = ["evaluate", "smolthink", "--suite", "harmbench_contextual", "--out", str(tmp_path / "out")]
    assert "with --data-dir or PRESAFE_DATA." in printed_line(words, monkeypatch, capsys)
