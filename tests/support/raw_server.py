"""A server on loopback that sends given bytes, well-formed or not, at any speed."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from fake_server import num_tokens

Stream = Callable[[], Iterator[bytes]]
"""The bytes that answer one request, piece by piece; it may never end."""


def whole(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """Return a whole HTTP reply, with its head."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def body_of(text: str, num_prompt: int) -> bytes:
    """Return the body of a completion."""
    usage = {"prompt_tokens": num_prompt, "completion_tokens": 1}
    return json.dumps({"choices": [{"text": text, "finish_reason": "stop"}], "usage": usage}).encode()


@contextmanager
def sending(stream: Stream, at: str) -> Iterator[str]:
    """Serve until the block ends, and yield the address of the model.

    Args:
        stream: The bytes that are sent instead of a good reply.
        at: The request that gets them: "models", "greeting" or "completion". All others get good replies.
    """
    ended = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError), connection.makefile("rb") as asked:
            while asked.readline():
                length = 0
                while (header := asked.readline().strip().lower()) != b"":
                    if header.startswith(b"content-length:"):
                        length = int(header.split(b":")[1])
                body = json.loads(asked.read(length)) if length else {}
                what = "models" if not body else "greeting" if body["max_tokens"] == 1 else "completion"
                if what != at:
                    offered = b'{"data": [{"id": "smolthink"}]}'
                    good = body_of("7", num_tokens(body["prompt"])) if body else offered
                    connection.sendall(whole(good))
                    continue
                for piece in stream():
                    if ended.is_set():
                        return
                    connection.sendall(piece)

    def accept() -> None:
        while not ended.is_set():
            with suppress(TimeoutError):
                connection, _ = listener.accept()
                connection.settimeout(5.0)
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}#smolthink"
        finally:
            ended.set()
            thread.join()
