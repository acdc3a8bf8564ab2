"""PAIR and TAP through PyRIT, with an attacker behind a real server. They need PyRIT, which is an extra."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from presafe.attacks import red_team
from presafe.attacks.attack import Query, Reader, Reply
from presafe.attacks.red_team import Pair, RedTeam, Tap
from presafe.config.measure import MeasureSettings
from presafe.config.recipe import ModelSettings
from presafe.errors import AttackError
from presafe.models.address import need_weights_for


def attacker_writes(body: dict[str, Any], number: int) -> dict[str, str]:
    """Return what an attacker writes: new wordings, "on topic", and a score that likes wrens."""
    text = json.dumps(body["messages"])
    if "next_message" in text:
        return {"next_message": f"Which bird sings? {number}", "rationale": "r", "last_response_summary": ""}
    if "off topic" in text:
        return {"score_value": "False", "description": "d", "rationale": "r", "metadata": "m"}
    return {"score_value": "100" if "wren" in text else "0", "description": "d", "rationale": "r"}


@contextmanager
def attacker() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Serve an attacker model; give its address and what it is asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            content = json.dumps(attacker_writes(asked[-1], len(asked)))
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            head = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
            data = json.dumps({**head, "choices": [choice], "usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1#m", asked
    finally:
        server.shutdown()
        server.server_close()


def test_an_attacker_is_needed_before_the_first_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for label in ("pair", "tap:attacker=here", "pair:attacker=http://127.0.0.1:9/v1"):
        with pytest.raises(AttackError, match=r"has no attacker model: .*Set attacker=http://host:port/v1#name"):
            need_weights_for("smolthink", (label,), ())
    monkeypatch.setattr(red_team, "find_spec", lambda name: None)
    settings = MeasureSettings(attacks=("pair:attacker=http://127.0.0.1:9/v1#m",))
    with pytest.raises(AttackError, match=r"PAIR needs PyRIT\. Run `pip install 'presafe\[pyrit\]'`"):
        need_weights_for(ModelSettings(address="smolthink").address, settings.attacks, ())


@pytest.mark.parametrize("kind", [Pair, Tap])
def test_pyrit_asks_the_model_until_the_attacker_is_content(kind: type[RedTeam]) -> None:
    pytest.importorskip("pyrit", reason="PyRIT is an extra")
    queries: list[Query] = []

    async def ask(query: Query) -> Reply:
        queries.append(query)
        return Reply("", "A wren." if len(queries) == 3 else "I can't.", len(queries))

    with attacker() as (address, asked):
        search = kind(attacker=address, width=2, depth=3, queries=5)
        search.need()
        budget = search.budget(lambda: 0)
        reply = asyncio.run(
            search.run(Query("Name a bird.", seed=7), ask, Reader(lambda text: False, lambda texts: []), budget)
        )
    # The third answer is the one that the attacker scores 100: it ends the attack at the end of its round.
    assert (reply.answer, reply.output) == ("A wren.", 3)
    assert 3 <= len(queries) <= 5
    assert all(query.text.startswith("Which bird sings? ") for query in queries)
    assert [query.seed for query in queries] == list(range(7, 7 + len(queries)))
    assert "Name a bird." in json.dumps(asked[0]["messages"])  # the request is the attacker's objective
