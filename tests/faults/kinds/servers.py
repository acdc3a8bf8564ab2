"""A model server whose bytes are damaged: a good completion, or one line in time; no memory eaten, no key shown."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

from tenacity import wait_none

from faults.cases import Case
from faults.mutate import change_json, damage
from faults.oracles import need
from presafe.models import served
from presafe.models.address import served_model
from presafe.models.exchange import Completion, Request
from presafe.models.family import Sampling
from presafe.models.loading import load_renderer
from presafe.models.rendering import Renderer

_KEY = "sk-a-key-that-no-line-may-hold"
_TRY_S = 0.6
"""Seconds that a try, and all tries of one request, may take."""
_LIMIT_S = 12.0
"""Seconds after which an engine must have given up: some tries of a greeting in each dialect, on a busy machine."""
_HEADERS: tuple[tuple[str, ...], ...] = (
    ("Content-Encoding: gzip",),
    ("Content-Encoding: zstd",),
    ("Retry-After: 99999999999999999999",),
    ("Retry-After: \u00b2",),
    ("Transfer-Encoding: chunked",),
    (f"X-Echo: {_KEY}",),
    ("Content-Length: 5",),
    ("Content-Length: -1",),
    ("Location: http://127.0.0.1:9/",),
)
_PLACES = ("models", "greeting", "completion")


class Servers:
    """What goes over the wire instead of one good answer."""

    name, clock_s = "servers", 40.0

    def prepare(self, workspace: Path) -> None:
        """Load the tokenizer, and shorten the client's patience."""
        import raw_server

        self._raw = raw_server
        self._renderer: Renderer = load_renderer("smolthink")
        served._BACKOFF = wait_none()  # type: ignore[assignment]
        os.environ.update(PRESAFE_TIMEOUT_S=str(_TRY_S), PRESAFE_RETRY_S=str(_TRY_S), PRESAFE_API_KEY=_KEY)

    def make(self, rng: random.Random) -> Case:
        """Return a damaged answer, as JSON: where it is sent, its bytes, and how it is sent."""
        body = json.loads(self._raw.body_of("7", 5))
        if rng.random() < 0.7:
            del body["usage"]["prompt_tokens"]  # a wrong number of them is refused, whatever else is sent
        for _ in range(rng.choice((0, 1, 2))):
            body = change_json(body, rng)
        content = json.dumps(body).encode()
        if rng.random() < 0.3:
            content = damage(content, rng)
        statuses = ("400 Bad", "401 No", "429 Slow", "500 Error", "503 Busy", "999 x")
        status = "200 OK" if rng.random() < 0.7 else rng.choice(statuses)
        headers = rng.choice(_HEADERS) if rng.random() < 0.4 else ()
        answer = self._raw.whole(content, status, *(header.encode().decode("latin-1") for header in headers))
        if rng.random() < 0.3:
            answer = damage(answer, rng)
        how = rng.choice(("at once", "at once", "at once", "dripped", "without end", "informed", "cut"))
        value = {"at": rng.choice(_PLACES), "how": how, "answer": answer.decode("latin-1")}
        return Case(self.name, value["at"], json.dumps(value).encode())

    def check(self, case: Case, folder: Path) -> None:
        """Ask the server for one completion."""
        value = json.loads(case.data)
        begun = time.monotonic()
        with self._raw.sending(
            lambda: _stream(value["answer"].encode("latin-1"), value["how"]), value["at"]
        ) as address:
            try:
                completion = self._ask(address)
            except Exception as error:
                need(_KEY not in str(error), "an error shows the key", str(error))
                raise
            finally:
                need(time.monotonic() - begun < _LIMIT_S, "a server holds the engine", time.monotonic() - begun)
        need(isinstance(completion.text, str) and _KEY not in completion.text, "a completion shows the key")
        if value["at"] == "completion":
            _check_text(value["answer"], completion)
        need(0 <= completion.num_tokens <= 40, "a number of tokens that cannot be", completion.num_tokens)

    def _ask(self, address: str) -> Completion:
        async def ask() -> Completion:
            model = served_model(address)
            assert model is not None
            engine = served.ServedEngine(model, lambda: self._renderer, batch_size=1)
            try:
                ids = self._renderer.render("What is 3 + 4?", "on").ids
                return await engine.complete(Request(ids, 32, Sampling(), seed=1))
            finally:
                await engine.close()

        return asyncio.run(ask())


def _check_text(answer: str, completion: Completion) -> None:
    """Check that a completion says what stands in the body of the answer.

    Raises:
        Fault: it does not.
    """
    body = answer.encode("latin-1").partition(b"\r\n\r\n")[2].decode(errors="replace").lstrip("\ufeff \r\n\t")
    try:
        sent, _ = json.JSONDecoder().raw_decode(body)
    except ValueError:
        sent = None
    need(sent is not None, "a completion without JSON", body[:300])
    need(sent["choices"][0]["text"] == completion.text, "a completion is another text than was sent", completion.text)


def _stream(answer: bytes, how: str) -> Iterator[bytes]:
    if how == "at once":
        yield answer
    elif how == "cut":
        yield answer[: len(answer) // 2]
    elif how == "informed":
        while True:
            yield b"HTTP/1.1 100 Continue\r\n\r\n"
    elif how == "without end":
        yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        while True:
            yield b"10000\r\n" + b" " * 65536 + b"\r\n"
    else:
        for place in range(len(answer)):
            time.sleep(0.05)
            yield answer[place : place + 1]
