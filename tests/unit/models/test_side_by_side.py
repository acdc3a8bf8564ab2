"""Servers side by side: requests are balanced, a dead one is left out, and its requests are asked elsewhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from fake_server import FakeServer, Reply, completion, error, serving
from tenacity import wait_none

from presafe.errors import ModelError
from presafe.models.address import served_model
from presafe.models.exchange import Completion, Request
from presafe.models.family import Sampling
from presafe.models.loading import load_renderer
from presafe.models.rendering import Renderer
from presafe.models.served import ServedEngine
from presafe.models.side_by_side import ManyServers, Server

Answer = Callable[[dict[str, Any], int], Reply]
GOOD = completion("so\n</think>\n\n12")


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return load_renderer("smolthink")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("presafe.models.served._BACKOFF", wait_none())
    monkeypatch.setattr("presafe.models.side_by_side._LOOK_S", 0.02)
    monkeypatch.setenv("PRESAFE_RETRY_S", "0.3")


def after(num_good: int, fault: Reply) -> Answer:
    """Return replies: `num_good` good ones, the first of which is the greeting's, then faults."""
    return lambda _, number: GOOD if number < num_good else fault


def slow(delay_s: float) -> Answer:
    return lambda _, number: GOOD._replace(delay_s=delay_s)


def side_by_side(
    fakes: list[FakeServer], renderer: Renderer, problem: Callable[[], ModelError | None] = lambda: None
) -> ManyServers:
    servers = []
    for fake in fakes:
        served = served_model(fake.address)
        assert served is not None
        servers.append(Server(ServedEngine(served, lambda: renderer, 4, with_ids=True), problem=problem))
    return ManyServers(lambda: servers, lambda engine: None, 4)


def ask(engine: ManyServers, renderer: Renderer, num: int) -> list[Completion]:
    """Ask `num` prompts, at most as many at once as the engine wants."""

    async def together() -> list[Completion]:
        engine.ready()
        room = asyncio.Semaphore(engine.in_flight())
        request = Request(renderer.render("What is 7 + 5?", "on").ids, 32, Sampling(), seed=3)

        async def one() -> Completion:
            async with room:
                return await engine.complete(request)

        try:
            return await asyncio.gather(*(one() for _ in range(num)))
        finally:
            await engine.close()

    return asyncio.run(together())


def serve(stack: ExitStack, *answers: Answer) -> list[FakeServer]:
    return [stack.enter_context(serving(answer)) for answer in answers]


def test_the_quicker_server_gets_more(renderer: Renderer) -> None:
    finished: list[int] = []
    with ExitStack() as stack:
        fakes = serve(stack, slow(0.02), slow(0.1))
        engine = side_by_side(fakes, renderer)
        engine.on_finished = finished.append
        assert len(ask(engine, renderer, 48)) == 48
        assert engine.in_flight() == 8
    # One is greeted beside its share. The quick one is five times as quick: of 48 it gets 40, and at least half.
    quick, sluggish = (len(fake.asked) - 1 for fake in fakes)
    assert quick + sluggish == 48 == sum(finished)
    assert 4 <= sluggish < 24
    assert all(body["return_token_ids"] is True for fake in fakes for body in fake.asked[1:])


@pytest.mark.parametrize("fault", [error(500, "out of luck"), GOOD._replace(cut=True), error(404, "no such model")])
def test_a_dead_server_is_left_out(fault: Reply, renderer: Renderer, capsys: pytest.CaptureFixture[str]) -> None:
    with ExitStack() as stack:
        fakes = serve(stack, after(3, fault), slow(0))
        engine = side_by_side(fakes, renderer)
        completions = ask(engine, renderer, 20)
        assert engine.in_flight() == 4
    assert [completion.text for completion in completions] == ["so\n</think>\n\n12"] * 20
    assert len(fakes[1].asked) - 1 == 18  # 2 of the first server's 3 were prompts
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert fakes[0].address.removesuffix("#smolthink") in line


def test_one_that_does_not_answer_at_first_is_left_out(renderer: Renderer, capsys: pytest.CaptureFixture[str]) -> None:
    with ExitStack() as stack:
        (alive,) = serve(stack, slow(0))
        with serving(slow(0)) as gone:
            pass
        assert len(ask(side_by_side([gone, alive], renderer), renderer, 5)) == 5
        assert len(alive.asked) - 1 == 5
    assert "no connection. It is left out" in capsys.readouterr().err


def test_all_dead_is_an_error(renderer: Renderer) -> None:
    with ExitStack() as stack:
        fakes = serve(stack, after(2, error(503, "stopping")), after(3, error(503, "stopping")))
        with pytest.raises(ModelError, match=r"failed \d+ times in 0 s: it answered 503 \(stopping\)"):
            ask(side_by_side(fakes, renderer), renderer, 20)


def test_a_refused_prompt_is_not_asked_elsewhere(renderer: Renderer) -> None:
    with ExitStack() as stack:
        fakes = serve(stack, after(1, error(400, "too long")), after(1, error(400, "too long")))
        engine = side_by_side(fakes, renderer)
        with pytest.raises(ModelError, match="too long"):
            ask(engine, renderer, 1)
        assert sum(len(fake.asked) - 1 for fake in fakes) == 1
        assert engine.in_flight() == 8


def test_an_ended_process_is_seen_at_once(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESAFE_RETRY_S", "60")
    ended: list[ModelError] = []

    def stuck(body: dict[str, Any], number: int) -> Reply:
        if number:
            ended.append(ModelError("vLLM ended with code -9."))
        return GOOD._replace(delay_s=0.3 if number else 0)

    with ExitStack() as stack:
        fakes = serve(stack, stuck)
        with pytest.raises(ModelError, match="vLLM ended with code -9"):
            ask(side_by_side(fakes, renderer, lambda: ended[0] if ended else None), renderer, 4)


def test_servers_that_take_text_are_refused(renderer: Renderer) -> None:
    def no_ids(body: dict[str, Any], _: int) -> Reply:
        return error(400, "prompt: a text") if isinstance(body["prompt"], list) else GOOD

    with serving(no_ids) as fake, pytest.raises(ModelError, match="takes text, and `engine` asks in token ids"):
        ask(side_by_side([fake], renderer), renderer, 1)


@pytest.mark.parametrize("ids", [[1, 2], [1, 2, 3, 4, -5], "12345", [1.0] * 5])
def test_tokens_that_do_not_fit_their_count_are_not_taken(ids: Any, renderer: Renderer) -> None:
    def odd(body: dict[str, Any], number: int) -> Reply:
        choice = {"text": "a", "finish_reason": "stop", "token_ids": ids}
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": 5}
        return GOOD if not number else Reply(json.dumps({"choices": [choice], "usage": usage}).encode())

    with serving(odd) as fake, pytest.raises(ModelError, match="tokens that it returns are not those that it counts"):
        ask(side_by_side([fake], renderer), renderer, 1)
