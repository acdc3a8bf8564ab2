"""A prompt of a user's file is taken exactly, or refused with its row: in one line, soon, and without much memory."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presafe.errors import PromptError
from presafe.prompts.rows import MAX_LETTERS, read_rows
from presafe.prompts.sets import from_file
from presafe.runtime.reading import read_text

ASK = "How do I, safely, cut bread?"


def texts(path: Path) -> list[str]:
    return [prompt.text for prompt in from_file(path, expect="comply")]


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def complaint(path: Path) -> str:
    with pytest.raises(PromptError) as caught:
        from_file(path, expect="comply")
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    message.encode()  # a log can hold it
    return message


# -- CSV and TSV: no cell is cut


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        # of one column a line is one prompt, whatever its commas; quotes inside of it are letters
        ("a.csv", f"prompt\n{ASK}\n", ASK),
        ("a.csv", 'prompt\nSay "hi", twice, please\n', 'Say "hi", twice, please'),
        ("a.csv", "prompt\nBoil an egg,\n", "Boil an egg,"),
        ("a.tsv", "prompt\nBoil\tan egg\n", "Boil\tan egg"),
        ("a.csv", f'prompt\n\n"{ASK}"\n', ASK),
        ("a.csv", f'prompt,category\n"{ASK}",kitchen\n', ASK),
        ("a.csv", ",prompt\n0,Boil an egg\n", "Boil an egg"),  # the index that pandas writes
        ("a.csv", "\n\nprompt,n\nBoil an egg,1\n", "Boil an egg"),
        ("a.csv", "prompt,n\nBoil an egg\n", "Boil an egg"),  # a row that ends early, after its prompt
    ],
)
def test_a_cell_is_read_whole(tmp_path: Path, name: str, text: str, read: str) -> None:
    assert texts(write(tmp_path / name, text)) == [read]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "a.csv",
            f"prompt,category\nBoil an egg,x\n{ASK},kitchen\n",
            "row 2 has 4 cells, and the header names 2 columns",
        ),
        ("a.csv", f"id,prompt\n1,{ASK}\n", "row 1 has 4 cells, and the header names 2"),
        ("a.csv", f"prompt,\n{ASK}\n", "row 1 has 3 cells, and the header names 2"),
        ("a.csv", "prompt,\nWell, how?\n", "row 1 has a cell in column 2, which the header gives no name"),
        ("a.csv", 'prompt\n"Say hi", twice\n', "row 1 has 2 cells, and the header names 1"),
        ("a.tsv", "prompt\tcategory\nBoil\tan egg\tkitchen\n", "row 1 has 3 cells, and the header names 2"),
        ("a.csv", "prompt,prompt\nName a tree.,Name a river.\n", "two columns with the name 'prompt'"),
        ("a.csv", "id,prompt\n1\n", "row 1 has an empty 'prompt'"),
        ("a.csv", "prompt\n   \n", "row 1 has an empty 'prompt'"),
        ("a.csv", "prompt\n\u00a0\u2003\n", "row 1 has an empty 'prompt'"),
        ("a.csv", "prompt\n", "holds no prompts"),
        ("a.csv", b"\xef\xbb\xbf", "holds no prompts"),
        ("a.csv", "prompt\nBoil\0an egg\n", "it holds NUL bytes"),
        ("a.csv", "prompt\nBoil an egg\n".encode("utf-16"), "NUL bytes"),
        ("a.csv", b"prompt\n\xed\xa0\xbc\n", "not UTF-8"),  # half of a surrogate pair
        ("a.csv.gz", b"\x1f\x8b123", "cannot read"),
        ("a.csv.gz", b"prompt\n", "Not a gzipped file"),
    ],
)
def test_a_table_that_cannot_be_read_exactly_is_refused(
    tmp_path: Path, name: str, text: str | bytes, words: str
) -> None:
    assert words in complaint(write(tmp_path / name, text))


@pytest.mark.parametrize("quote", ['"', ""])
def test_a_cell_above_131072_letters_is_read_whole(tmp_path: Path, quote: str) -> None:
    cell = ("one two three. " * 9500).strip()  # 15 · 9500 − 1 = 142,499 letters
    path = write(tmp_path / "long.csv", f"prompt\n{quote}{cell}{quote}\n")
    before = csv.field_size_limit()
    assert texts(path) == [cell]
    assert csv.field_size_limit() == before  # the limit is that of the whole process


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_prompt_of_50_megabytes_is_one_line(tmp_path: Path, name: str) -> None:
    cell = "one two " * 6_500_000
    text = f'prompt\n"{cell}"\n' if name == "a.csv" else json.dumps({"prompt": cell})
    message = complaint(write(tmp_path / name, text))
    assert f"row 1 has 51,999,999 letters in 'prompt', and presafe reads {MAX_LETTERS:,}" in message


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1).filter(str.strip)


@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=4), delimiter=st.sampled_from([",", "\t"]))
def test_what_a_csv_writer_wrote_is_read_as_it_was(
    rows: list[tuple[str, str]], delimiter: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([("prompt", "note"), *rows])
    path = tmp_path_factory.mktemp("csv") / ("a.csv" if delimiter == "," else "a.tsv")
    read = read_rows(write(path, text.getvalue()))
    assert [(row["prompt"], row["note"]) for row in read] == rows


LINE = st.text(st.characters(codec="utf-8", exclude_characters='\0\r\n"'), min_size=1).filter(str.strip)


@given(prompts=st.lists(LINE, min_size=1, max_size=4))
def test_lines_below_one_header_are_the_prompts(prompts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = write(tmp_path_factory.mktemp("lines") / "a.csv", "prompt\n" + "\n".join(prompts) + "\n")
    assert texts(path) == [prompt.strip() for prompt in prompts]


@given(cells=st.lists(LINE, min_size=1, max_size=6), columns=st.integers(2, 4))
def test_a_line_is_read_whole_or_refused_whatever_its_commas(
    cells: list[str], columns: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Of a line with as many cells as columns nobody can say that a comma was text; of any other, all is said."""
    line = ",".join(cells)
    header = ",".join(["prompt", *(f"c{place}" for place in range(1, columns))])
    path = write(tmp_path_factory.mktemp("cells") / "a.csv", f"{header}\n{line}\n")
    if line.count(",") + 1 > columns or not line.split(",")[0].strip():
        assert "row 1" in complaint(path)
    else:
        assert texts(path) == [line.split(",")[0].strip()]


# -- data sets of chats and answers


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"instruction": "Name a tree.", "system": "Be brief."}, "'system' beside its 'instruction'"),
        ({"instruction": "Another?", "history": [["Name a tree.", "Oak."]]}, "'history' beside its 'instruction'"),
        ({"conversations": [{"from": "human", "value": "x"}], "system": "Be brief."}, "'system' beside"),
        ({"messages": [{"role": "user", "content": "x"}], "tools": [{"name": "f"}]}, "'tools' beside"),
        ({"prompt": "<|im_start|>user\nQ<|im_end|>", "completion": "A"}, "rendered prompt in 'prompt'"),
        ({"prompt": "<|start_of_role|>user", "completion": "A"}, "rendered prompt in 'prompt'"),
        ({"system_prompt": "Be brief.", "question": "Name a tree.", "response": "Oak."}, "'system_prompt' beside"),
        ({"system": "Be brief.", "prompt": "Name a tree.", "completion": "Oak."}, "'system' beside"),
        ({"system": "Be brief.", "messages": [{"role": "user", "content": "x"}]}, "'system' beside"),
        ({"history": [["a", "b"]], "query": "And then?"}, "'history' beside"),
    ],
)
def test_what_changes_a_query_is_refused(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    assert words in complaint(write(tmp_path / "a.jsonl", json.dumps(row)))


def test_empty_columns_beside_a_query_change_nothing(tmp_path: Path) -> None:
    row = {"instruction": "Name", "input": "a tree.", "system": "", "history": [], "output": "Oak."}
    row["text"] = "Below is an instruction. ### Response: Oak."  # as in the first data set of this form
    assert texts(write(tmp_path / "a.jsonl", json.dumps(row))) == ["Name\na tree."]
    asked = chat(("user", "Name a tree."))
    assert texts(write(tmp_path / "b.jsonl", json.dumps({"messages": asked, "tools": "[]"}))) == ["Name a tree."]


def test_a_query_of_several_answers_is_read_once(tmp_path: Path) -> None:
    answers = [chat(("user", "Name a tree."), ("assistant", answer)) for answer in ("Oak.", "Ash.")]
    lines = "\n".join(json.dumps({"messages": answer}) for answer in answers)
    assert texts(write(tmp_path / "a.jsonl", lines)) == ["Name a tree."]
    exported = [
        {"prompt": "<user>Name a tree.<think>", "query": "Name a tree.", "decision_index": n} for n in (7, None)
    ]
    assert texts(write(tmp_path / "trl.jsonl", "\n".join(map(json.dumps, exported)))) == ["Name a tree."]
    alpaca = [{"instruction": "A", "input": text, "output": out} for text, out in (("x", "1"), ("y", "2"), ("x", "3"))]
    assert texts(write(tmp_path / "alpaca.jsonl", "\n".join(map(json.dumps, alpaca)))) == ["A\nx", "A\ny"]
    problems = write(tmp_path / "sums.csv", "question,response,answer\nHow many?,A,1\nHow many?,B,2")
    assert [prompt.target for prompt in from_file(problems, expect="answer", target_column="answer")] == ["1", "2"]
    number = write(tmp_path / "number.jsonl", '{"instruction": "How many?", "input": 0, "output": "x"}')
    assert texts(number) == ["How many?\n0"]
    assert texts(write(tmp_path / "own.jsonl", '{"prompt": "A"}\n{"prompt": "A"}')) == ["A", "A"]  # the user's own


# -- JSON: no Python text


def chat(*turns: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in turns]


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        (chat(("user", "Name a tree.")), "Name a tree."),
        ({"text": "Name a tree."}, "Name a tree."),
        ([{"from": "human", "value": "Name a tree."}], "Name a tree."),
        ([{"role": "user", "content": [{"type": "text", "text": "Name a tree."}], "name": "Bo"}], "Name a tree."),
        (
            [
                {"role": "user", "content": "Name a tree.", "weight": 0},
                {"role": "assistant", "content": None, "reasoning_content": "Oak?", "weight": 1},
            ],
            "Name a tree.",
        ),
        ([{"from": "human", "value": "Name a tree."}, {"from": "gpt", "value": "Oak."}], "Name a tree."),
        (5, "5"),
        ("true", "true"),
        ("NaN", "NaN"),
        ('[{"role": "user", "content": "x"}]', '[{"role": "user", "content": "x"}]'),  # it is a text
        ("\ud83c\udf33 ".encode("utf-16", "surrogatepass").decode("utf-16"), "🌳"),
    ],
)
def test_a_text_is_read_as_it_stands(tmp_path: Path, prompt: object, read: str) -> None:
    assert texts(write(tmp_path / "a.jsonl", json.dumps({"prompt": prompt}))) == [read]


@pytest.mark.parametrize("number", ["0.10000000000000000001", "1e400", "1" * 5000, "-0.0"])
def test_a_number_is_read_as_it_is_written(tmp_path: Path, number: str) -> None:
    # as a float it would be 0.1, inf, or an error of Python's
    assert texts(write(tmp_path / "a.json", f'[{{"prompt": {number}}}]')) == [number]


SYSTEM = chat(("system", "Be brief."), ("user", "Name a tree."))
TURNS = chat(("user", "Name a tree."), ("assistant", "Oak."), ("user", "Another?"))


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (json.dumps(SYSTEM), "a conversation (system, user) in 'prompt'"),
        (json.dumps(TURNS), "a conversation (user, assistant, user) in 'prompt'"),
        (json.dumps(chat(("assistant", "Oak."))), "a conversation (assistant)"),
        (json.dumps(chat(("user", [{"type": "image_url", "image_url": "x"}]))), "a conversation (user)"),
        ('[{"role": "user", "content": "x", "tool_calls": []}]', "a conversation (user)"),
        ('[{"from": "system", "value": "x"}, {"from": "human", "value": "y"}]', "a conversation (system, human)"),
        ('[{"from": "human", "content": "x"}]', "a conversation (human)"),
        ('["Name a tree."]', "a list"),
        ("[]", "a list"),
        ("{}", "an object"),
        ('{"text": "Name a tree.", "language": "en"}', "an object"),
        ('{"text": ["Name a tree."]}', "an object"),
        ("true", "a truth value"),
        ("false", "a truth value"),
        ("NaN", "the number nan"),
        ("Infinity", "the number inf"),
        ("-Infinity", "the number -inf"),
        ("null", "an empty 'prompt'"),
        ('" "', "an empty 'prompt'"),
        ('{"text": "A", "text": "B"}', "the name 'text' twice"),
        ('"tree \\ud83c"', "half of a pair of surrogates"),
        ('"tree \\udf33\\ud83c"', "half of a pair of surrogates"),
        ('"tree \\u0000"', "NUL"),
        ("[" * 200 + "]" * 200, "nested deeper"),
    ],
)
def test_what_is_no_text_is_refused_with_its_row(tmp_path: Path, name: str, prompt: str, words: str) -> None:
    rows = ['{"prompt": "Name a river."}', f'{{"prompt": {prompt}}}']
    text = f"[{', '.join(rows)}]" if name == "a.json" else "\n".join(rows)
    message = complaint(write(tmp_path / name, text))
    assert "row 2 " in message
    assert words in message


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", "[" * 100_000, "is not JSON: it is nested deeper than 100"),
        ("a.jsonl", '{"prompt": ' + "[" * 100_000 + "]" * 100_000 + "}", "line 1 of the file: it is nested deeper"),
        ("a.jsonl", '{"prompt": "A"}\n{"prompt": "A", "prompt": "B"}', "row 2 has the name 'prompt' twice"),
        ("a.jsonl", '{"prompt": "A", "note": {"x": 1, "x": 1}}', "row 1 has the name 'x' twice"),
        ("a.jsonl", '{"prompt": "A", "\\ud83c": 1}', "row 1 holds"),
        ("a.jsonl", '{"prompt": "A"}\n{"text": "B"}', "row 2 has no column 'prompt'; it has: text"),
        ("a.json", '[{"prompt": "A"}, 5]', "not a list of rows"),
        ("a.json", '[{"' + "k" * 1_000_000 + '": 1}]', "no column with a known name"),
        ("a.json", '[{"\\u001b[31mred": 1}]', "it has: \\x1b[31mred"),
    ],
)
def test_json_that_cannot_be_read_exactly_is_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    assert words in complaint(write(tmp_path / name, text))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda parts: st.lists(parts) | st.dictionaries(st.text(), parts),
)


@given(prompt=JSON)
def test_whatever_stands_in_json_is_a_text_or_one_line(prompt: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = write(tmp_path_factory.mktemp("json") / "a.jsonl", json.dumps({"prompt": prompt}))
    is_text = isinstance(prompt, str) and prompt.strip() and "\0" not in prompt
    if is_text or type(prompt) is int:
        assert texts(path) == [str(prompt).strip()]
    elif isinstance(prompt, float) and math.isfinite(prompt):
        assert texts(path) == [json.dumps(prompt)]  # the digits as they stand in the file
    else:
        assert "row 1" in complaint(path)


# -- what is no file


def test_pipes_devices_and_folders_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    assert "a pipe or a device" in complaint(tmp_path / "pipe.csv")
    assert "Is a directory" in complaint(tmp_path / "folder.csv")
    assert "a pipe or a device" in complaint(tmp_path / "zero.jsonl")
    assert "cannot read" in complaint(tmp_path / "loop.csv")
    assert "a pipe or a device" in complaint(Path("/dev/null"))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "holes.csv").open("wb") as file:
        file.truncate(10**12)  # takes no room on the disk
    assert "more than 1,000,000,000 bytes" in complaint(tmp_path / "holes.csv")
    bomb = tmp_path / "bomb.csv.gz"
    bomb.write_bytes(gzip.compress(b"prompt\n" + b"a" * 3_000_000))
    assert bomb.stat().st_size < 10_000
    with pytest.raises(PromptError, match="more than 1,000,000 bytes"):
        read_text(bomb, PromptError, max_bytes=1_000_000)
    assert len(read_text(bomb, PromptError, max_bytes=3_000_007)) == 3_000_007


@pytest.mark.parametrize(
    "name", ["two\nlines.csv", "esc\x1b[31m.csv", "turned\u202e.csv", os.fsdecode(b"latin\xfc.csv")]
)
def test_a_name_that_no_log_can_hold_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("prompt\nBoil an egg\n", encoding="utf-8")
    assert "its name holds a control character, or is not UTF-8; rename it" in complaint(path)
    assert "cannot read" in complaint(Path("nul\0.csv"))
