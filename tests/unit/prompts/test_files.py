"""Prompts from a user's own files, and every way such a file can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from presafe.config.sources import FileSource, SetSource
from presafe.errors import PromptError
from presafe.prompts.sets import built_in, from_file, load_source, load_sources

NEXT_LINE, LINE_SEPARATOR = "\x85", "\u2028"
"""Characters at which `str.splitlines` breaks a line and CSV and JSON do not."""


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def complaint(path: Path, **settings: str | tuple[str, str]) -> str:
    """Return the error of reading a file: one line that names the file."""
    with pytest.raises(PromptError) as caught:
        from_file(path, expect="refuse", **settings)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


ROWS = [{"ask": "Boil an egg", "reply": "8 minutes"}, {"ask": 'Say "hi", twice', "reply": "hi hi"}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("kitchen.csv", 'ask,reply\nBoil an egg,8 minutes\n"Say ""hi"", twice",hi hi\n'),
        ("kitchen.json", json.dumps(ROWS)),
        ("kitchen.jsonl", "\n\n".join(json.dumps(row) for row in ROWS) + "\n"),
    ],
)
def test_columns_are_mapped(tmp_path: Path, name: str, text: str) -> None:
    prompts = from_file(write(tmp_path / name, text), expect="answer", column="ask", target_column="reply")
    assert [(p.id, p.text, p.target) for p in prompts] == [
        ("kitchen-0001", "Boil an egg", "8 minutes"),
        ("kitchen-0002", 'Say "hi", twice', "hi hi"),
    ]
    assert {(p.expect, p.split, p.category) for p in prompts} == {("answer", "held_out", "none")}


@pytest.mark.parametrize(
    "column",
    ["prompt", "text", "question", "instruction", "forbidden_prompt", "Goal", "goal", "Behavior", "query"],
)
def test_a_published_column_name_is_found_by_itself(tmp_path: Path, column: str) -> None:
    path = write(tmp_path / "a.csv", f"id,{column},note\n1,Boil an egg,x\n")
    assert [prompt.text for prompt in from_file(path, expect="comply")] == ["Boil an egg"]


def test_the_first_known_column_wins_and_a_named_one_before_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "question,prompt\nfrom question,from prompt\n")
    assert from_file(path, expect="comply")[0].text == "from prompt"
    assert from_file(path, expect="comply", column="question")[0].text == "from question"


def test_where_keeps_rows_that_start_with_a_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "prompt,label\nkill a process,safe\nkill a man,unsafe\nkill time,safe_too\n")
    kept = from_file(path, expect="comply", where=("label", "safe"))
    assert [(prompt.id, prompt.text) for prompt in kept] == [("a-0001", "kill a process"), ("a-0002", "kill time")]


def test_where_on_a_column_that_is_not_there_names_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "prompt\nBoil an egg\n")
    assert "no column 'label'; it has: prompt" in complaint(path, where=("label", "safe"))


@pytest.mark.parametrize("column", ["category", "Category", "type"])
def test_the_category_is_taken_along(tmp_path: Path, column: str) -> None:
    path = write(tmp_path / "a.csv", f"prompt,{column}\nBoil an egg,kitchen\n")
    assert from_file(path, expect="comply")[0].category == "kitchen"


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"\xef\xbb\xbfprompt\nBoil an egg\n")
    assert from_file(path, expect="comply")[0].text == "Boil an egg"
    path = write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"prompt": "Boil an egg"}\n')
    assert from_file(path, expect="comply")[0].text == "Boil an egg"


def test_windows_line_ends_and_quoted_line_breaks(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'prompt,n\r\n"first\r\nsecond",1\r\nthird,2\r\n')
    assert [prompt.text for prompt in from_file(path, expect="comply")] == ["first\nsecond", "third"]


@pytest.mark.parametrize("character", [NEXT_LINE, LINE_SEPARATOR])
def test_unusual_line_separators_are_text(tmp_path: Path, character: str) -> None:
    # Failed first: a cell was cut in two rows, and a JSON line was "not JSONL".
    text = f"before{character}after"
    csv = write(tmp_path / "a.csv", f"prompt,n\n{text},1\n")
    assert [prompt.text for prompt in from_file(csv, expect="comply")] == [text]
    jsonl = write(tmp_path / "a.jsonl", json.dumps({"prompt": text}, ensure_ascii=False) + "\n")
    assert [prompt.text for prompt in from_file(jsonl, expect="comply")] == [text]


def test_the_suffix_may_be_written_large(tmp_path: Path) -> None:
    # Failed first: anything but ".csv" was read as JSONL.
    path = write(tmp_path / "a.CSV", "prompt\nBoil an egg\n")
    assert from_file(path, expect="comply")[0].text == "Boil an egg"


def test_prompts_are_trimmed_and_numbers_are_read_as_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '[{"prompt": "  17 + 4 ", "answer": 21}]')
    prompt = from_file(path, expect="answer", target_column="answer")[0]
    assert (prompt.text, prompt.target) == ("17 + 4", "21")


def test_a_missing_column_lists_those_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "ask,reply\nBoil an egg,8\n")
    assert "no column 'prompt'; it has: ask, reply" in complaint(path, column="prompt")
    assert "no column 'key'; it has: ask, reply" in complaint(path, column="ask", target_column="key")


def test_no_known_column_says_how_to_name_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "ask,reply\nBoil an egg,8\n")
    message = complaint(path)
    assert "it has: ask, reply" in message
    assert "`column`" in message


@pytest.mark.parametrize(("name", "text"), [("a.csv", ""), ("a.csv", "prompt\n"), ("a.json", "[]"), ("a.jsonl", "\n")])
def test_an_empty_file_is_said_to_be_empty(tmp_path: Path, name: str, text: str) -> None:
    assert "holds no prompts" in complaint(write(tmp_path / name, text))


def test_a_file_that_is_not_utf8_says_so(tmp_path: Path) -> None:
    # "Brühe" in Windows-1252: 0xFC is no UTF-8 start byte.
    assert "not UTF-8" in complaint(write(tmp_path / "a.csv", b"prompt\nBr\xfche\n"))


def test_a_missing_file_and_a_folder_say_why(tmp_path: Path) -> None:
    assert "No such file" in complaint(tmp_path / "none.csv")
    assert "directory" in complaint(tmp_path)


def test_an_empty_cell_names_its_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "prompt,n\nBoil an egg,1\n   ,2\n")
    assert "row 2 has an empty 'prompt'" in complaint(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.csv", "n,prompt\n1,Boil an egg\n2\n"), ("a.jsonl", '{"prompt": "Boil an egg"}\n{"prompt": null}\n')],
)
def test_a_cell_that_is_not_there_names_its_row_too(tmp_path: Path, name: str, text: str) -> None:
    # Failed first: it said that there is no column 'prompt', and listed it among those there.
    assert "row 2 has an empty 'prompt'" in complaint(write(tmp_path / name, text))


@pytest.mark.parametrize("target", ["null", '" "'])
def test_an_empty_reference_is_an_error(tmp_path: Path, target: str) -> None:
    # It would be compared with every answer, and never match.
    path = write(tmp_path / "a.jsonl", f'{{"prompt": "17 + 4", "answer": {target}}}\n')
    assert "row 1 has an empty 'answer'" in complaint(path, target_column="answer")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", "{", "is not JSON: "),
        (
            "a.jsonl",
            '{"prompt": "Boil an egg"}\nBoil an egg\n',
            "is not JSONL, one object a line: line 2 of the file: ",
        ),
        ("a.json", '"Boil an egg"', "not a list of rows"),
        ("a.json", '["Boil an egg"]', "not a list of rows"),
        ("a.csv", 'prompt\n"Boil an egg\n', "is not CSV: "),
    ],
)
def test_what_cannot_be_parsed_says_so(tmp_path: Path, name: str, text: str, words: str) -> None:
    assert words in complaint(write(tmp_path / name, text))


def test_a_source_skips_and_counts() -> None:
    everything = built_in("harmful", "held_out")
    assert load_source(SetSource(set="harmful", skip=3, n=2), seed=0) == list(everything[3:5])
    assert load_source(SetSource(set="harmful", skip=3), seed=0) == list(everything[3:])


def test_arithmetic_skips_within_one_draw() -> None:
    first = load_source(SetSource(set="arithmetic", split="align", n=6), seed=5)
    assert load_source(SetSource(set="arithmetic", split="align", skip=4, n=2), seed=5) == first[4:]


def test_a_file_source_is_read_with_its_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "ask,reply\n17 + 4,21\n2 + 2,4\n")
    source = FileSource(file=path, column="ask", target_column="reply", expect="answer", skip=1)
    assert [(p.text, p.target, p.expect) for p in load_source(source, seed=0)] == [("2 + 2", "4", "answer")]


def test_too_few_prompts_is_an_error_with_the_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "prompt\nBoil an egg\nFry a fish\n")
    with pytest.raises(PromptError, match=r"a\.csv.*has 2 prompts, too few for skip = 1 and n = 2"):
        load_source(FileSource(file=path, expect="comply", skip=1, n=2), seed=0)
    with pytest.raises(PromptError, match=r"has 2 prompts, too few for skip = 2 and n = None"):
        load_source(FileSource(file=path, expect="comply", skip=2), seed=0)
    assert len(load_source(FileSource(file=path, expect="comply", skip=1, n=1), seed=0)) == 1


def test_overlapping_sources_are_an_error_others_are_joined() -> None:
    apart = [SetSource(set="benign", n=3), SetSource(set="benign", skip=3, n=2)]
    assert load_sources(apart, seed=0) == list(built_in("benign", "held_out")[:5])
    shared = built_in("benign", "held_out")[2].id
    with pytest.raises(PromptError, match=rf"same id \({shared}\).*`skip`"):
        load_sources([SetSource(set="benign", n=3), SetSource(set="benign", skip=2, n=2)], seed=0)
