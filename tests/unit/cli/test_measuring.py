"""The options of probe, evaluate and sweep: one list, with the names of default folders as they always were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from presafe.cli import options
from presafe.cli.main import app

SHARED = {
    *("--suite", "--thinking", "--limit", "--data-dir", "--max-tokens", "--samples", "--sandbox", "--batch-size"),
    *("--batch-tokens", "--judge", "--judge-thought", "--family", "--tokenizer", "--dtype", "--json", "--out"),
    "--draw",
    *("--temperature", "--top-p", "--top-k"),
}
ATTACKING = {"--attack", "--defense"}
OWN = {
    "probe": {"--engine"} | ATTACKING,
    "evaluate": {"--adapter", "--prompts", "--column", "--expect", "--engine"} | ATTACKING,
    "tamper": {"--adapter", "--scale", "--ablate", "--layer", "--finetune"} | ATTACKING,
    "sweep": {"--adapter", "--engine"},
}


class FolderNamedError(Exception):
    """Ends a command once its folder is known."""


def parameters_of(verb: str) -> list[Any]:
    group: Any = typer.main.get_command(app)
    parameters: list[Any] = group.commands[verb].params
    return parameters


@pytest.mark.parametrize("verb", OWN)
def test_help_shows_every_option(verb: str) -> None:
    page = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "200"}, terminal_width=200).output
    for name in SHARED | OWN[verb]:
        assert f" {name} " in page, name


@pytest.mark.parametrize("verb", OWN)
def test_verbs_share_their_options(verb: str) -> None:
    assert {option.opts[0] for option in parameters_of(verb)[1:]} == SHARED | OWN[verb]


def test_probe_has_the_defaults_of_evaluate() -> None:
    probe, evaluate = (
        {option.name: (option.opts, option.default, option.help) for option in parameters_of(verb)}
        for verb in ("probe", "evaluate")
    )
    assert {name: evaluate[name] for name in probe} == probe


@pytest.mark.parametrize(
    ("line", "name"),
    [
        # Recorded with commit b2639ed, before the verbs shared their options.
        ("probe smolthink", "probe-smolthink-60218d"),
        (
            "probe smolthink --suite arithmetic,smolthink_benign --limit 4 --thinking off,on --max-tokens 48 "
            "--batch-size 2",
            "probe-smolthink-86f690",
        ),
        (
            "probe smolthink --samples 3 --temperature 0.7 --top-p 0.9 --top-k 20 --judge gcg_strings --family qwen3 "
            "--dtype bfloat16",
            "probe-smolthink-8cc89f",
        ),
        (
            "probe http://127.0.0.1:8000#smolthink --tokenizer smolthink --sandbox local "
            "--judge-thought thought_strings",
            "probe-http---127.0.0.1-8000-smolthink-b83d97",
        ),
        ("evaluate smolthink --suite smolthink_harmful", "evaluate-smolthink-16caa9"),
        (
            "evaluate smolthink --adapter runs/demo/alignment/presafe/adapter --prompts mine.csv --expect comply "
            "--column request --limit 1",
            "evaluate-smolthink-6cbb78",
        ),
        (
            "evaluate smolthink --suite arithmetic --max-tokens 64 --temperature 0.5 --samples 2 --thinking on "
            "--judge gcg_strings --judge-thought thought_strings",
            "evaluate-smolthink-fcaf71",
        ),
        ("sweep smolthink", "sweep-smolthink-86789d"),
        (
            "sweep smolthink --suite arithmetic --temperature 0,0.7 --top-p 0.8,1 --top-k 0,5 --samples 2 "
            "--thinking off --limit 2 --max-tokens 4",
            "sweep-smolthink-446a1e",
        ),
        (
            "sweep smolthink --adapter runs/a --judge gcg_strings --sandbox docker --dtype bfloat16",
            "sweep-smolthink-c55e80",
        ),
    ],
)
def test_default_folders_keep_their_names(
    line: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.csv").write_text("request\nName two colours.\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    folder_for = options.folder_for

    def stop(*parts: Any) -> Path:
        raise FolderNamedError(str(folder_for(*parts)))

    monkeypatch.setattr(options, "folder_for", stop)
    with pytest.raises(FolderNamedError, match=f"^runs/{name}$"):
        CliRunner().invoke(app, line.split(), catch_exceptions=False)


@pytest.mark.parametrize("verb", ["probe", "evaluate", "sweep"])
def test_other_prompts_have_another_folder(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Failed first: --draw first met the folder of other prompts, and was refused there.
    folders = []

    def stop(*parts: Any) -> Path:
        folders.append(parts)
        raise FolderNamedError

    monkeypatch.setattr(options, "folder_for", stop)
    words = [verb, "smolthink", "--suite", "smolthink_harmful", "--limit", "4"]
    for draw in ([], ["--draw", "stratified"], ["--draw", "first"]):
        with pytest.raises(FolderNamedError):
            CliRunner().invoke(app, [*words, *draw], catch_exceptions=False)
    default, stratified, first = folders
    assert default == stratified
    assert first == (*default, "first")


@pytest.mark.parametrize("verb", ["run", "study", "demo", "look", "score", "doctor", "agree", "compare", "export-data"])
def test_every_verb_explains_itself(verb: str) -> None:
    group: Any = typer.main.get_command(app)
    assert group.commands[verb].help.strip().endswith(".")
