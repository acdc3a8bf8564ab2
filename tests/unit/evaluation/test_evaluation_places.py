"""Where in a response the refusal happens."""

from __future__ import annotations

import pytest

from presafe.evaluation.places import count_places, refusal_place
from presafe.methods.targets import REFUSALS, SAFE_THOUGHT
from presafe.records import Response


def make_response(thought: str, answer: str, *, truncated: bool = False) -> Response:
    return Response(
        prompt_id="p",
        thinking="on",
        thought=thought,
        answer=answer,
        truncated=truncated,
        complete=True,
        num_tokens=3,
        verdict="unjudged",
    )


NO = REFUSALS[0]


CASES = [
    (make_response("", NO), "before"),
    (make_response(" \n", NO), "before"),
    (make_response(SAFE_THOUGHT, NO), "thought"),
    (make_response("The user wants a poem about kettles.", NO), "answer"),
    (make_response("", "A kettle sings."), "nowhere"),
    (make_response(SAFE_THOUGHT, "A kettle sings."), "nowhere"),  # thought of it, and complied
    (make_response("A long", "", truncated=True), "unjudged"),
    (make_response("A thought", " "), "unjudged"),
]


@pytest.mark.parametrize(("response", "place"), CASES)
def test_place_of_a_refusal(response: Response, place: str) -> None:
    assert refusal_place(response) == place


def test_count_places() -> None:
    assert count_places([response for response, _ in CASES]) == {
        "before": 2,
        "thought": 1,
        "answer": 1,
        "nowhere": 2,
        "unjudged": 2,
    }
