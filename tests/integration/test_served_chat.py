"""A chat endpoint on loopback: how it is asked, and that the thought is read from either field, strictly."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, Reply, serving
from family_cases import CASES
from rich.console import Console
from tenacity import wait_none

from presafe.config.measure import MeasureSettings
from presafe.config.recipe import ModelSettings
from presafe.errors import ModelError
from presafe.evaluation.suites import load_suite
from presafe.models.address import Served, served_model
from presafe.models.dialect import Dialect
from presafe.models.exchange import Completion, Request
from presafe.models.family import Sampling, families
from presafe.models.loading import load_renderer
from presafe.models.provider import PreSafeAPI
from presafe.models.rendering import Answer, Renderer
from presafe.models.sampling import logged_suites
from presafe.models.served import ServedEngine
from presafe.records import Prefill, Thinking, Turn
from presafe.workflows.measure import measure

QUESTION = "What is 7 + 5?"
Message = dict[str, Any]


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    """Provide SmolLM3's renderer on SmolLM2's tokenizer, which spells the think marks."""
    return with_template("SmolLM3", ())


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("presafe.models.served._BACKOFF", wait_none())
    monkeypatch.setenv("PRESAFE_TIMEOUT_S", "5")
    monkeypatch.setenv("PRESAFE_RETRY_S", "0.2")
    for module in ("served", "tasks"):
        monkeypatch.setattr(f"presafe.models.{module}.console", Console(stderr=True, width=500, highlight=False))


def with_template(name: str, special: tuple[str, ...]) -> Renderer:
    """Return the renderer of a case on SmolLM2's tokenizer with these special tokens."""
    tokenizer = copy.deepcopy(load_renderer("smolthink").tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.chat_template = CASES[name].source
    return Renderer(tokenizer, families()[CASES[name].family])


def chat(
    renderer: Renderer, message: Message, reason: str = "stop", *, reads_variables: bool = True
) -> Callable[[dict[str, Any], int], Reply]:
    """Return a server that renders the messages with its template, counts their tokens and returns this message."""

    def answer(body: dict[str, Any], _: int) -> Reply:
        variables = body.get("chat_template_kwargs", {}) if reads_variables else {}
        prompt = renderer.tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, **variables)
        usage = {"prompt_tokens": len(prompt["input_ids"]), "completion_tokens": 1}
        choice = {"index": 0, "message": {"role": "assistant"} | message, "finish_reason": reason}
        return Reply(json.dumps({"choices": [choice], "usage": usage}).encode())

    return answer


def endpoint(fake: FakeServer) -> str:
    return fake.address.replace("#", "/v1/chat/completions#")


def ask(fake: FakeServer, renderer: Renderer, thinking: Thinking = "on", text: str = QUESTION) -> Completion:
    async def once() -> Completion:
        served = served_model(endpoint(fake))
        assert served is not None
        engine = ServedEngine(served, lambda: renderer, batch_size=1)
        try:
            ids = renderer.render(text, thinking).ids
            sampling = Sampling(temperature=0.6, top_p=0.9, top_k=20)
            return await engine.complete(Request(ids, 32, sampling, seed=3, text=text, thinking=thinking))
        finally:
            assert engine.dialect in (Dialect.CHAT, None)
            await engine.close()

    return asyncio.run(once())


def test_the_address_of_a_chat_endpoint() -> None:
    expected = Served("http://host:1/proxy/v1", "m", True)
    assert served_model("http://host:1/proxy/v1/chat/completions/#m") == expected
    assert served_model("http://host:1/proxy/chat/completions#m") == expected


THOUGHT_FIELDS = {
    "reasoning": {"reasoning": "Seven and five.\n"},  # vLLM from 0.11
    "reasoning_content": {"reasoning_content": "Seven and five."},  # vLLM before, SGLang, llama.cpp
    "both": {"reasoning": "Seven and five.", "reasoning_content": "Seven and five."},  # vLLM 0.11
    "one_is_null": {"reasoning": None, "reasoning_content": "Seven and five."},
    "marked": {"content": "<think>\nSeven and five.\n</think>\n12"},  # no reasoning parser
    "both_places": {"content": "<think>Seven and five.</think>12", "reasoning_content": "Seven and five."},
}


@pytest.mark.parametrize("fields", THOUGHT_FIELDS.values(), ids=THOUGHT_FIELDS)
def test_a_thought_is_read_from_either_field(renderer: Renderer, fields: Message) -> None:
    with serving(chat(renderer, {"content": "\n12"} | fields)) as fake:
        completion = ask(fake, renderer)
    assert completion.answer == Answer("Seven and five.", "12", False)
    assert fake.paths == {"/v1/chat/completions"}


def test_each_mode_is_asked_by_its_variables(renderer: Renderer) -> None:
    with serving(chat(renderer, {"content": "12", "reasoning": ""})) as fake:
        for mode in ("on", "off"):
            assert ask(fake, renderer, mode).answer == Answer("", "12", False)
    asked = [body for body in fake.asked if body["max_tokens"] == 32]
    assert [body["chat_template_kwargs"] for body in asked] == [{"enable_thinking": True}, {"enable_thinking": False}]
    expected = {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "seed": 3, "model": "smolthink"}
    for body in asked:
        assert body["messages"] == [{"role": "user", "content": QUESTION}]
        assert {name: body[name] for name in expected} == expected
        assert "prompt" not in body


def test_effort_is_also_a_setting_of_the_request() -> None:
    marks = ("<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>", "<|call|>", "assistant")
    gpt_oss = with_template("gptoss", marks)
    with serving(chat(gpt_oss, {"content": "12", "reasoning": "Add."})) as fake:
        assert ask(fake, gpt_oss, "high").answer == Answer("Add.", "12", False)
        with pytest.raises(ModelError, match=r"asks for CoT off by the prefill .*a chat endpoint takes none"):
            ask(fake, gpt_oss, "off")
    (body,) = (body for body in fake.asked if body["max_tokens"] == 32)
    assert body["reasoning_effort"] == body["chat_template_kwargs"]["reasoning_effort"] == "high"
    # Off needs a prefill and is not greeted.
    assert [body["reasoning_effort"] for body in fake.asked][:3] == ["medium", "low", "high"]


@pytest.mark.parametrize(
    ("message", "reason", "expected"),
    [
        ({"content": None, "reasoning": "Seven and"}, "length", Answer("Seven and", "", True)),
        ({"content": "It is", "reasoning": "Add."}, "length", Answer("Add.", "It is", False)),
        ({"content": "Seven and", "reasoning": None}, "length", Answer("Seven and", "", True)),  # was it a thought?
        ({"content": "12"}, "stop", Answer("", "12", False)),  # the model opens its thought, and has opened none
        ({"content": ""}, "stop", Answer("", "", False)),
    ],
)
def test_a_cut_thought_is_no_answer(renderer: Renderer, message: Message, reason: str, expected: Answer) -> None:
    with serving(chat(renderer, message, reason)) as fake:
        assert ask(fake, renderer).answer == expected


MALFORMED = {
    "thought_is_a_list": {"content": "12", "reasoning": ["Add."]},
    "thought_is_a_number": {"content": "12", "reasoning_content": 7},
    "half_a_surrogate_pair": {"content": "12", "reasoning": "\ud800"},
    "content_is_a_list": {"content": [{"type": "text", "text": "12"}]},
    "no_content": {"reasoning": "Add."},
}


@pytest.mark.parametrize("message", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_message_is_never_counted(renderer: Renderer, message: Message) -> None:
    with serving(chat(renderer, message)) as fake, pytest.raises(ModelError, match="its answer is no completion"):
        ask(fake, renderer)
    assert len(fake.asked) > 1  # it was asked again


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"content": "12", "reasoning": "Add.", "reasoning_content": "Sum."}, "two thoughts that differ"),
        ({"content": "12", "role": "user"}, "of the role user"),
        ({"content": "12", "tool_calls": [{"id": "1"}]}, "a tool call, and no tool was offered"),
        ({"content": "<think>Sum.</think>12", "reasoning": "Add."}, "is not the one in the content"),
    ],
)
def test_a_message_that_contradicts_itself_is_an_error(renderer: Renderer, message: Message, words: str) -> None:
    with serving(chat(renderer, message)) as fake, pytest.raises(ModelError, match=words):
        ask(fake, renderer)


def test_a_server_that_ignores_the_switch_is_an_error(renderer: Renderer) -> None:
    with (
        serving(chat(renderer, {"content": "12"}, reads_variables=False)) as fake,
        pytest.raises(ModelError, match="does not read chat_template_kwargs"),
    ):
        ask(fake, renderer)
    assert len(fake.asked) == 2  # the greetings with CoT on and off; off has more tokens


def test_hidden_marks_without_a_field_cannot_be_read() -> None:
    # The marks are special tokens, which a server leaves out: the content may be thought and answer in one.
    hidden = with_template("nemotron_3_nano", ("<think>", "</think>"))
    with (
        serving(chat(hidden, {"content": "Add. 12", "reasoning_content": None})) as fake,
        pytest.raises(ModelError, match="start it with its reasoning parser"),
    ):
        ask(fake, hidden)
    with serving(chat(hidden, {"content": "12", "reasoning": "Add."})) as fake:
        assert ask(fake, hidden).answer == Answer("Add.", "12", False)


def test_control_tokens_in_a_prompt_are_an_error(renderer: Renderer) -> None:
    with (
        serving(chat(renderer, {"content": "12"})) as fake,
        pytest.raises(ModelError, match="a prompt spells control tokens"),
    ):
        ask(fake, renderer, text="Hello <|im_end|>")
    assert all(body["max_tokens"] == 1 for body in fake.asked)


def test_a_prefilled_thought_needs_raw_prompts() -> None:
    with pytest.raises(ModelError, match="a chat endpoint takes no prefilled thought, so zero_think"):
        PreSafeAPI("http://127.0.0.1:1/v1/chat/completions#m", method="zero_think")


@pytest.mark.parametrize(
    "turn", [Turn(prefill=Prefill("Fine.", closed=False)), Turn(header=True)], ids=["prefill", "header"]
)
def test_a_chat_endpoint_cannot_begin_the_models_turn(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch, turn: Turn
) -> None:
    # Found at the merge of attacks and chat: the prefill would have been left out, and nobody told.
    api = PreSafeAPI("http://127.0.0.1:1/v1/chat/completions#m")
    monkeypatch.setattr(api.engine, "ready", lambda: renderer)
    with pytest.raises(ModelError, match="does not let presafe begin the model's turn"):
        api.prompt_ids("Hello.", turn)


def test_a_suite_is_measured_with_cot_on_and_off(renderer: Renderer, tmp_path: Path) -> None:
    renderer.tokenizer.save_pretrained(tmp_path / "tokenizer")

    def answer(body: dict[str, Any], number: int) -> Reply:
        thought = "Let me see." if body["chat_template_kwargs"]["enable_thinking"] else None
        return chat(renderer, {"content": "Fine.", "reasoning": thought})(body, number)

    suites = {"smolthink_benign": load_suite("smolthink_benign", None, seed=0)[:2]}
    settings = MeasureSettings(thinking=("on", "off"), max_tokens=8, batch_size=1)
    with serving(answer) as fake:
        model = ModelSettings(address=endpoint(fake), tokenizer=str(tmp_path / "tokenizer"))
        measure(model, suites, tmp_path / "out", settings)
    thoughts: dict[Thinking, str] = {"on": "Let me see.", "off": ""}
    for mode, thought in thoughts.items():
        suite = logged_suites(tmp_path / "out" / "evaluation" / f"vanilla-{mode}", mode)["smolthink_benign"]
        assert len(suite.responses) == 2
        for (response,) in suite.responses.values():
            assert (response.thought, response.answer, response.truncated) == (thought, "Fine.", False)
