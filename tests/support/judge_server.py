"""Serve judges on loopback with an OpenAI-compatible API; the model's name chooses the reply.

good          judges as the prompt asks: an answer with "can't" refuses, an answer with "unsafe" is unsafe
garbage       words without a verdict
high          grades out of range
forgetful     malformed at first, then as good
busy          429 with Retry-After, always
busy-once     429 with Retry-After at first, then as good
stalls        no reply
broken        500, with the key in its message
forbids       403, with the key in its message
odds          one token with the log-probabilities of the grades
no-odds       one token without log-probabilities
locked        401, with the key in its message
elsewhere     404
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import log
from pathlib import Path
from typing import Any
from zipfile import ZipFile

KEY = "sk-a-key-that-no-log-may-hold"


_STATUS = {"broken": 500, "forbids": 403, "locked": 401, "elsewhere": 404}


def at_server(judge: str, model: str, api: str = "openai-api") -> str:
    """Return the name of a judge whose model this server plays."""
    return f"{judge}={api}/loopback/{model}"


def files_with_key(folder: Path) -> list[str]:
    """Return the files below a folder, and the members of logs, that hold the key."""
    names = []
    for path in (path for path in folder.rglob("*") if path.is_file()):
        if path.suffix == ".eval":
            with ZipFile(path) as archive:
                names += [f"{path.name}/{name}" for name in archive.namelist() if KEY.encode() in archive.read(name)]
        elif KEY.encode() in path.read_bytes():
            names.append(path.name)
    return names


class JudgeServer(ThreadingHTTPServer):
    """A server that counts its requests by model, and keeps their bodies."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.calls: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.seen: set[tuple[str, str]] = set()
        self.ended = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """Base address of the API."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: JudgeServer

    def do_POST(self) -> None:
        """Reply to a request as its model would."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["prompt"] if "prompt" in body else "\n\n".join(str(m["content"]) for m in body["messages"])
        model = body["model"]
        request = (model, prompt.split("\n\nYour last reply")[0])
        with self.server.lock:  # requests come in threads
            self.server.calls[model] += 1
            self.server.bodies.append(body)
            is_first = request not in self.server.seen
            self.server.seen.add(request)
        error = {"error": {"message": f"not with {self.headers['Authorization']}", "type": "error", "code": None}}
        if model == "stalls":
            self.server.ended.wait(30)
        elif model == "busy" or (model == "busy-once" and is_first):
            self._send(429, error, {"Retry-After": "0.4"})
        elif model in _STATUS:
            self._send(_STATUS[model], error)
        else:
            self._send(200, _completion(body, _reply(model, prompt, is_first)))

    def _send(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        all_headers = {"Content-Type": "application/json", "Content-Length": str(len(text))} | (headers or {})
        for name, value in all_headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def _reply(model: str, prompt: str, is_first: bool) -> str:
    if model == "garbage" or (model == "forgetful" and is_first):
        return "I'd rather talk about the weather. verdict: safe"
    answer = "\n".join(line for line in prompt.split("ANSWER\n")[-1].splitlines() if line.startswith("| "))
    refuses, unsafe = "can't" in answer, "unsafe" in answer
    values = {
        "refusal": ("yes" if refuses else "no") if "refusal" in prompt and ": yes" in prompt else str(int(refuses)),
        "verdict": "unsafe" if unsafe else "safe",
        "class": "full refusal" if refuses else "full compliance",
        "convincing": "9" if model == "high" else "4",
        "specific": "3",
    }
    lines = dict.fromkeys(re.findall(r"^(\w+ [0-9a-f]{6}):", prompt, re.MULTILINE))
    return "I thought about it.\n" + "\n".join(f"{line}: {values[line.split()[0]]}" for line in lines)


def _completion(body: dict[str, Any], text: str) -> dict[str, Any]:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    completion: dict[str, Any] = {"id": "1", "created": 1, "model": body["model"], "usage": usage}
    choice: dict[str, Any]
    if "prompt" not in body:
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        return completion | {"object": "chat.completion", "choices": [choice]}
    word = "5" if "odds" in body["model"] else "yes"
    choice = {"index": 0, "finish_reason": "length", "text": word, "logprobs": None}
    if body["model"] == "odds":
        # p: 1 → 0.25, 5 → 0.75
        top = {"5": log(0.75), "1": log(0.25)}
        choice["logprobs"] = {"tokens": ["5"], "token_logprobs": [log(0.75)], "top_logprobs": [top]}
    return completion | {"object": "text_completion", "choices": [choice]}
