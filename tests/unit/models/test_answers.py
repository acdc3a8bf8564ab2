"""What a server's answer must be to count as one."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from presafe.models.answers import Offer, completion_of, num_read, read_offers
from presafe.models.exchange import Completion
from presafe.models.http import Refused, TryAgain

BUDGET = 32


def answer(text: Any = "7", reason: Any = "stop", **usage: Any) -> httpx.Response:
    choice = {"text": text, "finish_reason": reason}
    body = {"choices": [choice], "usage": {"prompt_tokens": 4, "completion_tokens": 5} | usage}
    return httpx.Response(200, content=json.dumps(body))


@pytest.mark.parametrize(
    ("reason", "num_tokens", "stopped"),
    [
        ("stop", 5, True),
        ("eos_token", 5, True),
        ("stop", BUDGET, True),
        ("length", BUDGET, False),
        ("length", 5, False),  # the server's context ended
        (None, BUDGET - 1, True),
        (None, BUDGET, False),  # it may have been cut
        (None, BUDGET + 1, False),
        ("stop", 0, True),
        ("stop", BUDGET + 8, True),
    ],
)
def test_a_turn_has_ended_for_a_known_reason(reason: str | None, num_tokens: int, stopped: bool) -> None:
    expected = Completion("7", num_tokens, stopped)
    assert completion_of(answer(reason=reason, completion_tokens=num_tokens), BUDGET) == expected


@pytest.mark.parametrize("reason", ["abort", "error", "", "Stop", "tool_calls", 0, True, [], {}, ["stop"]])
def test_another_reason_is_no_answer(reason: Any) -> None:
    with pytest.raises(TryAgain, match="ended for an unknown reason"):
        completion_of(answer(reason=reason), BUDGET)


def test_a_filtered_answer_is_no_answer_to_this_prompt() -> None:
    with pytest.raises(Refused, match="filtered") as caught:
        completion_of(answer(reason="content_filter"), BUDGET)
    assert caught.value.of_prompt


@pytest.mark.parametrize("text", [None, {}, {"text": "7"}, [], ["7"], 7, True, "\ud800", "a\udfff"])
def test_what_is_no_text_is_no_answer(text: Any) -> None:
    with pytest.raises(TryAgain, match="no completion"):
        completion_of(answer(text), BUDGET)


COUNTS = [-5, -1, 10**30, BUDGET + 9, True, False, "5", 5.0, 5.5, 1e400, [5], {"n": 5}]


@pytest.mark.parametrize("count", COUNTS, ids=str)
def test_a_count_that_cannot_be_is_no_answer(count: Any) -> None:
    # Failed first: -5 and 10^30 were taken as they are, True as 1, and Infinity was a traceback.
    with pytest.raises(TryAgain):
        completion_of(answer(completion_tokens=count), BUDGET)


@pytest.mark.parametrize("count", [-1, 10**30, True, "4", 4.0, 1e400, []], ids=str)
def test_a_count_of_the_prompt_that_cannot_be_is_no_answer(count: Any) -> None:
    with pytest.raises(TryAgain):
        num_read(answer(prompt_tokens=count))


@pytest.mark.parametrize(("count", "expected"), [(4, 4), (0, None), (None, None)])
def test_a_server_may_leave_the_prompt_uncounted(count: int | None, expected: int | None) -> None:
    assert num_read(answer(prompt_tokens=count)) == expected


@pytest.mark.parametrize("usage", [None, {}, [], "5", {"completion_tokens": None}])
def test_a_server_that_does_not_count_its_answer_is_refused(usage: Any) -> None:
    body = {"choices": [{"text": "7", "finish_reason": "stop"}], "usage": usage}
    with pytest.raises(Refused, match=r"usage\.completion_tokens") as caught:
        completion_of(httpx.Response(200, content=json.dumps(body)), BUDGET)
    assert not caught.value.of_prompt


@pytest.mark.parametrize(
    "body", ["null", "7", "[]", "{}", '{"choices": []}', '{"choices": {}}', '{"choices": [7]}', ""]
)
def test_another_shape_is_no_answer(body: str) -> None:
    with pytest.raises(TryAgain):
        completion_of(httpx.Response(200, content=body), BUDGET)


def test_a_key_in_an_answer_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-never-to-be-written-4711"
    monkeypatch.setenv("PRESAFE_API_KEY", key)
    assert completion_of(answer(f"It is {key}."), BUDGET).text == "It is ***."
    monkeypatch.setenv("PRESAFE_API_KEY", "EMPTY")  # as servers without keys are given one
    assert completion_of(answer("An empty box."), BUDGET).text == "An empty box."


def test_offers_are_read_with_their_context() -> None:
    models: list[Any] = [
        {"id": "base", "max_model_len": 4096},
        {"id": "adapter", "parent": "base", "max_model_len": None},  # as vLLM lists one
        {"id": "silent"},
        {"id": "odd", "max_model_len": -1, "parent": ["base"]},
        {"id": "odder", "max_model_len": True, "parent": "nowhere"},
        {"id": None},
        {"name": "no id"},
        "text",
    ]
    assert read_offers(httpx.Response(200, content=json.dumps({"data": models}))) == [
        Offer("base", 4096),
        Offer("adapter", 4096),
        Offer("silent", None),
        Offer("odd", None),
        Offer("odder", None),
    ]


@pytest.mark.parametrize("body", ["null", "7", "[]", "{}", '{"data": null}', '{"data": {"id": "x"}}', "<html>"])
def test_another_list_offers_nothing(body: str) -> None:
    assert read_offers(httpx.Response(200, content=body)) == []


def test_a_name_that_stands_twice_is_no_answer() -> None:
    # Failed first: the last value was taken, here 6 tokens and the model b.
    usage = '"usage": {"completion_tokens": 5}, "usage": {"completion_tokens": 6}'
    body = f'{{"choices": [{{"text": "7", "finish_reason": "stop"}}], {usage}}}'
    with pytest.raises(TryAgain, match="no completion"):
        completion_of(httpx.Response(200, content=body), BUDGET)
    assert read_offers(httpx.Response(200, content='{"data": [{"id": "a"}], "data": [{"id": "b"}]}')) == []
