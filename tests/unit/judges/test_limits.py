"""Limit a judge's server that sends too much, too slowly, or no valid reply: unjudged, in time and little memory."""

from __future__ import annotations

import json
import re
import resource
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task, eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import Score
from inspect_ai.solver import generate
from judge_server import KEY

from presafe.judges.scorers import judge

Stream = Callable[[str], Iterator[bytes]]
"""From the key in the judge's prompt to the bytes that its server sends."""
ATTEMPT_S, CALL_S = 1, 2


@contextmanager
def sending(stream: Stream) -> Iterator[str]:
    """Serve this stream to every request, and yield the address."""
    ended = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError), connection.makefile("rb") as request:
            while request.readline():
                length = 0
                while (header := request.readline().strip().lower()) != b"":
                    if header.startswith(b"content-length:"):
                        length = int(header.split(b":")[1])
                body = request.read(length).decode()
                key = re.search("verdict ([0-9a-f]{6})", body)
                for piece in stream(key[1] if key else ""):
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
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            ended.set()
            thread.join()


def score_of(stream: Stream, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str = "jailbreakbench") -> Score:
    """Return the score of one answer by the judge behind this server."""
    pytest.importorskip("openai", reason="the client that Inspect uses for these addresses (extra: judges)")
    monkeypatch.setenv("LOOPBACK_API_KEY", KEY)
    monkeypatch.setattr("presafe.judges.model_judge._ATTEMPT_S", ATTEMPT_S)
    monkeypatch.setattr("presafe.judges.model_judge._CALL_S", CALL_S)
    monkeypatch.setattr("presafe.judges.model_judge._RETRIES", 0)
    output = ModelOutput.from_content("mockllm/model", "Boil it for eight minutes.")
    output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    api = "openai-api-completions" if name == "strong_reject_finetuned" else "openai-api"
    with sending(stream) as url:
        monkeypatch.setenv("LOOPBACK_BASE_URL", url)
        (log,) = eval(
            Task(
                dataset=MemoryDataset([Sample(id=1, input="How do I cook an egg?", target="refuse")]),
                solver=generate(),
                scorer=judge(f"{name}={api}/loopback/any"),
            ),
            model=get_model("mockllm/model", custom_outputs=[output]),
            log_dir=str(folder),
            display="none",
        )
    assert log.status == "success", log.error
    assert KEY not in log.model_dump_json()
    (sample,) = log.samples or []
    (score,) = (sample.scores or {}).values()
    return score


def http_reply(body: bytes, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def chat(content: Any, reason: Any = "stop", **usage: Any) -> bytes:
    choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": content}}
    counts = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2} | usage
    reply = {"id": "1", "created": 1, "model": "any", "object": "chat.completion", "usage": counts, "choices": [choice]}
    return http_reply(json.dumps(reply).encode())


def good(key: str) -> str:
    return f"I thought about it.\nverdict {key}: unsafe"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def dripped(head: bytes, piece: bytes) -> Stream:
    def stream(_: str) -> Iterator[bytes]:
        yield head
        while True:
            time.sleep(0.1)
            yield piece

    return stream


def endless(head: bytes, piece: bytes) -> Stream:
    def stream(_: str) -> Iterator[bytes]:
        yield head
        while True:
            yield piece

    return stream


def once(make: Callable[[str], bytes]) -> Stream:
    return lambda key: iter((make(key),))


def bomb() -> bytes:
    """Return a GiB of zeros, compressed twice, without holding it in memory."""
    inner, outer = zlib.compressobj(wbits=31), zlib.compressobj(wbits=31)
    zeros = bytes(2**20)
    return b"".join(
        [*(outer.compress(inner.compress(zeros)) for _ in range(1024)), outer.compress(inner.flush()), outer.flush()]
    )


BOMB = bomb()
BAD = {
    "dripped_header": dripped(HEAD + b"X-Long: ", b"a"),
    "dripped_body": dripped(HEAD + b"Content-Length: 100000\r\n\r\n", b" "),
    "endless_100": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "endless_body": endless(HEAD + b"\r\n", b" " * 65536),
    "gzip_bomb": once(lambda _: http_reply(BOMB, "Content-Encoding: gzip, gzip")),
    "gzip_broken": once(lambda _: http_reply(b"no gzip", "Content-Encoding: gzip")),
    "deep": once(lambda _: http_reply(b"[" * 100_000 + b"]" * 100_000)),
    "no_utf8": once(lambda key: chat(good(key) + "\u00e9").replace(b"\\u00e9", b"\xe9\xe9\xe9\xe9\xe9\xe9")),
    "lone_surrogate": once(lambda key: chat(good(key) + "\ud800")),
    "null": once(lambda _: chat(None)),
    "object": once(lambda key: chat({"text": good(key)})),
    "number": once(lambda _: chat(7)),
    "infinite_count": once(lambda key: chat(good(key), completion_tokens=1e400)),
    "filtered": once(lambda key: chat(good(key), "content_filter")),
    "no_reason": once(lambda key: chat(good(key), None)),
    "unknown_reason": once(lambda key: chat(good(key), "abort")),
    "cut": once(lambda key: chat(good(key), "length")),
    "no_choice": once(lambda _: http_reply(b'{"object": "chat.completion", "choices": []}')),
    "list": once(lambda _: http_reply(b"[]")),
}


def test_good_reply_gives_a_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert score_of(once(lambda key: chat(good(key))), tmp_path, monkeypatch).value == "unsafe"


@pytest.mark.parametrize("stream", BAD.values(), ids=BAD)
def test_bad_reply_leaves_the_answer_unjudged(stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Failed first: a bomb filled the memory, and a filtered, aborted or cut reply gave a verdict.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    score = score_of(stream, tmp_path, monkeypatch)
    seconds = time.monotonic() - start
    assert (score.value, (score.metadata or {})["score"]) == ("unjudged", None)
    assert seconds < CALL_S + 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 200_000  # in KiB


def test_key_in_a_good_reply_is_not_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert score_of(once(lambda key: chat(f"{KEY}\n{good(key)}")), tmp_path, monkeypatch).value == "unsafe"
