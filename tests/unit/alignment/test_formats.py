"""Training rows as TRL itself, OpenAI's types and LLaMA-Factory's own reader read them; and back."""

from __future__ import annotations

import copy
import json
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from datasets import load_dataset
from openai.types.chat import ChatCompletionAssistantMessageParam, ChatCompletionUserMessageParam
from pydantic import TypeAdapter
from tiny_models import make_model

from presafe.alignment.formats import FORMATS, Format, TextRow, check_format, fits, text_row, write_rows
from presafe.alignment.rows import alignment_rows, thinking_off_rows
from presafe.config.sources import FileSource
from presafe.errors import SignalError
from presafe.models.family import families
from presafe.models.rendering import Renderer
from presafe.prompts.sets import load_source
from presafe.records import Prompt, Response, Signal

ASKED = {"bad": ("refuse", 0.9), "good": ("comply", 0.2)}
PROMPTS = [
    Prompt.model_validate(
        {"id": name, "text": f"Ask {name}?", "category": "c", "split": "align", "license": "own", "expect": expect}
    )
    for name, (expect, _) in ASKED.items()
]
OWN = Response(
    prompt_id="good",
    thinking="on",
    thought="I think.",
    answer="So.",
    truncated=False,
    complete=True,
    num_tokens=3,
    verdict="comply",
)


@pytest.fixture
def text_rows(renderer: Renderer) -> list[TextRow]:
    """Return a refusal after a thought, an own answer, and the same with CoT off."""
    signals = {name: Signal(prompt_id=name, probability=p) for name, (_, p) in ASKED.items()}
    rows = alignment_rows(PROMPTS, {"good": OWN}, signals, renderer, "thought")
    off = OWN.model_copy(update={"thinking": "off", "thought": ""})
    rows += thinking_off_rows(PROMPTS[1:], {"good": off}, renderer)
    prompts = {prompt.id: prompt for prompt in PROMPTS}
    return [text_row(row, prompts[row.prompt_id], renderer) for row in rows]


def written(rows: list[TextRow], format: Format, folder: Path) -> dict[str, list[dict[str, Any]]]:
    paths = write_rows(rows, format, folder)
    return {path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] for path in paths}


def test_trl_learns_the_completion_and_keeps_the_columns(
    text_rows: list[TextRow], tokenizer: Any, tmp_path: Path
) -> None:
    from datasets import load_dataset
    from trl import SFTConfig, SFTTrainer

    files = [str(path) for path in write_rows(text_rows, "trl", tmp_path / "data")]
    data = load_dataset("json", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    config = SFTConfig(str(tmp_path), max_steps=1, report_to=[], use_cpu=True, bf16=False, max_length=None)
    trainer = SFTTrainer(make_model(), config, train_dataset=data, processing_class=tokenizer)
    for row, text in zip(trainer.train_dataset, text_rows, strict=True):
        # TRL's own labels: those of the prompt are masked, those of the completion are learned
        learned = [token for token in row["labels"] if token != -100]
        assert tokenizer.decode(learned) == text.completion
        assert text.completion.endswith("<|im_end|>")
        if text.thinking == "on":
            assert text.decision_index == row["labels"].count(-100) - 1  # the last prompt token
    assert {"signal", "decision_index"} <= set(data.column_names)
    assert data["signal"] == [0.9, 0.2, None]


def llamafactory() -> tuple[Any, Any]:
    """Return LLaMA-Factory's own parser and converter; its `data/__init__.py` is left out, which imports torchaudio."""
    if (spec := find_spec("llamafactory")) is None or spec.origin is None:
        pytest.skip("llamafactory is not installed")  # `make test-home` installs it, without what it depends on
    package = ModuleType("llamafactory.data")
    package.__path__ = [str(Path(spec.origin).parent / "data")]
    sys.modules.setdefault("llamafactory.data", package)
    return import_module("llamafactory.data.parser"), import_module("llamafactory.data.converter")


def test_llamafactory_reads_each_row(text_rows: list[TextRow], tmp_path: Path) -> None:
    parser, converter = llamafactory()
    rows = written(text_rows, "llamafactory", tmp_path)
    for kind, columns in zip(
        rows, parser.get_dataset_list(["presafe_refuse", "presafe_comply"], str(tmp_path)), strict=True
    ):
        assert (columns.load_from, columns.dataset_name, columns.formatting) == ("file", f"{kind}.jsonl", "alpaca")
        read = [converter.AlpacaDatasetConverter(columns, None)(row) for row in rows[kind]]
        texts = [row for row in text_rows if row.expect == kind]
        assert [row["_prompt"] for row in read] == [[{"role": "user", "content": text.query}] for text in texts]
        assert [row["_response"] for row in read] == [[{"role": "assistant", "content": t.content}] for t in texts]
        assert {(row["_system"], row["_tools"], row["_images"]) for row in read} == {("", "", None)}


def test_llamafactory_finds_its_columns(text_rows: list[TextRow], tmp_path: Path) -> None:
    rows = written(text_rows, "llamafactory", tmp_path)
    info = json.loads((tmp_path / "dataset_info.json").read_text(encoding="utf-8"))
    for name, entry in info.items():
        of_file = rows[Path(entry["file_name"]).stem]
        assert (tmp_path / entry["file_name"]).exists(), name
        assert all(set(entry["columns"].values()) <= row.keys() for row in of_file)
    (refusal,) = rows["refuse"]
    assert refusal["instruction"] == "Ask bad?"
    thought, close, answer = refusal["output"].removeprefix("<think>\n").partition("\n</think>\n\n")
    assert "decline" in thought
    assert close
    assert answer
    assert (refusal["signal"], refusal["thinking"]) == (0.9, "on")
    assert [row["output"] for row in rows["comply"]] == ["<think>\nI think.\n</think>\n\nSo.", "So."]


def test_openai_accepts_each_row(text_rows: list[TextRow], tmp_path: Path) -> None:
    turns = [ChatCompletionUserMessageParam, ChatCompletionAssistantMessageParam]
    for name, rows in written(text_rows, "openai", tmp_path).items():
        columns = (tmp_path / f"{name}.columns.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(columns) == len(rows)
        for row in rows:
            assert row.keys() == {"messages"}
            for turn, message in zip(turns, row["messages"], strict=True):
                assert TypeAdapter(turn).validate_python(message) == message
    first = json.loads((tmp_path / "refuse.columns.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first == {
        "id": "bad",
        "thinking": "on",
        "complete": True,
        "signal": 0.9,
        "decision_index": text_rows[0].decision_index,
        "rendered_prompt": text_rows[0].prompt,
    }


def test_datasets_reads_the_rows_of_openai(text_rows: list[TextRow], tmp_path: Path) -> None:
    # failed first: the files of columns lay among the rows, with another schema
    written(text_rows, "openai", tmp_path)
    whole = load_dataset(str(tmp_path), split="train")
    assert (whole.column_names, len(whole)) == (["messages"], len(text_rows))
    assert len(load_dataset(str(tmp_path), "columns", split="train")) == len(text_rows)


def test_only_trl_has_a_place_for_cut_rows_and_cot_off(text_rows: list[TextRow]) -> None:
    refusal, own, off = text_rows
    cut = own._replace(complete=False)
    assert [row.complete for row in text_rows] == [True, True, True]
    assert [fits(row, "trl") for row in (refusal, own, off, cut)] == [True] * 4
    for format in ("llamafactory", "openai"):
        assert [fits(row, format) for row in (refusal, own, off, cut)] == [True, True, False, False]


@pytest.mark.parametrize("format", FORMATS)
def test_the_decision_position_is_found_in_every_format(
    format: Format, text_rows: list[TextRow], renderer: Renderer, tmp_path: Path
) -> None:
    tokenizer = renderer.tokenizer
    # failed first: LLaMA-Factory's and OpenAI's rows had an index, and no text that it counts in
    rows = written(text_rows, format, tmp_path)
    if format == "openai":
        rows = {
            kind: [json.loads(line) for line in (tmp_path / f"{kind}.columns.jsonl").read_text().splitlines()]
            for kind in rows
        }
    positions = [
        tokenizer.decode(tokenizer(row["prompt" if format == "trl" else "rendered_prompt"]).input_ids[index:])
        for row in (*rows["refuse"], *rows["comply"])
        if (index := row["decision_index"]) is not None
    ]
    assert (
        positions == [renderer.family.decision_text] * 2
    )  # the last prompt token with CoT on; CoT off has no position


@pytest.mark.parametrize("format", FORMATS)
def test_what_was_written_becomes_queries_again(format: Format, text_rows: list[TextRow], tmp_path: Path) -> None:
    write_rows(text_rows, format, tmp_path)
    # failed first: of `trl` the rendered prompt was read, and a query stood once for each of its answers
    for expect, asked in (("refuse", ["Ask bad?"]), ("comply", ["Ask good?"])):
        source = FileSource.model_validate({"file": tmp_path / f"{expect}.jsonl", "expect": expect})
        assert [prompt.text for prompt in load_source(source, seed=0)] == asked


def test_both_halves_of_an_alpaca_query_are_read(tmp_path: Path) -> None:
    # failed first: the input was lost without a word
    file = tmp_path / "alpaca.json"
    file.write_text(json.dumps([{"instruction": "Translate.", "input": "Guten Tag", "output": "Good day"}]))
    (prompt,) = load_source(FileSource(file=file, expect="comply"), seed=0)
    assert prompt.text == "Translate.\nGuten Tag"


def test_a_first_token_that_the_tokenizer_adds_stands_once(renderer: Renderer) -> None:
    from tokenizers.processors import TemplateProcessing

    started = copy.deepcopy(renderer.tokenizer)  # as Llama's: a first token before every text
    started.bos_token = "<|im_start|>"
    started.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", started.bos_token_id)]
    )
    own = Renderer(started, renderer.family)
    (row,) = alignment_rows(PROMPTS[:1], {}, {"bad": Signal(prompt_id="bad", probability=0.9)}, own, "thought")
    text = text_row(row, PROMPTS[0], own)
    assert started(text.prompt).input_ids == row.input_ids[: row.decision_index + 1]
    assert text.decision_index == row.decision_index


@pytest.mark.parametrize("name", ["gpt_oss", "muse_glimmer", "granite_3_3"])
def test_marked_answers_need_a_format_that_holds_the_turn(name: str) -> None:
    # Failed first: the answer's own mark was left out, and gpt-oss' thought was closed as Qwen's is.
    family = families()[name]
    check_format("trl", family)
    for format in ("llamafactory", "openai"):
        with pytest.raises(SignalError, match=f"models of {name} mark their answer"):
            check_format(format, family)
