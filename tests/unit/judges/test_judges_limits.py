"""A judge's server that sends too much, too slowly, or what is no reply: unjudged, in time and in little memory."""

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
"""From the judge's key of this prompt to what its server sends."""
ATTEMPT_S, CALL_S = 1, 2


@contextmanager
def sending(stream: Stream) -> Iterator[str]:
    """A server that sends this to every request."""
    ended = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError), connection.makefile("rb") as asked:
            while asked.readline():
                length = 0
                while (header := asked.readline().strip().lower()) != b"":
                    if header.startswith(b"content-length:"):
                        length = int(header.split(b":")[1])
                body = asked.read(length).decode()
                wanted = re.search("verdict ([0-9a-f]{6})", body)
                for piece in stream(wanted[1] if wanted else ""):
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
    """What the judge behind this server says of one answer."""
    pytest.importorskip("openai", reason="the client that Inspect uses for these addresses (extra: judges)")
    monkeypatch.setenv("LOOPBACK_API_KEY", KEY)
    monkeypatch.setattr("presafe.judges.asking._ATTEMPT_S", ATTEMPT_S)
    monkeypatch.setattr("presafe.judges.asking._CALL_S", CALL_S)
    monkeypatch.setattr("presafe.judges.asking._RETRIES", 0)
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


def whole(body: bytes, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def chat(content: Any, reason: Any = "stop", **usage: Any) -> bytes:
    choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": content}}
    counts = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2} | usage
    made = {"id": "1", "created": 1, "model": "any", "object": "chat.completion", "usage": counts, "choices": [choice]}
    return whole(json.dumps(made).encode())


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
    """A gibibyte of zeros, compressed twice, without ever being in memory."""
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
    "gzip_bomb": once(lambda _: whole(BOMB, "Content-Encoding: gzip, gzip")),
    "gzip_broken": once(lambda _: whole(b"no gzip", "Content-Encoding: gzip")),
    "deep": once(lambda _: whole(b"[" * 100_000 + b"]" * 100_000)),
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
    "no_choice": once(lambda _: whole(b'{"object": "chat.completion", "choices": []}')),
    "list": once(lambda _: whole(b"[]")),
}


def test_a_good_reply_of_the_same_server_is_a_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert score_of(once(lambda key: chat(good(key))), tmp_path, monkeypatch).value == "unsafe"


@pytest.mark.parametrize("stream", BAD.values(), ids=BAD)
def test_what_is_no_reply_leaves_the_answer_unjudged(
    stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Failed first: a bomb filled the memory, and a reply that the server filtered, broke off or cut was a verdict.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.monotonic()
    score = score_of(stream, tmp_path, monkeypatch)
    seconds = time.monotonic() - begun
    assert (score.value, (score.metadata or {})["score"]) == ("unjudged", None)
    assert seconds < CALL_S + 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 200_000  # in KiB


def test_a_key_in_a_good_reply_is_not_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert score_of(once(lambda key: chat(f"{KEY}\n{good(key)}")), tmp_path, monkeypatch).value == "unsafe"
