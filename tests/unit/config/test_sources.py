"""Sources of prompts: the key that stands in a table chooses the class, and errors name the key."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from presafe.config.sources import FileSource, HubSource, PromptSlice, QuerySource, SetSource, Source, SuiteSource

ANY: TypeAdapter[PromptSlice] = TypeAdapter(Source)
TO_LEARN_FROM: TypeAdapter[PromptSlice] = TypeAdapter(QuerySource)
HUB = {"hub": "org/name", "split": "train", "column": "ask", "license": "MIT", "expect": "comply"}


@pytest.mark.parametrize(
    ("table", "source"),
    [
        ({"set": "benign", "skip": 2}, SetSource(set="benign", skip=2)),
        ({"set": "arithmetic", "n": 3}, SetSource(set="arithmetic", n=3)),
        ({"file": "a.csv", "expect": "refuse"}, FileSource(file=Path("a.csv"), expect="refuse")),
        (HUB, HubSource(hub="org/name", split="train", column="ask", license="MIT", expect="comply")),
        ({"suite": "gsm8k", "n": 9}, SuiteSource(suite="gsm8k", n=9)),
    ],
)
def test_the_key_chooses_the_class(table: dict[str, object], source: PromptSlice) -> None:
    read = ANY.validate_python(table)
    assert type(read) is type(source)
    assert read == source
    assert ANY.validate_python(read) is read
    assert ANY.validate_json(ANY.dump_json(read)) == read


def test_a_stored_source_has_its_own_keys_only() -> None:
    dumped = ANY.dump_python(ANY.validate_python({"file": "a.csv", "expect": "refuse"}), mode="json")
    assert dumped == {"skip": 0, "n": None, "target_column": None, "expect": "refuse", "file": "a.csv", "column": None}


@pytest.mark.parametrize(
    ("table", "key", "message"),
    [
        ({}, (), "give one of `set`, `file`, `hub` and `suite`"),
        ({"set": "benign", "hub": "a/b"}, (), "give one of `set`, `file`, `hub` and `suite`"),
        ("benign", (), "a source is a table with one of"),
        ({"set": "bening"}, ("set",), "'harmful', 'benign', 'borderline' or 'arithmetic'"),
        ({"set": "benign", "split": "train"}, ("split",), "'build', 'align' or 'held_out'"),
        ({"set": "benign", "where": {}}, (), "`where` belongs to a `hub`"),
        ({"suite": "gsm8k", "expect": "answer"}, (), "`expect` belongs to a `file` or a `hub`"),
        ({"file": "a.csv", "expect": "refuse", "license": "MIT"}, (), "`license` belongs to a `hub`"),
        ({"file": "a.csv"}, ("expect",), "Field required"),
        ({"file": "a.csv", "expect": "code"}, ("expect",), "'refuse', 'comply' or 'answer'"),
        ({"file": "a.csv", "expect": "answer"}, (), "needs `target_column`"),
        ({**HUB, "target_column": "t"}, (), '`target_column` belongs to `expect = "answer"`'),
        ({**HUB, "split": None}, ("split",), "valid string"),
        ({**HUB, "revison": "main"}, ("revison",), "Extra inputs are not permitted"),
        ({key: value for key, value in HUB.items() if key != "license"}, ("license",), "Field required"),
        ({**HUB, "licence": "MIT"}, (), "`licence` is now `license`"),
    ],
)
def test_what_does_not_fit_is_named_by_its_key(table: object, key: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ANY.validate_python(table)
    (error,) = caught.value.errors()
    assert error["loc"] == key
    assert message in error["msg"]


def test_nothing_learns_from_a_suite() -> None:
    with pytest.raises(ValidationError, match=r"gsm8k is a `suite`: .* nothing is trained on it"):
        TO_LEARN_FROM.validate_python({"suite": "gsm8k"})
    assert TO_LEARN_FROM.validate_python({"set": "harmful"}) == SetSource(set="harmful")
