"""A server of completions on loopback that misbehaves on purpose and records its requests."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from presafe.models.loading import load_renderer


class Reply(NamedTuple):
    """A reply: status, body and headers, sent after `delay_s` seconds; `cut` closes the connection half-way."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    delay_s: float = 0.0
    cut: bool = False
    counted: bool = False
    """Whether the server replaces `COUNT` by the number of the prompt's tokens."""


COUNT = 987654321


def completion(text: Any, finish_reason: Any = "stop", delay_s: float = 0.0, num_tokens: Any = 5) -> Reply:
    """Return a completion. The prompt's tokens are counted with SmolThink's tokenizer, as its server would."""
    usage = {"prompt_tokens": COUNT, "completion_tokens": num_tokens}
    choice = {"text": text, "index": 0, "finish_reason": finish_reason}
    return Reply(json.dumps({"choices": [choice], "usage": usage}).encode(), delay_s=delay_s, counted=True)


def error(status: int, message: str, **headers: str) -> Reply:
    """Return an error in OpenAI's form. Underscores in names of headers become hyphens."""
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Reply(json.dumps({"error": {"message": message}}).encode(), status, named)


@cache
def _tokenizer() -> Any:
    return load_renderer("smolthink").tokenizer


def num_tokens(prompt: str | list[int]) -> int:
    """Return the number of a prompt's tokens."""
    return len(prompt if isinstance(prompt, list) else _tokenizer().encode(prompt))


class FakeServer:
    """A running server: its address and the requests that it got."""

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}#smolthink"
        self.asked: list[dict[str, Any]] = []
        """Bodies of the requests for completions, including the greeting."""
        self.paths: set[str] = set()
        self.times: list[float] = []
        self.keys: set[str | None] = set()
        """Authorization headers."""


@contextmanager
def serving(
    answer: Callable[[dict[str, Any], int], Reply], offers: Reply | tuple[str, ...] = ("smolthink",)
) -> Iterator[FakeServer]:
    """Serve until the block ends.

    Args:
        answer: Returns the reply to a request from its body and its number, counted from 0.
        offers: Names in `/v1/models`, or the reply that is sent instead.
    """
    listed = offers if isinstance(offers, Reply) else Reply(json.dumps({"data": [{"id": n} for n in offers]}).encode())
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(listed)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(fake.asked)
                fake.asked.append(body)
                fake.paths.add(self.path)
                fake.times.append(time.monotonic())
                fake.keys.add(self.headers.get("Authorization"))
            reply = answer(body, number)
            if reply.counted:
                count = str(num_tokens(body["prompt"])).encode()
                reply = reply._replace(body=reply.body.replace(str(COUNT).encode(), count))
            self._send(reply)

        def _send(self, reply: Reply) -> None:
            time.sleep(reply.delay_s)
            try:
                self.send_response(reply.status)
                for name, value in reply.headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body[: len(reply.body) // 2] if reply.cut else reply.body)
            except (BrokenPipeError, ConnectionResetError):  # the client did not wait
                reply = reply._replace(cut=True)
            self.close_connection = reply.cut

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake = FakeServer(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
