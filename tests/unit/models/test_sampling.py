"""Several answers a prompt, other sampling than the family's, and what a rerun asks, on a tiny random model."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import threading
import time
import zipfile
from pathlib import Path

import pytest
import torch
from command_line import start
from inspect_ai.model import ModelOutput
from transformers import LlamaConfig, LlamaForCausalLM

from presafe.cli.evaluate import evaluate
from presafe.cli.sweep import sweep
from presafe.config.recipe import ModelSettings, SamplingSettings
from presafe.errors import ModelError, PreSafeError, RunError
from presafe.judges.scorers import refusal_strings
from presafe.models import cache
from presafe.models.loading import load_renderer
from presafe.models.logs import DamagedLogError, log_files
from presafe.models.provider import PreSafeAPI
from presafe.models.sampling import Sampler, load_responses, logged_suites, sample_responses
from presafe.models.tasks import epoch_seed
from presafe.records import Prompt, Response
from presafe.runtime.loops import run_outside_loop

WARM = SamplingSettings(temperature=1.0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a random Llama with SmolThink's tokenizer and template."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = load_renderer("smolthink").tokenizer
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.6, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what the model was asked, one entry a call."""
    asked: list[str] = []
    generate = PreSafeAPI.generate

    async def counted(self, input, tools, tool_choice, config) -> ModelOutput:  # type: ignore[no-untyped-def]
        asked.append(input[0].text)
        return await generate(self, input, tools, tool_choice, config)

    monkeypatch.setattr(PreSafeAPI, "generate", counted)
    return asked


def prompts(n: int) -> list[Prompt]:
    words = ("kettle", "spoon", "door", "lamp", "chair", "window")
    return [
        Prompt(id=f"p{i}", text=f"Name a {words[i]}.", category="c", split="s", license="l", expect="comply")
        for i in range(n)
    ]


def sample(tiny: Path, folder: Path, n: int = 3, **settings: object) -> list[Response]:
    sampler = Sampler(ModelSettings(address=str(tiny)), "off", None, 4, 4096, 6, 0, **settings)  # type: ignore[arg-type]
    return sample_responses("t", {"mine": prompts(n)}, {"mine": [refusal_strings()]}, sampler, folder)["mine"]


def test_every_answer_has_a_seed_of_its_own() -> None:
    assert epoch_seed(7, 1) == 7
    assert len({epoch_seed(seed, epoch) for seed in range(20) for epoch in range(1, 20)}) > 370
    assert all(0 <= epoch_seed(seed, 9) < 2**31 for seed in range(50))


def test_several_answers_differ_and_one_more_changes_none(tiny: Path, tmp_path: Path, calls: list[str]) -> None:
    three = sample(tiny, tmp_path / "three", samples=3, sampling=WARM)
    assert [(response.prompt_id, response.sample) for response in three] == [
        (f"p{i}", k) for i in range(3) for k in (1, 2, 3)
    ]
    assert len({response.answer for response in three}) == 9
    assert len(calls) == 9
    # Another batch, other company: batches of four, but other prompts and samples in them.
    four = sample(tiny, tmp_path / "four", n=2, samples=4, sampling=WARM)
    answers = {(response.prompt_id, response.sample): response.answer for response in three}
    assert {key: response.answer for response in four if (key := (response.prompt_id, response.sample)) in answers} == {
        key: answer for key, answer in answers.items() if key[0] != "p2"
    }
    assert [response.answer for response in sample(tiny, tmp_path / "one", sampling=WARM)] == [
        answers[f"p{i}", 1] for i in range(3)
    ]
    calls.clear()
    assert sample(tiny, tmp_path / "three", samples=3, sampling=WARM) == three
    assert calls == []  # finished: no call


def test_pages_change_no_answer_and_draws_ignore_the_company(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_the_loop = sample(tiny, tmp_path / "loop")
    asked: list[int] = []

    def always(model: object, num_tokens: int, num_rows: object) -> bool:
        asked.append(num_tokens)
        return True

    monkeypatch.setattr(cache, "can_page", always)
    assert sample(tiny, tmp_path / "pages") == by_the_loop
    assert len(asked) == 3
    many = sample(tiny, tmp_path / "many", n=6, samples=3, sampling=WARM)
    assert len({response.answer for response in many}) == 18
    few = sample(tiny, tmp_path / "few", n=2, samples=2, sampling=WARM)
    assert few == [response for response in many if response.prompt_id in ("p0", "p1") and response.sample <= 2]


def test_how_tokens_were_drawn_is_in_the_log(tiny: Path, tmp_path: Path) -> None:
    given = SamplingSettings(temperature=0.5, top_k=7)
    sample(tiny, tmp_path, n=1, sampling=given)
    log = logged_suites(tmp_path, "off")["mine"]
    assert log.sampling == {"temperature": 0.5, "top_p": 1.0, "top_k": 7}  # top-p is the family's
    assert "temperature" not in log.decoding
    assert log.decoding["samples"] == 1
    assert log.asked_sampling == given.model_dump(exclude_none=True)
    assert (log.version, log.expected) == (1, {"p0": ("comply", "comply")})


def test_the_sampled_tokens_are_in_the_log(tiny: Path, tmp_path: Path) -> None:
    renderer = load_renderer(str(tiny))
    for response in sample(tiny, tmp_path, sampling=WARM):
        assert response.token_ids is not None
        assert len(response.token_ids) == response.num_tokens
        assert renderer.split(list(response.token_ids), "off").answer == response.answer
        assert "token_ids" not in response.model_dump()  # they stay in the log


@pytest.mark.parametrize(
    "option", [{"temperature": -1.0}, {"temperature": 1e-9}, {"top_p": 0.0}, {"top_k": -1}], ids=str
)
def test_sampling_of_inspect_is_checked(tiny: Path, option: dict[str, float]) -> None:
    # Failed first: `inspect eval --temperature -1` was decoded greedily, and top-k -1 dropped the last token.
    sampler = Sampler(ModelSettings(address=str(tiny)), "off", None, 4, 4096, 6, 0)
    api = sampler.inspect_model().api
    assert isinstance(api, PreSafeAPI)
    with pytest.raises(ModelError, match=f"`{next(iter(option))}`"):
        api.sampling_for(option)


def test_several_greedy_answers_are_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"3 samples per prompt, but CoT off is decoded greedily.*`temperature`"):
        sample(tiny, tmp_path, samples=3)


def test_sampling_out_of_bounds_names_its_option(tmp_path: Path) -> None:
    with pytest.raises(PreSafeError, match=r"--top-p: .*less than or equal to 1, got 1\.5"):
        evaluate("nowhere", suite=["smolthink_benign"], top_p=1.5, out=tmp_path)


def test_killed_evaluate_samples_only_what_is_missing(tiny: Path, tmp_path: Path, calls: list[str]) -> None:
    words = ["evaluate", str(tiny), "--suite", "smolthink_benign", "--limit", "8", "--thinking", "off"]
    words += ["--samples", "3", "--temperature", "1", "--max-tokens", "40", "--batch-size", "2"]
    process = start(*words, "--out", str(tmp_path / "out"))
    for line in process.stderr:
        if (progress := re.search(r" (\d+)/24", line)) and 8 <= int(progress[1]) < 20:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    assert process.returncode == -signal.SIGKILL

    def again() -> None:
        settings = {"samples": 3, "temperature": 1.0, "max_tokens": 40, "batch_size": 2}
        evaluate(str(tiny), suite=["smolthink_benign"], limit=8, thinking="off", out=tmp_path / "out", **settings)

    again()
    # At most the batch in flight and the one being logged are sampled again: 2 rows each.
    assert 0 < len(calls) <= 24 - 8 + 4
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    asked = results["manifest"]["settings"]
    assert (asked["samples"], asked["sampling"]) == (3, {"temperature": 1.0, "top_p": None, "top_k": None})
    rows = results["rows"]
    assert {row["metric"]: (row["n"], row["samples"]) for row in rows}["truncated_rate"] == (8, 3)
    calls.clear()
    again()
    assert calls == []


def test_a_sweep_resumes_cell_by_cell_and_shows_every_cell(tiny: Path, tmp_path: Path, calls: list[str]) -> None:
    def run(top_p: str) -> None:
        grid = {"temperature": "0,0.7", "top_p": top_p, "top_k": "0,5"}
        sweep(str(tiny), suite=["smolthink_benign"], **grid, samples=2, thinking="off", limit=2, max_tokens=4, out=out)

    out = tmp_path / "sweep"
    run("0.8,1")
    # greedy once, with one answer a prompt; 1 temperature × 2 top-p × 2 top-k with two answers to 2 prompts
    assert len(calls) == 2 + 4 * 4
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    rates = [row for row in results["rows"] if row["metric"] == "over_refusal_rate"]
    assert {(row["temperature"], row["top_p"], row["top_k"], row["samples"]) for row in rates} == {
        (0.0, 1.0, 0, 1),
        *((0.7, top_p, top_k, 2) for top_p in (0.8, 1.0) for top_k in (0, 5)),
    }
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "over 5 ways of sampling" in page
    assert (out / "figures" / "sweep.svg").exists()
    calls.clear()
    run("0.8,1")
    assert calls == []
    for path in (out / "cells" / "t0.7-p1-k5").rglob("*"):
        if path.is_file():
            path.unlink()
    run("0.8,1")
    assert len(calls) == 4  # that cell and no other
    with pytest.raises(PreSafeError, match="other settings"):
        run("0.8")


def damage(log: Path, how: str) -> None:
    """Damage a log in one of the ways that disks, copies and people do."""
    data = log.read_bytes()
    if how == "half":
        log.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        log.write_bytes(b"")
    elif how == "bytes":  # those of the first sample's text, whose sizes and places stay
        with zipfile.ZipFile(log) as archive:
            first = next(entry for entry in archive.infolist() if entry.filename.startswith("samples/"))
        start = first.header_offset + 30 + len(first.filename)
        noise = bytes(byte ^ 0xFF for byte in data[start : start + first.compress_size])
        log.write_bytes(data[:start] + noise + data[start + first.compress_size :])
    elif how == "foreign zip":
        with zipfile.ZipFile(log, "w") as archive:
            archive.writestr("notes.txt", "mine")
    elif how == "foreign JSON":
        with zipfile.ZipFile(log, "w") as archive:
            archive.writestr("header.json", "[]")
    elif how == "text":
        log.write_text("nothing of the kind", encoding="utf-8")
    elif how == "folder":
        log.unlink()
        log.mkdir()
    elif how == "dangling link":
        log.unlink()
        log.symlink_to("nowhere")


DAMAGES = ["half", "empty", "bytes", "foreign zip", "foreign JSON", "text", "folder", "dangling link"]


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_log_is_set_aside_and_sampled_again(
    tiny: Path, tmp_path: Path, calls: list[str], how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # Failed first: ZstdError, ValueError, BadZipFile or KeyError at every rerun.
    before = sample(tiny, tmp_path)
    (log,) = log_files(tmp_path)
    damage(log, how)
    with pytest.raises(
        DamagedLogError, match=rf"{re.escape(str(log))} is (damaged|not a file).*sampled again"
    ) as caught:
        logged_suites(tmp_path, "off")
    assert "\n" not in str(caught.value)
    calls.clear()
    assert sample(tiny, tmp_path) == before
    assert len(calls) == 3
    aside = log.with_name(f"{log.name}.damaged")
    assert os.path.lexists(aside)
    assert f"It is now {aside.name}." in " ".join(capsys.readouterr().err.split())
    calls.clear()
    assert sample(tiny, tmp_path) == before
    assert calls == []


def test_only_the_damaged_suite_of_several_is_sampled_again(tiny: Path, tmp_path: Path, calls: list[str]) -> None:
    sampler = Sampler(ModelSettings(address=str(tiny)), "off", None, 4, 4096, 6, 0)
    suites, scorers = {"one": prompts(2), "two": prompts(3)}, {name: [refusal_strings()] for name in ("one", "two")}
    before = sample_responses("t", suites, scorers, sampler, tmp_path)
    (log,) = (log for log in log_files(tmp_path) if "_one_" in log.name)
    damage(log, "half")
    calls.clear()
    assert sample_responses("t", suites, scorers, sampler, tmp_path) == before
    assert calls == [prompt.text for prompt in prompts(2)]


def test_a_log_of_another_mode_or_of_other_prompts_is_not_taken(tiny: Path, tmp_path: Path) -> None:
    # Failed first: the newest log of that name was read, whatever it was of.
    sample(tiny, tmp_path / "a")
    with pytest.raises(RunError, match=r"no finished response for 'mine'; .* of other prompts or another mode"):
        load_responses(tmp_path / "a", "on", {"mine": prompts(3)})
    for others in (prompts(2), prompts(4), [*prompts(2), prompts(3)[2].model_copy(update={"text": "Name a cup."})]):
        with pytest.raises(RunError, match="of other prompts or another mode"):
            load_responses(tmp_path / "a", "off", {"mine": others})
    assert len(load_responses(tmp_path / "a", "off", {"mine": prompts(3)})["mine"]) == 3


def test_it_samples_inside_a_running_event_loop(tiny: Path, tmp_path: Path, calls: list[str]) -> None:
    # Failed first, as in Jupyter: RuntimeError, this event loop is already running.
    outside = sample(tiny, tmp_path / "outside")

    async def cell() -> list[Response]:
        return sample(tiny, tmp_path / "inside")

    assert asyncio.run(cell()) == outside
    assert len(calls) == 6
    assert asyncio.run(cell()) == outside  # read back, also there
    assert len(calls) == 6


def test_ctrl_c_inside_a_running_event_loop_ends_the_work() -> None:
    ended = []

    async def cell() -> None:
        stop = threading.Event()

        def work() -> None:
            time.sleep(0.2)  # until the other thread waits
            os.kill(os.getpid(), signal.SIGINT)
            ended.append(stop.wait(timeout=30))

        run_outside_loop(work, stop.set)

    loop = asyncio.new_event_loop()  # `asyncio.run` would put its own handler before Jupyter's
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(cell())
    loop.close()
    assert ended == [True]
