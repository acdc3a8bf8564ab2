"""The decision of a served model: the way it is read, the odds by hand, and servers that do not show it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from fake_server import Reply, completion, error, serving
from typer.testing import CliRunner

from presafe.alignment.rows import refusal_start
from presafe.cli.main import app
from presafe.errors import ModelError
from presafe.models.address import raw_server
from presafe.models.loading import load_renderer
from presafe.models.rendering import Renderer
from presafe.models.served_decision import ServedDecision, served_decisions


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return load_renderer("smolthink")


def body_of(**fields: Any) -> Reply:
    choice = {"text": "a", "finish_reason": "length"} | fields.pop("choice", {})
    return Reply(
        json.dumps({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}} | fields).encode()
    )


def read(answer: Any, renderer: Renderer, texts: list[str]) -> list[ServedDecision]:
    with serving(answer) as fake:
        return served_decisions(raw_server(fake.address), renderer, texts, refusal_start(renderer, "direct"))


def test_the_plug_ins_field_is_taken_first(renderer: Renderer) -> None:
    def answer(body: dict[str, Any], _: int) -> Reply:
        return body_of(presafe={"refuse_probability": [0.25 if len(body["prompt"]) % 2 else 0.75]})

    texts = ["Why?", "Why not? Say it.", "Hello there."]
    decisions = read(answer, renderer, texts)
    odd = [len(renderer.render(text, "on").ids) % 2 for text in texts]
    assert [decision.probability for decision in decisions] == [0.25 if is_odd else 0.75 for is_odd in odd]
    assert {decision.way for decision in decisions} == {"plug-in"}
    assert decisions[0].logit == pytest.approx(math.log(1 / 3) * (1 if odd[0] else -1))


def test_a_classifier_is_asked_with_the_prompts_tokens(renderer: Renderer) -> None:
    asked = []

    def answer(body: dict[str, Any], _: int) -> Reply:
        if "input" not in body:
            return error(404, "The model does not support Completions API")
        asked.append(body["input"])
        return Reply(json.dumps({"data": [{"index": 0, "label": "refuse", "probs": [0.5], "num_classes": 1}]}).encode())

    (decision,) = read(answer, renderer, ["Why?"])
    assert decision == ServedDecision(0.5, 0.0, "classifier")
    assert asked[-1] == renderer.render("Why?", "on").ids


def test_odds_are_the_product_over_the_start_of_a_refusal(renderer: Renderer) -> None:
    start = refusal_start(renderer, "direct")
    prompt = renderer.render("Why?", "on").ids + renderer.opening_ids()

    def answer(body: dict[str, Any], _: int) -> Reply:
        if "input" in body:
            return error(404, "Not Found")
        if not (named := body.get("logprob_token_ids")):
            return completion("a")
        step = len(body["prompt"]) - len(prompt)
        assert body["prompt"] == [*prompt, *start.shared[:step]]
        assert set(named) == set(start.links[step])
        share = math.log(0.5 / len(named))  # each step has ½, shared by the tokens that can stand there
        table = {f"token_id:{token}": share for token in named}
        return body_of(choice={"logprobs": {"top_logprobs": [table | {"token_id:0": -9.0}]}})

    (decision,) = read(answer, renderer, ["Why?"])
    p = 0.5 ** len(start.links)
    assert decision.way == "odds"
    assert decision.probability == pytest.approx(p)
    assert decision.logit == pytest.approx(math.log(p / (1 - p)))


@pytest.mark.parametrize(
    ("field", "problem"),
    [
        ({"presafe": {"refuse_probability": []}}, "did not read the decision"),
        ({"presafe": {"refuse_probability": [1.5]}}, "gives 1.5 as a probability"),
        ({"presafe": {"refuse_probability": [True]}}, "gives True as a probability"),
        ({}, r"does not show the decision of 'smolthink' \(plug-in: its answers have no field `presafe`; classifier: "),
    ],
)
def test_a_server_that_does_not_show_it_is_an_error(field: dict[str, Any], problem: str, renderer: Renderer) -> None:
    with pytest.raises(ModelError, match=problem):
        read(lambda body, _: body_of(**field), renderer, ["Why?"])


def test_score_names_the_way_for_a_served_model() -> None:
    with serving(lambda body, _: body_of(presafe={"refuse_probability": [0.125]})) as fake:
        done = CliRunner().invoke(app, ["score", fake.address, "Why?", "How?"], catch_exceptions=False)
        assert [json.loads(line) for line in done.stdout.splitlines()] == [
            {"prompt": 1, "refuse_probability": 0.125, "read_by": "plug-in"},
            {"prompt": 2, "refuse_probability": 0.125, "read_by": "plug-in"},
        ]
        with_head = CliRunner().invoke(app, ["score", fake.address, "Why?", "--head", "x"])
    assert "a served model has its own head" in str(with_head.exception)
    assert "named with `head`" in str(CliRunner().invoke(app, ["score", "smolthink", "Why?"]).exception)
