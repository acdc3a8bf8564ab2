"""Routes, names, headers, fields, replaced answers, metrics, in front of an application that tells as workers do."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from prometheus_client import REGISTRY
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from gate_cases import write_gate
from presafe_vllm.channel import Told, tell
from presafe_vllm.gating.gate_file import GateError
from presafe_vllm.gating.outcome import calibrated
from presafe_vllm.middleware import PreSafeMiddleware
from presafe_vllm.settings import read_settings, settings_from

TEXT = "the model's own words"
Client = Callable[..., TestClient]


def application(folder: Path, adapter: Path, told: list[Told], seen: list[Any]) -> FastAPI:
    """Return an application with vLLM's routes and state. It tells `told`, and then answers `TEXT`."""
    app = FastAPI()
    app.state.args = SimpleNamespace(api_server_count=1)
    app.state.openai_serving_models = SimpleNamespace(
        base_model_paths=[SimpleNamespace(name="base", model_path="none")],
        lora_requests={name: SimpleNamespace(lora_path=str(adapter)) for name in ("own", "watched")},
    )

    async def answer(request: Request) -> Response:
        body = await request.json()
        seen.append(body)
        if body.get("max_tokens") == 0:
            return JSONResponse({"error": "max_tokens"}, 400)
        later = 1 if body.get("stream") else len(told)  # vLLM streams when the first prompt has a token

        def tell_all(start: int, end: int | None) -> None:
            for number, decision in enumerate(told[start:end], start):
                tell(str(folder), body["vllm_xargs"]["presafe_id"], str(number), decision)

        tell_all(0, later)
        if body.get("max_tokens") == -1:
            return JSONResponse({"error": "internal"}, 500)
        if body.get("structured_outputs") and any(decision.refused for decision in told) and not body.get("stream"):
            return JSONResponse({"error": "the grammar rejects the token"}, 500)
        if body.get("stream"):

            async def parts() -> Any:
                for word in TEXT.split():
                    yield f"data: {word}\n\n"
                    await asyncio.sleep(0)
                tell_all(later, None)

            return StreamingResponse(parts(), media_type="text/event-stream")
        return JSONResponse({"id": "1", "choices": [{"text": TEXT}]})

    async def anything() -> dict[str, str]:
        return {"text": TEXT}

    for path in ("/v1/completions", "/v1/chat/completions"):
        app.add_api_route(path, answer, methods=["POST"])
    for path in ("/v1/responses", "/v1/load_lora_adapter", "/invocations"):
        app.add_api_route(path, anything, methods=["POST"])
    app.add_api_route("/health", anything, methods=["GET"])
    app.add_middleware(PreSafeMiddleware)
    return app


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """Give a function of what the workers tell and of variables that starts the application."""
    clients: list[TestClient] = []
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_bytes(b"{}")
    hashes = {"adapter_config.json": hashlib.sha256(b"{}").hexdigest()}
    (tmp_path / "1.ready").touch()
    monkeypatch.setenv("PRESAFE_GATE", str(write_gate(tmp_path, adapter_sha256=hashes)))
    monkeypatch.setenv("PRESAFE_GATE_RUN", str(tmp_path))

    def start(
        *told: Told, models: str = "own=gate,watched=monitor,base=open", seen: Any = None, **variables: str
    ) -> TestClient:
        monkeypatch.setenv("PRESAFE_GATE_MODELS", models)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        read_settings.cache_clear()
        own = TestClient(application(tmp_path, adapter, list(told), [] if seen is None else seen))
        clients.append(own.__enter__())
        return own

    yield start
    for own in clients:
        own.__exit__(None, None, None)
    read_settings.cache_clear()


def ask(client: TestClient, model: str = "own", path: str = "/v1/completions", **body: Any) -> Any:
    question = (
        {"prompt": "Why?"} if path.endswith("/v1/completions") else {"messages": [{"role": "user", "content": "Why?"}]}
    )
    return client.post(path, json={"model": model, **question, **body})


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_an_answer_carries_its_decision(client: Client) -> None:
    before = count("presafe_decisions_total", model_name="own", action="answered")
    reply = ask(client(Told(0.25, False)))
    assert reply.headers["x-presafe-action"] == "answered"
    assert reply.headers["x-presafe-refuse-probability"] == "0.250000"
    body = reply.json()
    assert body["choices"][0]["text"] == TEXT
    field = body["presafe"]
    assert (field["action"], field["refuse_probability"], field["threshold"], field["unread"]) == (
        "answered",
        [0.25],
        0.5,
        0,
    )
    # slope 2: z = ln(1/3), σ(2z) = (1/9) / (1/9 + 1) = 0.1
    assert field["calibrated_probability"] == pytest.approx([0.1])
    assert count("presafe_decisions_total", model_name="own", action="answered") == before + 1


@pytest.mark.parametrize(
    ("model", "told", "action"),
    [
        ("own", Told(0.75, True), "refused"),
        ("watched", Told(0.75, False), "flagged"),
        ("base", Told(None, False), "answered"),
    ],
)
def test_what_workers_did_is_passed_on(model: str, told: Told, action: str, client: Client) -> None:
    reply = ask(client(told), model)
    assert (reply.status_code, reply.headers["x-presafe-action"]) == (200, action)
    assert reply.json()["choices"][0]["text"] == TEXT  # what the worker forced


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("told", [(), (Told(None, True),)])
def test_an_unread_request_is_refused(told: tuple[Told, ...], stream: bool, path: str, client: Client) -> None:
    before = count("presafe_unread_total", model_name="own")
    reply = ask(client(*told), path=path, stream=stream, n=2)
    assert (reply.status_code, reply.headers["x-presafe-action"]) == (200, "refused")
    assert TEXT.split()[0] not in reply.text
    text = reply.text.removeprefix("data: ").partition("\n\n")[0] if stream else reply.text
    assert reply.text.endswith("data: [DONE]\n\n") == stream
    choices = json.loads(text)["choices"]
    turns = [choice.get("message") or choice.get("delta") or choice for choice in choices]
    assert [one.get("content", one.get("text")) for one in turns] == ["I can't help with that."] * 2
    assert count("presafe_unread_total", model_name="own") == before + 1


def test_an_unread_request_may_be_unavailable_or_answered(client: Client) -> None:
    reply = ask(client(PRESAFE_GATE_UNREAD="503"))
    assert (reply.status_code, reply.headers["x-presafe-action"]) == (503, "unavailable")
    assert TEXT not in reply.text
    reply = ask(client(PRESAFE_GATE_UNREAD="answer"))
    assert (reply.headers["x-presafe-action"], reply.json()["presafe"]["unread"]) == ("answered", 1)
    reply = ask(client(PRESAFE_GATE_UNREAD="refuse"), "watched")  # monitoring never refuses
    assert (reply.headers["x-presafe-action"], reply.json()["presafe"]["unread"]) == ("answered", 1)


def test_one_of_several_prompts_without_a_decision_counts(client: Client) -> None:
    reply = ask(client(Told(0.25, False)), prompt=["Why?", "How?", "Why?"])
    assert reply.json()["presafe"]["action"] == "refused"
    assert reply.json()["presafe"]["unread"] == 1
    assert len(reply.json()["choices"]) == 3  # vLLM answers each, also one that is asked twice
    reply = ask(client(Told(0.25, False), Told(0.75, True)), prompt=["Why?", "How?", "Why?"])
    assert reply.headers["x-presafe-refuse-probability"] == "0.250000,0.750000"
    assert reply.headers["x-presafe-action"] == "refused"


def test_a_stream_starts_with_its_decision(client: Client) -> None:
    reply = ask(client(Told(0.25, False)), stream=True)
    assert reply.headers["x-presafe-refuse-probability"] == "0.250000"
    assert reply.text == "".join(f"data: {word}\n\n" for word in TEXT.split())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize(
    "fields", [{"structured_outputs": {"regex": "a+"}}, {"logprobs": 5}, {"logprobs": True, "top_logprobs": 5}]
)
def test_a_refusal_has_no_form_and_no_odds(fields: dict[str, Any], path: str, stream: bool, client: Client) -> None:
    own = client(Told(0.75, True))
    before = count("presafe_decisions_total", model_name="own", action="refused")
    reply = ask(own, path=path, stream=stream, **fields)
    assert (reply.status_code, reply.headers["x-presafe-action"]) == (200, "refused")
    text = reply.text.removeprefix("data: ").partition("\n\n")[0] if stream else reply.text
    (choice,) = json.loads(text)["choices"]
    answer = choice.get("text") or (choice.get("message") or choice["delta"])["content"]
    assert answer == "I can't help with that."
    assert count("presafe_decisions_total", model_name="own", action="refused") == before + 1


@pytest.mark.parametrize(("model", "p", "action"), [("watched", 0.75, "flagged"), ("own", 0.25, "answered")])
def test_a_decision_before_an_error_is_counted(model: str, p: float, action: str, client: Client) -> None:
    own = client(Told(p, False))
    before = count("presafe_decisions_total", model_name=model, action=action)
    assert ask(own, model, max_tokens=-1).status_code == 500
    assert count("presafe_decisions_total", model_name=model, action=action) == before + 1


def test_refusals_are_as_many_as_were_asked_for(client: Client) -> None:
    own = client(Told(0.75, True))
    reply = ask(own, prompt=["Why?", "Why?"], n="2", stream="false", logprobs=1)
    assert len(reply.json()["choices"]) == 4


def test_an_answer_with_a_form_is_answered(client: Client) -> None:
    reply = ask(client(Told(0.25, False)), response_format={"type": "json_object"})
    assert reply.json()["choices"][0]["text"] == TEXT
    assert reply.headers["x-presafe-action"] == "answered"


def test_a_monitored_stream_of_several_prompts_misses_none(client: Client, tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    own = client(Told(0.25, False), Told(0.75, False), PRESAFE_GATE_AUDIT=str(audit))
    before = count("presafe_unread_total", model_name="watched")
    flagged = count("presafe_decisions_total", model_name="watched", action="flagged")
    reply = ask(own, "watched", stream=True, prompt=["Why?", "How?"])
    assert reply.text == "".join(f"data: {word}\n\n" for word in TEXT.split())
    assert "x-presafe-action" not in reply.headers
    assert count("presafe_unread_total", model_name="watched") == before
    assert count("presafe_decisions_total", model_name="watched", action="flagged") == flagged + 1
    (line,) = audit.read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["p"] == [0.25, 0.75]


@pytest.mark.parametrize(
    "path", ["/v1/responses", "/v1/load_lora_adapter", "/invocations", "/docs", "/v1/completions/"]
)
def test_other_routes_are_closed(path: str, client: Client) -> None:
    own = client()
    for method in ("POST", "GET", "OPTIONS"):
        reply = own.request(method, path, json={"model": "own", "prompt": "Why?"})
        assert (reply.status_code, TEXT in reply.text) == (404, False)
    assert own.get("/health").status_code == 200
    with pytest.raises(WebSocketDisconnect), own.websocket_connect("/v1/realtime"):
        pass


@pytest.mark.parametrize("model", ["other", None, 3, ["own"], ""])
def test_other_names_are_closed(model: Any, client: Client) -> None:
    seen: list[Any] = []
    own = client(models="own=gate", seen=seen)
    assert ask(own, model).status_code == 404
    assert ask(own, "base").status_code == 404
    assert own.post("/v1/completions", json={"prompt": "Why?"}).status_code == 404  # vLLM would take its first name
    assert not seen


def test_a_client_cannot_switch_it_off(client: Client) -> None:
    seen: list[Any] = []
    own = client(Told(0.25, False), seen=seen)
    ask(own, vllm_xargs={"presafe_mode": "open", "presafe_id": "x", "temperature_of": 3}, ignore_eos=True)
    given = seen[0]["vllm_xargs"]
    assert given["presafe_mode"] == "gate"
    assert given["presafe_id"] != "x"
    assert given["temperature_of"] == 3
    first, second = (f'"vllm_xargs": {json.dumps({"presafe_mode": mode})}' for mode in ("gate", "open"))
    twice = f'{{"model": "own", "prompt": "Why?", {first}, {second}}}'
    own.post("/v1/completions", content=twice, headers={"content-type": "application/json"})
    assert seen[1]["vllm_xargs"]["presafe_mode"] == "gate"


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"{", 400), (b"[]", 400), (b"\xff", 400), (b"[" * 100_000, 400), (b"x" * (2**24 + 1), 413)],
    ids=["cut", "list", "no text", "deep", "large"],
)
def test_a_body_that_is_no_request_is_refused(content: bytes, status: int, client: Client) -> None:
    seen: list[Any] = []
    reply = client(seen=seen).post("/v1/completions", content=content)
    assert (reply.status_code, seen) == (status, [])


@pytest.mark.parametrize(
    "body",
    [
        {"thinking_token_budget": 5},
        {"prompt_logprobs": 0},
        {"prompt_logprobs": 20},
        {"echo": True},
        {"use_beam_search": True},
        {"stream": True, "prompt": ["Why?", "How?"]},
    ],
)
def test_what_cannot_be_gated_is_an_error(body: dict[str, Any], client: Client) -> None:
    own = client(Told(0.25, False), Told(0.25, False))
    assert ask(own, **body).status_code == 400
    assert ask(own, "watched", **body).status_code == 200


def test_an_error_of_vllm_is_passed_on(client: Client) -> None:
    reply = ask(client(), max_tokens=0)
    assert (reply.status_code, reply.json()) == (400, {"error": "max_tokens"})
    assert "x-presafe-action" not in reply.headers


def test_the_audit_has_no_text(client: Client, tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    own = client(Told(0.25, False), PRESAFE_GATE_AUDIT=str(audit))
    replies = [ask(own, prompt="Why is the sky blue?") for _ in range(2)]
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [line["request"] for line in lines] == [reply.json()["presafe"]["request"] for reply in replies]
    sha256 = hashlib.sha256(json.dumps(["Why is the sky blue?"]).encode()).hexdigest()
    assert {key: lines[0][key] for key in lines[0] if key not in ("time", "request")} == {
        "model": "own",
        "prompt_sha256": sha256,
        "p": [0.25],
        "threshold": 0.5,
        "action": "answered",
        "unread": 0,
    }
    assert "sky" not in audit.read_text()


def test_a_full_disk_under_the_audit_costs_no_answer(client: Client) -> None:
    before = count("presafe_audit_lost_total")
    own = client(Told(0.25, False), PRESAFE_GATE_AUDIT="/dev/full")
    assert [ask(own).status_code for _ in range(3)] == [200] * 3
    assert count("presafe_audit_lost_total") == before + 3


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"models": "other=gate"}, "vLLM serves base, own, watched"),
        ({"PRESAFE_GATE_AUDIT": "/none/audit"}, "cannot write"),
    ],
)
def test_a_wrong_start_is_said(variables: dict[str, str], problem: str, client: Client) -> None:
    with pytest.raises(GateError, match=problem):
        client(**variables)


def test_without_a_gate_file_all_is_passed_on(client: Client) -> None:
    own = client(PRESAFE_GATE="")
    assert own.post("/v1/responses").json() == {"text": TEXT}


def test_certain_probabilities_are_scaled(tmp_path: Path) -> None:
    calibration = settings_from(write_gate(tmp_path), {}).gate.calibration
    assert calibrated(0.0, calibration) == pytest.approx(0, abs=1e-12)
    assert calibrated(1.0, calibration) == pytest.approx(1)
    assert calibrated(0.5, calibration) == 0.5
