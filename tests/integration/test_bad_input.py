"""Mistakes of users: one clear line, exit code 2, no traceback, and no finished work is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import SMALL, finish, start


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check exit code 2 and one line on stderr that holds the words."""
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.strip().splitlines() if line.startswith("presafe: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("max_steps = 4", "max_stepz = 4"), ("align.max_stepz", "Extra inputs")),
        (("max_steps = 4", "lambda_align = -0.5"), ("align.lambda_align", "greater than or equal to 0", "-0.5")),
        (("max_steps = 4", 'max_steps = "many"'), ("align.max_steps", "many")),
        (('address = "smolthink"', ""), ("model.address", "required")),
        (('set = "benign"', 'set = "nice"'), ("nice",)),
        (("n = 6 }", "n = 9999 }"), ("9999",)),
        (("[align]", "[align"), ("not TOML",)),
        (('{ set = "harmful", split = "align", skip = 100, n = 6 },', ""), ("every alignment query is harmless",)),
    ],
)
def test_wrong_recipe(tmp_path: Path, change: tuple[str, str], words: tuple[str, ...]) -> None:
    recipe = tmp_path / "wrong.toml"
    recipe.write_text(SMALL.replace(*change), encoding="utf-8")
    refused(finish("run", str(recipe), "--out", str(tmp_path / "run")), *words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        # failed first: boxes of five lines
        (("probe",), ("Missing argument 'MODEL'", "presafe probe --help")),
        (("nope",), ("No such command 'nope'", "`presafe --help`")),
        (("probe", "smolthink", "--nope"), ("No such option", "--nope")),
        (("probe", "smolthink", "--limit", "0"), ("--limit", "greater than or equal to 1")),
        (("probe", "smolthink", "--limit", "-3"), ("--limit", "greater than or equal to 1")),
        (("probe", "smolthink", "--limit", "many"), ("--limit", "valid integer")),
        (("probe", "smolthink", "--max-tokens", "9" * 30), ("--max-tokens",)),
        (("list", "foo"), ("'foo' is not one of",)),
        (("probe", "[/x]", "b"), ("unexpected extra argument", "(b)")),
        # failed first: an empty name is the working directory, and was written into
        (("probe", "smolthink", "--out", ""), ("--out", "an empty name is no folder")),
        (("run", "smolthink-135m", "--out", ""), ("--out", "an empty name is no folder")),
        (("study", "control", "--out", ""), ("--out", "an empty name is no folder")),
        (("demo", "--out", ""), ("--out", "an empty name is no folder")),
        (("probe", "smolthink", "--temperature", "inf"), ("--temperature", "finite")),
        (("probe", "smolthink", "--temperature", "nan"), ("--temperature",)),
        (("probe", "smolthink", "--temperature", "1e-40"), ("--temperature", "from 0.001 to 100", "1e-40")),
        (("probe", "smolthink", "--top-p", "1e-300"), ("--top-p", "1e-300")),
        (("probe", "smolthink", "--top-p", "nan"), ("--top-p", "finite")),
        (("sweep", "smolthink", "--temperature", "0,1e-40"), ("--temperature", "from 0.001 to 100")),
        (("score", "smolthink", " ", "--head", "x"), ("a prompt is empty",)),
        (("probe", "\udcff"), ("\\udcff is not UTF-8 text",)),
    ],
)
def test_wrong_arguments(
    words: tuple[str, ...],
    expected: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # in this process: starting Python for every case would take a minute
    from presafe.cli.main import main

    monkeypatch.setattr(sys, "argv", ["presafe", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    refused(subprocess.CompletedProcess(words, stop.value.code, out, err), *expected)  # type: ignore[arg-type]


def test_no_arguments_print_help_and_a_closed_pipe_is_fine() -> None:
    done = finish()
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage" in done.stdout
    listing = start("list", "methods")
    assert listing.stdout is not None
    assert listing.stderr is not None
    listing.stdout.close()
    assert listing.stderr.read() == ""
    listing.wait(timeout=60)


@pytest.mark.parametrize(
    ("target", "code", "words"),
    [(">&-", 0, ""), (">/dev/full", 2, "presafe: the disk is full.")],
    ids=["closed", "full"],
)
def test_output_that_cannot_be_written_is_no_traceback(target: str, code: int, words: str) -> None:
    # Failed first: OSError after the work. A process of its own, because the error would come at its end.
    if "full" in target and not Path("/dev/full").exists():
        pytest.skip("this system has no device that is always full")
    for words_of_command in ("--version", "list methods"):
        command = f"'{sys.executable}' -m presafe {words_of_command} {target}"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr[: len(words)]) == (code, words), done.stderr
        assert done.stderr.count("\n") == bool(words)


def test_names_are_printed_as_they_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    # Failed first: Rich took [x] for markup, so that the path that was printed did not exist; [/x] raised.
    from rich.table import Table

    from presafe.runtime.progress import PlainConsole, heading

    table = Table(title="runs/[/x]")
    table.add_column("[red]suite[/red]")
    table.add_row(":smile: \x1b[31m")
    console = PlainConsole()
    console.print("report: runs/[b]/[/x]/report.html", soft_wrap=True)
    console.print(table)
    heading("run 1 of 2", ": a[/x]")
    out, err = capsys.readouterr()
    assert "report: runs/[b]/[/x]/report.html\n" in out
    for text in ("runs/[/x]", "[red]suite[/red]", ":smile: \\x1b[31m"):
        assert text in out
    assert "\x1b[31m" not in out
    assert err == "run 1 of 2: a[/x]\n"


def test_unknown_names(tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    refused(finish("run", "nope", "--out", out), "no recipe 'nope'", "smolthink-135m")
    refused(finish("run", str(tmp_path / "none.toml"), "--out", out), "cannot read recipe")
    refused(finish("probe", str(tmp_path / "nothing-here"), "--out", out), "cannot load model", "nothing-here")
    refused(finish("probe", "smolthink", "--suite", "nope", "--out", out), "no suite 'nope'", "strong_reject")
    refused(finish("probe", "smolthink", "--thinking", "maybe", "--out", out), "--thinking", "maybe")
    refused(finish("report", str(tmp_path)), "holds no run")
    refused(finish("doctor", str(tmp_path / "nothing-here")), "cannot load model", "nothing-here")
    refused(finish("doctor", "smolthink", "--family", "qwen9"), "no chat family 'qwen9'")
    refused(finish("doctor", "smolthink", "--family", str(tmp_path / "none.toml")), "--family", "none.toml")


def test_prompt_files(tmp_path: Path) -> None:
    evaluate = ("evaluate", "smolthink", "--out", str(tmp_path / "run"), "--prompts")
    empty, binary, table = tmp_path / "empty.csv", tmp_path / "binary.csv", tmp_path / "table.csv"
    empty.write_text("", encoding="utf-8")
    binary.write_bytes(b"\xff\xfe\x00\x01")
    table.write_text("request,label\nWhat is a spoon?,safe\n", encoding="utf-8")
    refused(finish(*evaluate, str(tmp_path / "none.csv")), "cannot read", "none.csv")
    refused(finish(*evaluate, str(empty)), "holds no prompts")
    refused(finish(*evaluate, str(binary)), "not UTF-8")
    refused(finish(*evaluate, str(table)), "no column with a known name", "request, label")
    refused(finish(*evaluate, str(table), "--column", "prompt"), "no column 'prompt'", "request, label")
    refused(finish("evaluate", "smolthink", "--suite", "arithmetic", "--expect", "comply"), "--prompts")


def test_adapters_and_heads_that_do_not_fit(whole_run: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    trained = whole_run / "alignment" / "sft" / "adapter"
    (broken / "adapter_config.json").write_bytes((trained / "adapter_config.json").read_bytes())
    (broken / "adapter_model.safetensors").write_bytes(b"cut")
    words = ("evaluate", "smolthink", "--suite", "arithmetic", "--limit", "2", "--out", str(tmp_path / "run"))
    refused(finish(*words, "--adapter", str(broken)), "cannot be read", str(broken))
    refused(finish(*words, "--adapter", str(tmp_path)), "holds no adapter")
    assert not (tmp_path / "run" / "evaluation").exists()  # fails before anything is sampled
    declared = json.loads((trained / "adapter_config.json").read_text(encoding="utf-8"))
    (broken / "adapter_config.json").write_text(json.dumps(declared | {"r": declared["r"] + 1}), encoding="utf-8")
    (broken / "adapter_model.safetensors").write_bytes((trained / "adapter_model.safetensors").read_bytes())
    refused(finish(*words, "--adapter", str(broken)), "does not fit smolthink", "size mismatch")
    refused(finish("score", "smolthink", "Hello", "--head", str(trained.parent)), "has no presafe_head", "λ > 0")
    (tmp_path / "presafe_head.safetensors").write_bytes(b"cut")
    refused(finish("score", "smolthink", "Hello", "--head", str(tmp_path)), "the head in", "cannot be read")


def test_truncated_weights(tmp_path: Path) -> None:
    from presafe.models.weights import smollm2_folder

    cut = tmp_path / "cut"
    shutil.copytree(smollm2_folder(), cut, ignore=shutil.ignore_patterns("*.safetensors"))
    with (smollm2_folder() / "model.safetensors").open("rb") as whole:
        (cut / "model.safetensors").write_bytes(whole.read(100_000))
    words = ("probe", str(cut), "--suite", "arithmetic", "--family", "smolthink", "--limit", "2")
    refused(finish(*words, "--out", str(tmp_path / "run")), "cannot be read", "fetch it again")


def test_model_without_a_chat_template(tmp_path: Path) -> None:
    from presafe.models.weights import smollm2_folder

    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("tokenizer.json", "config.json"):
        (bare / name).write_bytes((smollm2_folder() / name).read_bytes())
    (bare / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}', encoding="utf-8")
    refused(finish("probe", str(bare), "--out", str(tmp_path / "run")), "no chat template")


def test_no_network_and_no_cached_weights(tmp_path: Path) -> None:
    offline = {
        "PRESAFE_CACHE": str(tmp_path / "cache"),
        "PRESAFE_SMOLLM2": "",
        "HF_HOME": str(tmp_path / "hf"),
        "PIP_INDEX_URL": "http://127.0.0.1:9/none",
        "PIP_NO_INDEX": "0",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": str(tmp_path),
        "PIP_RETRIES": "0",
    }
    command = [sys.executable, "-m", "presafe.cli.main", "probe", "smolthink", "--out", str(tmp_path / "run")]
    # a Python of its own: the hub's client reads HF_HOME when it is imported
    refused(
        subprocess.run(command, env=os.environ | offline, capture_output=True, text=True, check=False),
        "PRESAFE_SMOLLM2",
    )
