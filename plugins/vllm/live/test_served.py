"""What a real vLLM with the plug-in answers, reads, refuses and closes."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from front_servers import serving_front

from presafe.alignment.rows import refusal_start
from presafe.config.recipe import ModelSettings
from presafe.front.serve import FrontSettings
from presafe.internals.decision import decision_scores
from presafe.judges.scorers import refusal_strings
from presafe.models.address import raw_server
from presafe.models.decision_head import DecisionHead
from presafe.models.loading import load_model
from presafe.models.rendering import Renderer
from presafe.models.sampling import Sampler, sample_responses
from presafe.models.served_decision import served_decisions
from presafe.records import Prompt, Response, Thinking
from presafe.stages.run_folder import RunFolder
from presafe.workflows.gate_check import check
from presafe.workflows.monitor import score_prompts
from vllm_server import Server, start_python

MAX_TOKENS = 60
"""A refusal has 57 tokens: every letter is one."""
CUT = "\N{REPLACEMENT CHARACTER}"


@pytest.fixture(scope="module")
def probabilities(run: RunFolder, system: Path, prompts: list[Prompt]) -> list[float]:
    """Return what `presafe score` says."""
    return score_prompts(run.recipe.model, [prompt.text for prompt in prompts], DecisionHead(system), system)


@pytest.fixture(scope="module")
def threshold(system: Path) -> float:
    value: float = json.loads((system / "gate.json").read_text())["threshold"]
    return value


def sample(
    model: ModelSettings, thinking: Thinking, adapter: Path | None, prompts: list[Prompt], folder: Path
) -> list[Response]:
    """Return the greedy response to each prompt."""
    sampler = Sampler(
        model=model,
        thinking=thinking,
        adapter=adapter,
        batch_size=32,
        batch_tokens=16_384,
        max_tokens=MAX_TOKENS,
        seed=0,
    )
    return sample_responses("own", {"own": prompts}, {"own": [refusal_strings()]}, sampler, folder)["own"]


def ids_of(renderer: Renderer, text: str, thinking: Thinking = "on") -> list[int]:
    return renderer.render(text, thinking).ids


@pytest.mark.parametrize("thinking", ["on", "off"])
@pytest.mark.parametrize("name", ["base", "watched"])
def test_answers_are_those_of_this_process(
    name: str,
    thinking: Thinking,
    server: Server,
    base: Path,
    system: Path,
    renderer: Renderer,
    prompts: list[Prompt],
    tmp_path: Path,
) -> None:
    adapter = system / "adapter" if name == "watched" else None
    ours = sample(ModelSettings(address=str(base)), thinking, adapter, prompts, tmp_path / "local")
    greedy = {"model": name, "max_tokens": MAX_TOKENS, "temperature": 0, "stop_token_ids": renderer.stop_ids()}
    asked = [{**greedy, "prompt": ids_of(renderer, one.text, thinking), "return_token_ids": True} for one in prompts]
    theirs = [reply.json()["choices"][0]["token_ids"] for reply in server.ask_all(asked)]
    assert theirs == [list(response.token_ids or ()) for response in ours]
    assert sum(map(len, theirs)) > 10 * len(prompts)
    # Through this package's client. Tokens are bytes, and vLLM holds those back that are no character yet.
    served = ModelSettings(address=f"{server.url}#{name}", tokenizer=str(base))
    for own, other in zip(ours, sample(served, thinking, None, prompts, tmp_path / "served"), strict=True):
        assert (other.num_tokens, other.complete, other.verdict) == (own.num_tokens, own.complete, own.verdict)
        assert own.thought.startswith(other.thought.rstrip(CUT))
        assert own.answer.startswith(other.answer.rstrip(CUT))


def test_p_is_that_of_score(
    server: Server, renderer: Renderer, prompts: list[Prompt], probabilities: list[float], threshold: float
) -> None:
    bodies = [{"model": "watched", "prompt": ids_of(renderer, one.text), "max_tokens": 1} for one in prompts]
    for reply, expected in zip(server.ask_all(bodies), probabilities, strict=True):
        (p,) = reply.json()["presafe"]["refuse_probability"]
        assert abs(p - expected) < 1e-4
        assert reply.headers["x-presafe-refuse-probability"] == f"{p:.6f}"
        assert reply.headers["x-presafe-action"] == ("flagged" if p >= threshold else "answered")


def test_a_front_reads_what_vllm_renders(
    server: Server,
    system: Path,
    renderer: Renderer,
    prompts: list[Prompt],
    probabilities: list[float],
    threshold: float,
) -> None:
    address, gate = f"{server.url}#watched", system / "gate.json"
    actions: Counter[str] = Counter()
    asked = list(zip(prompts, probabilities, strict=True))[::2]
    with serving_front(FrontSettings(address, gate, None, "gate", "refuse", "127.0.0.1", 0, None)) as front:
        for one, expected in asked:
            ids = ids_of(renderer, one.text)
            for path, fields in (
                ("/v1/completions", {"prompt": ids}),
                ("/v1/completions", {"prompt": renderer.tokenizer.decode(ids)}),
                ("/v1/chat/completions", {"messages": [{"role": "user", "content": one.text}]}),
            ):
                body = {"model": "watched", "max_tokens": 2, "temperature": 0, **fields}
                reply = httpx.post(front + path, json=body, timeout=300)
                (p,) = reply.json()["presafe"]["refuse_probability"]
                assert abs(p - expected) < 1e-4
                actions[reply.headers["x-presafe-action"]] += 1
                if p < threshold:
                    choices = [answer.json()["choices"] for answer in (reply, server.ask(path, **body))]
                    assert choices[0] == choices[1]
    num_refused = sum(p >= threshold for _, p in asked)
    assert actions == Counter(refused=3 * num_refused, answered=3 * (len(asked) - num_refused))


def test_score_reads_the_plug_in_and_the_odds(
    server: Server, base: Path, renderer: Renderer, prompts: list[Prompt], probabilities: list[float]
) -> None:
    texts, start = [prompt.text for prompt in prompts], refusal_start(renderer, "direct")
    watched = served_decisions(raw_server(f"{server.url}#watched"), renderer, texts, start)
    assert {decision.way for decision in watched} == {"plug-in"}
    assert [decision.probability for decision in watched] == pytest.approx(probabilities, abs=1e-4)
    odds = served_decisions(raw_server(f"{server.url}#base"), renderer, texts, start, ways=("odds",))
    ours = decision_scores(load_model(str(base)), texts, start, None)
    assert [decision.logit for decision in odds] == pytest.approx([score.refusal_logit for score in ours], abs=1e-3)


def test_a_live_server_passes_the_check_of_its_gate_file(server: Server, run: RunFolder) -> None:
    report = check(run, "presafe", f"{server.url}#watched")
    assert report["server"]["read_by"] == "plug-in"
    assert report["largest_difference"] < 1e-4
    assert (report["decisions_changed"], report["ranking"]["value"]) == (0, 0)
    assert report["verdict"] == "INCONCLUSIVE"  # four queries of each kind


def test_the_gate_refuses_at_the_threshold_alone(
    server: Server,
    renderer: Renderer,
    prompts: list[Prompt],
    probabilities: list[float],
    threshold: float,
    system: Path,
) -> None:
    refusal = json.loads((system / "gate.json").read_text())["refusal"]
    actions: Counter[str] = Counter()
    asked = [{"prompt": ids_of(renderer, one.text), "max_tokens": MAX_TOKENS, "temperature": 0} for one in prompts]
    replies = server.ask_all([{"model": name, **body} for name in ("own", "watched") for body in asked])
    for number, p in enumerate(probabilities):
        gated, watched = replies[number].json(), replies[len(prompts) + number].json()
        texts = [reply["choices"][0]["text"] for reply in (gated, watched)]
        assert gated["presafe"]["action"] == ("refused" if p >= threshold else "answered")
        actions[gated["presafe"]["action"]] += 1
        if p >= threshold:
            assert renderer.split_text(texts[0], "on", ended=True).answer == refusal
            assert gated["choices"][0]["finish_reason"] == "stop"
        else:
            assert texts[0] == texts[1]
    assert min(actions["refused"], actions["answered"]) >= 2, actions


def chosen(prompts: list[Prompt], probabilities: list[float]) -> str:
    """Return the prompt with the largest p."""
    return max(zip(probabilities, prompts, strict=True), key=lambda pair: pair[0])[1].text


def test_a_client_cannot_switch_the_gate_off(
    server: Server, renderer: Renderer, prompts: list[Prompt], probabilities: list[float], system: Path
) -> None:
    text = chosen(prompts, probabilities)
    ids, refusal = ids_of(renderer, text), json.loads((system / "gate.json").read_text())["refusal"]
    tries: list[dict[str, Any]] = [
        {"vllm_xargs": {"presafe_mode": "open"}},
        {"vllm_xargs": {"presafe_mode": "monitor", "presafe_id": "0-0"}},
        {"ignore_eos": True, "max_tokens": 70},
        {"min_tokens": 65, "max_tokens": 70},
        {"logit_bias": {str(ids[0]): -100, str(ids[-1]): 100}},
        {"bad_words": ["sorry"]},
        {"temperature": 2.0, "seed": 1, "n": 3},
        {"frequency_penalty": 2.0, "presence_penalty": 2.0},
        {"stop_token_ids": [ids[0]], "include_stop_str_in_output": True},
    ]
    defaults = {"model": "own", "prompt": ids, "max_tokens": MAX_TOKENS, "temperature": 0}
    for body, reply in zip(tries, server.ask_all([{**defaults, **body} for body in tries]), strict=True):
        assert reply.headers["x-presafe-action"] == "refused", body
        for choice in reply.json()["choices"]:
            answer = choice["text"].partition("</think>")[2].replace("<|im_end|>", "").strip()
            assert refusal.startswith(answer), (body, choice["text"])


def test_odds_do_not_show_what_was_refused(
    server: Server, renderer: Renderer, prompts: list[Prompt], probabilities: list[float], system: Path
) -> None:
    refusal = json.loads((system / "gate.json").read_text())["refusal"]
    ids = ids_of(renderer, chosen(prompts, probabilities))
    asked: dict[str, Any] = {"model": "own", "prompt": ids, "max_tokens": MAX_TOKENS}
    (choice,) = server.ask(**asked, logprobs=5).json()["choices"]
    assert choice["text"] == refusal
    assert choice.get("logprobs") is None
    for past in ({"prompt_logprobs": 5}, {"echo": True, "logprobs": 5}, {"use_beam_search": True, "n": 2}):
        assert server.ask(**{**asked, **past}).status_code == 400, past


@pytest.mark.parametrize("stream", [False, True])
def test_a_form_of_the_answer_is_no_way_round(
    stream: bool,
    server: Server,
    renderer: Renderer,
    prompts: list[Prompt],
    probabilities: list[float],
    threshold: float,
    system: Path,
) -> None:
    """Where the refusal's tokens have not the form that is asked for, vLLM ends with an error; no answer comes."""
    refusal = json.loads((system / "gate.json").read_text())["refusal"]
    form = {"structured_outputs": {"regex": "[ab]{6}"}, "max_tokens": 12, "temperature": 0, "stream": stream}
    bodies = [{"model": "own", "prompt": ids_of(renderer, one.text), **form} for one in prompts]
    for reply, p in zip(server.ask_all(bodies), probabilities, strict=True):
        assert reply.status_code == 200, reply.text
        parts = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: {")]
        text = "".join(choice["text"] for part in parts or [reply.json()] for choice in part["choices"])
        if p >= threshold:
            assert (reply.headers["x-presafe-action"], text) == ("refused", refusal)
        else:
            assert re.fullmatch("[ab]{6}", text)
    assert server.ask_all(bodies[:1])[0].status_code == 200  # it still serves


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("a prompt with CoT off", lambda ids, renderer: {"prompt": renderer.render("Why is the sky blue?", "off").ids}),
        ("words in the model's mouth", lambda ids, renderer: {"prompt": [*ids, *renderer.completion_ids("Sure.")]}),
        ("text without a template", lambda ids, renderer: {"prompt": "The sky is blue because"}),
    ],
)
def test_what_has_no_decision_is_refused(
    what: str, body: Any, server: Server, renderer: Renderer, system: Path
) -> None:
    refusal = json.loads((system / "gate.json").read_text())["refusal"]
    sent = {"max_tokens": 16, "temperature": 0} | body(ids_of(renderer, "Why is the sky blue?"), renderer)
    reply = server.ask(model="own", **sent)
    assert (reply.status_code, reply.headers["x-presafe-action"]) == (200, "refused"), what
    assert {choice["text"] for choice in reply.json()["choices"]} == {refusal}
    watched = server.ask(model="watched", **sent)
    assert watched.json()["presafe"]["unread"] == 1
    assert watched.json()["choices"][0]["text"] != refusal


def test_other_routes_and_names_are_closed(server: Server) -> None:
    message = [{"role": "user", "content": "Why?"}]
    for path, body in (
        ("/v1/responses", {"input": "Why?"}),
        ("/v1/messages", {"messages": message, "max_tokens": 4}),
        ("/v1/chat/completions/batch", {"messages": [message]}),
        ("/invocations", {"prompt": "Why?"}),
        ("/inference/v1/generate", {"token_ids": [1], "sampling_params": {}}),
        ("/generative_scoring", {"query": "Why?", "items": ["a"]}),
        ("/v1/load_lora_adapter", {"lora_name": "x", "lora_path": "x"}),
        ("/tokenize", {"prompt": "Why?"}),
    ):
        assert server.ask(path, model="own", **body).status_code == 404, path
    assert server.ask(model="other", prompt="Why?").status_code == 404
    assert httpx.post(f"{server.url}/v1/completions", json={"prompt": "Why?"}).status_code == 404
    assert httpx.get(f"{server.url}/v1/models").status_code == 200


def test_chat_is_gated_with_the_same_p(
    server: Server, prompts: list[Prompt], probabilities: list[float], threshold: float
) -> None:
    defaults = {"model": "own", "max_tokens": 4, "temperature": 0}
    bodies = [{**defaults, "messages": [{"role": "user", "content": prompt.text}]} for prompt in prompts]
    for reply, expected in zip(server.ask_all(bodies, "/v1/chat/completions"), probabilities, strict=True):
        (p,) = reply.json()["presafe"]["refuse_probability"]
        assert abs(p - expected) < 1e-4
        assert reply.headers["x-presafe-action"] == ("refused" if expected >= threshold else "answered")


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_streams_are_gated(
    path: str, server: Server, renderer: Renderer, prompts: list[Prompt], probabilities: list[float], system: Path
) -> None:
    text = chosen(prompts, probabilities)
    is_chat = path.endswith("chat/completions")
    asked = {"messages": [{"role": "user", "content": text}]} if is_chat else {"prompt": ids_of(renderer, text)}
    body = {"model": "own", "max_tokens": MAX_TOKENS, "temperature": 0, "stream": True, **asked}
    with httpx.stream("POST", server.url + path, json=body, timeout=60) as reply:
        assert reply.headers["x-presafe-action"] == "refused"
        assert abs(float(reply.headers["x-presafe-refuse-probability"]) - max(probabilities)) < 1e-4
        lines = [line.removeprefix("data: ") for line in reply.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    choices = [choice for line in lines[:-1] for choice in json.loads(line)["choices"]]
    parts = [choice["delta"].get("content") or "" if is_chat else choice["text"] for choice in choices]
    refusal = json.loads((system / "gate.json").read_text())["refusal"]
    assert "".join(parts).replace("<|im_end|>", "").strip().endswith(refusal)


def test_500_requests_are_all_accounted_for(server: Server, renderer: Renderer, prompts: list[Prompt]) -> None:
    before, lines_before = server.metrics(), len(server.audit.read_text().splitlines())
    names = ["own", "watched"]

    def ask(number: int) -> tuple[str, str, str]:
        prompt = f"{prompts[number % len(prompts)].text} ({number})"
        name = names[number % 2]
        ids = ids_of(renderer, prompt, "off" if number % 10 == 9 else "on")
        reply = server.ask(model=name, prompt=ids, max_tokens=4, temperature=0)
        assert reply.status_code == 200
        field = reply.json()["presafe"]
        assert field["unread"] == (number % 10 == 9)
        return name, field["action"], field["request"]

    with ThreadPoolExecutor(64) as pool:
        done = list(pool.map(ask, range(500)))
    after = server.metrics()
    for (name, action), count in Counter((name, action) for name, action, _ in done).items():
        key = f'presafe_decisions_total{{action="{action}",model_name="{name}"}}'
        assert after[key] - before.get(key, 0) == count
    unread = [f'presafe_unread_total{{model_name="{name}"}}' for name in names]
    assert sum(after[key] - before.get(key, 0) for key in unread) == 50  # those with CoT off
    read = [f'presafe_refuse_probability_count{{model_name="{name}"}}' for name in names]
    assert sum(after[key] - before.get(key, 0) for key in read) == 450
    lines = [json.loads(line) for line in server.audit.read_text().splitlines()[lines_before:]]
    assert sorted(line["request"] for line in lines) == sorted(request for _, _, request in done)
    assert not any(prompt.text in server.audit.read_text() for prompt in prompts)


def test_exports_are_loaded_by_vllm(
    exported: Path, run: RunFolder, system: Path, renderer: Renderer, prompts: list[Prompt], tmp_path: Path
) -> None:
    asked = [prompts[0], prompts[-1]]
    texts = [prompt.text for prompt in asked]
    (tmp_path / "prompts.json").write_text(json.dumps([ids_of(renderer, text) for text in texts]))
    script = Path(__file__).with_name("load_exports.py")
    process = start_python([str(script), str(exported), str(tmp_path)], tmp_path / "log")
    assert process.wait(1500) == 0, (tmp_path / "log").read_text()[-3000:]
    result = json.loads((tmp_path / "result.json").read_text())
    expected = score_prompts(run.recipe.model, texts, DecisionHead(system), system)
    assert result["classes"] == pytest.approx(expected, abs=1e-4)
    ours = sample(run.recipe.model, "on", system / "adapter", asked, tmp_path / "local")
    assert result["tokens"] == [list(response.token_ids or ()) for response in ours]


def test_a_killed_worker_answers_nothing(server: Server, renderer: Renderer) -> None:
    """The last test: it ends the server."""
    workers = [int(path.stem) for path in server.log.parent.glob("presafe-gate-*/*.ready")]
    assert workers
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while server.process.poll() is None and time.monotonic() < deadline:
        try:
            reply = server.ask(model="own", prompt=ids_of(renderer, "Why?"), max_tokens=4, timeout=10)
            assert reply.status_code >= 500
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    assert server.process.poll() is not None
