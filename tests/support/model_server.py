"""A server on loopback that holds real weights and answers as vLLM does: token ids, adapters by name, odds of tokens.

It decodes with transformers' `generate`, not with this project's loop.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from presafe.models.loading import LoadedModel, load_model


class ModelServer(ThreadingHTTPServer):
    """A running server.

    Args:
        base: Folder of the base model, which is served as "base".
        dtype: Type of its weights.
        lora: Whether it loads adapters.
        shows_tokens: Whether it has `/tokenize`.
    """

    daemon_threads = True

    def __init__(self, base: Path, dtype: str = "float32", *, lora: bool = True, shows_tokens: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.base, self.dtype, self.lora, self.shows_tokens = base, dtype, lora, shows_tokens
        self.models: dict[str, LoadedModel] = {"base": load_model(str(base), dtype=dtype)}
        self.asked: Counter[str] = Counter()
        """Answers by name of the model."""
        self.unloaded: list[str] = []
        self.dies_after: int | None = None
        """Number of answers after which it answers nothing but errors."""
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        """Address of the base model."""
        return f"http://127.0.0.1:{self.server_address[1]}#base"


@contextmanager
def serving_model(base: Path, dtype: str = "float32", **settings: bool) -> Iterator[ModelServer]:
    """Serve until the block ends; the arguments are those of `ModelServer`."""
    server = ModelServer(base, dtype, **settings)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: ModelServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(200, {"data": [{"id": name, "max_model_len": 256} for name in self.server.models]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:  # one at a time: the models are small
            self._send(*self._reply(self.path, body))

    def _reply(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return the status and the JSON of an answer."""
        server = self.server
        if path == "/v1/load_lora_adapter" and server.lora:
            folder = Path(body["lora_path"])
            if not (folder / "adapter_config.json").is_file():
                return 404, _error(f"No adapter found for {folder}")
            server.models[body["lora_name"]] = load_model(str(server.base), adapter=folder, dtype=server.dtype)
            return 200, {}
        if path == "/v1/unload_lora_adapter" and server.lora:
            server.models.pop(body["lora_name"])
            server.unloaded.append(body["lora_name"])
            return 200, {}
        if path not in ("/v1/completions", "/tokenize") or (path == "/tokenize" and not server.shows_tokens):
            return 404, _error("Not Found")
        if body["model"] not in server.models:
            return 404, _error(f"The model `{body['model']}` does not exist.")
        model, renderer = server.models[body["model"]]
        if path == "/tokenize":
            tokens = renderer.tokenizer.encode(body["prompt"], add_special_tokens=body["add_special_tokens"])
            return 200, {"tokens": tokens, "count": len(tokens), "max_model_len": 256}
        if server.dies_after is not None and server.asked.total() >= server.dies_after:
            return 500, _error("EngineCore encountered an issue.")
        server.asked[body["model"]] += 1
        return 200, complete(model, renderer, body)

    def _send(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except (BrokenPipeError, ConnectionResetError):  # the client did not wait
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def _error(text: str) -> dict[str, Any]:
    return {"error": {"message": text, "type": "NotFoundError", "code": 404}}


def complete(model: Any, renderer: Any, body: dict[str, Any]) -> dict[str, Any]:
    """Return a greedy completion in vLLM's form."""
    assert body["temperature"] == 0
    prompt, stops = body["prompt"], body.get("stop_token_ids", [])
    ids = torch.tensor([prompt], device=model.device)
    with torch.inference_mode():
        mask = torch.ones_like(ids)
        settings = {"max_new_tokens": body["max_tokens"], "do_sample": False, "eos_token_id": stops or None}
        written = model.generate(ids, attention_mask=mask, pad_token_id=0, **settings)[0, len(prompt) :].tolist()
        logs = model(input_ids=ids).logits[0, -1].double().log_softmax(-1)
    choice: dict[str, Any] = {
        "text": renderer.tokenizer.decode(written),
        "finish_reason": "stop" if written[-1] in stops else "length",
    }
    if body.get("return_token_ids"):
        choice["token_ids"] = written
    if num := body.get("logprobs"):
        top = body.get("logprob_token_ids") or logs.topk(num).indices.tolist()
        choice["logprobs"] = {"top_logprobs": [{f"token_id:{token}": float(logs[token]) for token in top}]}
    usage = {"prompt_tokens": len(prompt), "completion_tokens": len(written)}
    return {"choices": [choice], "usage": usage}
