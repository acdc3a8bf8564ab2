"""What stands behind a front: a server of a model that renders chats itself and streams, and one of its classifier.

Both hold real weights and are asked on loopback. The classifier is the exported folder, as transformers loads it.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
import uvicorn
from model_server import complete

from presafe.front.serve import FrontSettings, listener, prepare, server_config
from presafe.models.loading import LoadedModel

Pieces = Callable[[dict[str, Any], list[int]], Iterator[bytes]]
"""Returns the pieces of a stream, for a body and the ids of its prompt."""
NAME = "presafe"


class BackServer(ThreadingHTTPServer):
    """A running server.

    Args:
        loaded: The model that answers; None if it is a classifier only.
        classifier: Folder of the exported classifier; None if it has no `/classify`.
    """

    daemon_threads = True

    def __init__(self, loaded: LoadedModel | None, classifier: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.loaded = loaded
        self.classifier: Any = None if classifier is None else _load_classifier(classifier)
        self.asked: list[dict[str, Any]] = []
        """Bodies of the requests for an answer."""
        self.headers: list[dict[str, str]] = []
        self.pieces: Pieces | None = None
        """What is streamed instead of the model's answer."""
        self.probs: Callable[[float], Any] = lambda p: [p]
        """What `/classify` gives for p."""
        self.delay_s = 0.0
        self.sent = 0
        """Bytes of streams that were handed to the system."""
        self.left = threading.Event()
        """Set when a client goes away within a stream."""
        self.lock = threading.Lock()
        self.open: set[Any] = set()

    @property
    def address(self) -> str:
        """Address of the model."""
        return f"http://127.0.0.1:{self.server_address[1]}#{NAME}"

    def kill(self) -> None:
        """Take no connection any more, and cut those that are open."""
        self.shutdown()
        self.server_close()
        for connection in list(self.open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember an open connection."""
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection."""
        self.open.discard(request)
        super().shutdown_request(request)


@contextmanager
def serving_back(loaded: LoadedModel | None, classifier: Path | None = None) -> Iterator[BackServer]:
    """Serve until the block ends; the arguments are those of `BackServer`."""
    server = BackServer(loaded, classifier)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.kill()
        thread.join()


@contextmanager
def serving_front(settings: FrontSettings) -> Iterator[str]:
    """Serve a front in a thread until the block ends, and give its URL; what stops its start is raised."""
    ready: Future[uvicorn.Server] = Future()

    async def run(opened: socket.socket) -> None:
        front, _ = await prepare(settings)
        server = uvicorn.Server(server_config(front))
        ready.set_result(server)
        try:
            await server.serve([opened])
        finally:
            await front.close()

    def run_in_thread(opened: socket.socket) -> None:
        try:
            asyncio.run(run(opened))
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    with listener("127.0.0.1", 0) as opened, ThreadPoolExecutor(1) as threads:
        served = threads.submit(run_in_thread, opened)
        server = ready.result(timeout=60)
        try:
            yield f"http://127.0.0.1:{opened.getsockname()[1]}"
        finally:
            server.should_exit = True
            served.result(timeout=60)


def _load_classifier(folder: Path) -> Any:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(folder).eval()


class _Handler(BaseHTTPRequestHandler):
    server: BackServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(200, {"data": [{"id": name, "max_model_len": 256} for name in (NAME, "other")]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(self.server.delay_s)
        try:
            self._answer(body)
        except (BrokenPipeError, ConnectionResetError):  # the client did not wait
            self.server.left.set()
            self.close_connection = True

    def _answer(self, body: dict[str, Any]) -> None:
        server = self.server
        if self.path == "/classify" and server.classifier is not None:
            with server.lock, torch.inference_mode():
                logit = server.classifier(input_ids=torch.tensor([body["input"]])).logits[0, 0]
            p = float(torch.sigmoid(logit + server.classifier.config.presafe_bias))
            self._send(200, {"data": [{"index": 0, "label": "refuse", "probs": server.probs(p), "num_classes": 1}]})
        elif self.path in ("/v1/completions", "/v1/chat/completions") and server.loaded is not None:
            if body.get("max_tokens") == 0:
                self._send(400, {"error": {"message": "max_tokens is 0"}})
                return
            server.asked.append(body)
            server.headers.append({key.lower(): value for key, value in self.headers.items()})
            ids = self._ids_of(body)
            if not body.get("stream"):
                self._send(200, self._written(body, ids))
                return
            self._stream((server.pieces or self._pieces)(body, ids))
        else:
            self._send(404, {"error": {"message": "Not Found"}})

    def _ids_of(self, body: dict[str, Any]) -> list[int]:
        """Return the ids of the prompt, rendered by the tokenizer alone."""
        assert self.server.loaded is not None
        tokenizer = self.server.loaded.renderer.tokenizer
        if "messages" in body:
            variables = body.get("chat_template_kwargs", {})
            rendered = tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, **variables)
            return list(rendered["input_ids"])
        prompt = body["prompt"][0] if isinstance(body["prompt"][0], list | str) and body["prompt"] else body["prompt"]
        prompt = body["prompt"] if isinstance(body["prompt"], str) else prompt
        return list(tokenizer.encode(prompt) if isinstance(prompt, str) else prompt)

    def _written(self, body: dict[str, Any], ids: list[int]) -> dict[str, Any]:
        """Return a greedy answer in the form of the route."""
        assert self.server.loaded is not None
        with self.server.lock:  # one at a time: the model is small
            given = complete(*self.server.loaded, {"temperature": 0, "max_tokens": 4} | body | {"prompt": ids})
        if "messages" in body:
            for choice in given["choices"]:
                choice["message"] = {"role": "assistant", "content": choice.pop("text")}
        return {"id": "own", "model": NAME, **given}

    def _pieces(self, body: dict[str, Any], ids: list[int]) -> Iterator[bytes]:
        """Yield events, one for each letter that the model writes."""
        (choice,) = self._written(body, ids)["choices"]
        text = choice.get("text") or choice["message"]["content"]
        for letter in text:
            yield f"data: {json.dumps({'id': 'own', 'choices': [{'text': letter}]})}\n\n".encode()
        yield b"data: [DONE]\n\n"

    def _stream(self, pieces: Iterator[bytes]) -> None:
        """Send pieces as chunks."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("X-Presafe-Action", "forged")
        self.end_headers()
        for piece in pieces:
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            self.server.sent += len(piece)
        self.wfile.write(b"0\r\n\r\n")

    def _send(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()  # writes NaN, as some servers do
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Log nothing."""
