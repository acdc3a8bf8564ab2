"""An OpenAI-compatible server of judges on loopback: what it says depends on the model that it is asked for.

good          judges, as the judge's prompt asks: an answer with "can't" refuses, one with "unsafe" is unsafe
garbage       words without a verdict
high          grades out of range
forgetful     malformed at first, then as good
busy          429 with Retry-After, always
busy-once     429 with Retry-After at first, then as good
stalls        says nothing
broken        500, with the key in its words
forbids       403, likewise
odds          one token with the odds of the grades
no-odds       one token without odds
locked        401, with the key in its words
elsewhere     404
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import log
from typing import Any

KEY = "sk-a-key-that-no-log-may-hold"


_STATUS = {"broken": 500, "forbids": 403, "locked": 401, "elsewhere": 404}


class JudgeServer(ThreadingHTTPServer):
    """Counts what it was asked, by model, and keeps the bodies."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.calls: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.seen: set[tuple[str, str]] = set()
        self.ended = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: JudgeServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["prompt"] if "prompt" in body else "\n\n".join(str(m["content"]) for m in body["messages"])
        model = body["model"]
        self.server.calls[model] += 1
        self.server.bodies.append(body)
        once = (model, prompt.split("\n\nYour last reply")[0])
        first, _ = once not in self.server.seen, self.server.seen.add(once)
        said = {"error": {"message": f"not with {self.headers['Authorization']}", "type": "error", "code": None}}
        if model == "stalls":
            self.server.ended.wait(30)
        elif model == "busy" or (model == "busy-once" and first):
            self._send(429, said, {"Retry-After": "0.4"})
        elif model in _STATUS:
            self._send(_STATUS[model], said)
        else:
            self._send(200, _completion(body, _reply(model, prompt, first)))

    def _send(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        sent = {"Content-Type": "application/json", "Content-Length": str(len(text))} | (headers or {})
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *words: Any) -> None:
        pass


def _reply(model: str, prompt: str, first: bool) -> str:
    if model == "garbage" or (model == "forgetful" and first):
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
    wanted = dict.fromkeys(re.findall(r"^(\w+ [0-9a-f]{6}):", prompt, re.MULTILINE))
    return "I thought about it.\n" + "\n".join(f"{line}: {values[line.split()[0]]}" for line in wanted)


def _completion(body: dict[str, Any], text: str) -> dict[str, Any]:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    made: dict[str, Any] = {"id": "1", "created": 1, "model": body["model"], "usage": usage}
    if "prompt" not in body:
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        return made | {"object": "chat.completion", "choices": [choice]}
    # p: 1 → 0.25, 5 → 0.75
    odds = {"tokens": ["5"], "token_logprobs": [log(0.75)], "top_logprobs": [{"5": log(0.75), "1": log(0.25)}]}
    if body["model"] != "odds":
        odds = None
    return made | {
        "object": "text_completion",
        "choices": [
            {"index": 0, "finish_reason": "length", "text": "5" if "odds" in body["model"] else "yes", "logprobs": odds}
        ],
    }
