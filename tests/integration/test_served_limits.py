"""Whatever a server sends, a request ends in time, in little memory, with an error of one line without the key."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import tracemalloc
import zlib
from collections.abc import Iterator

import pytest
import zstandard
from raw_server import Stream, body_of, sending, whole
from tenacity import wait_none

from presafe.errors import ModelError
from presafe.models.address import served_model
from presafe.models.exchange import Completion, Request
from presafe.models.family import Sampling
from presafe.models.loading import load_renderer
from presafe.models.rendering import Renderer
from presafe.models.served import ServedEngine

KEY = "sk-never-to-be-written-4711"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return load_renderer("smolthink")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("presafe.models.served._BACKOFF", wait_none())
    monkeypatch.setenv("PRESAFE_TIMEOUT_S", "0.5")
    monkeypatch.setenv("PRESAFE_RETRY_S", "0.5")
    monkeypatch.setenv("PRESAFE_API_KEY", KEY)


def ask(address: str, renderer: Renderer) -> Completion:
    async def once() -> Completion:
        served = served_model(address)
        assert served is not None
        engine = ServedEngine(served, lambda: renderer, batch_size=1)
        try:
            return await engine.complete(Request(renderer.render("What is 7 + 5?", "on").ids, 32, Sampling(), seed=3))
        finally:
            await engine.close()

    return asyncio.run(once())


def dripped(head: bytes, piece: bytes) -> Stream:
    """Yield some bytes, and then a piece every tenth of a second: no read waits long."""

    def stream() -> Iterator[bytes]:
        yield head
        while True:
            time.sleep(0.1)
            yield piece

    return stream


def endless(head: bytes, piece: bytes) -> Stream:
    def stream() -> Iterator[bytes]:
        yield head
        while True:
            yield piece

    return stream


def once(*pieces: bytes) -> Stream:
    return lambda: iter(pieces)


def compressed(coding: str, body: bytes) -> bytes:
    return whole(body, "200 OK", f"Content-Encoding: {coding}")


BOMB = gzip.compress(bytes(2**28))
CHUNK = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
SLOW = {
    "nothing": dripped(b"", b""),
    "dripped_status": dripped(b"HTTP/1.1 ", b"2"),
    "dripped_header": dripped(HEAD + b"X-Long: ", b"a"),
    "dripped_headers": dripped(HEAD, b"X-One: 1\r\n"),
    "dripped_body": dripped(HEAD + b"Content-Length: 100000\r\n\r\n", b" "),
    "dripped_chunks": dripped(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "dripped_100": dripped(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "dripped_103": dripped(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
}
LARGE = {
    "endless_100": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "endless_header": endless(HEAD + b"X-Long: ", b"a" * 65536),
    "endless_headers": endless(HEAD, b"X-One: 1\r\n" * 1000),
    "endless_body": endless(HEAD + b"\r\n", b" " * 65536),
    "endless_chunks": endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", CHUNK),
    "endless_chunk_size": endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 65536),
    "large_claim": once(HEAD + b"Content-Length: 99999999999999\r\n\r\n" + b" " * 2**22),
    "gzip_bomb": once(compressed("gzip", BOMB)),
    "gzip_bomb_twice": once(compressed("gzip, gzip", gzip.compress(BOMB))),
    "deflate_bomb": once(compressed("deflate", zlib.compress(bytes(2**28)))),
    "zstd_bomb": once(compressed("zstd", zstandard.compress(bytes(2**28)))),
    "many_lists": once(whole(b"[" + b"[]," * 2**21 + b"[]]")),
}
BROKEN_HTTP = {
    "gzip": once(compressed("gzip", b"no gzip")),
    "deflate": once(compressed("deflate", b"no deflate")),
    "zstd": once(compressed("zstd", b"no zstd")),
    "no_http": once(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "switches": once(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
    "closes": once(HEAD + b"Content-Length: 50\r\n\r\n{"),
}
BROKEN_JSON = {
    "html": once(whole(b"<html>", "200 OK")),
    "deep": once(whole(b"[" * 100_000 + b"]" * 100_000)),
    "deep_objects": once(whole(b'{"choices":' * 50_000)),
    "no_utf8": once(whole(body_of("\u00e9", 22).replace(b"\\u00e9", b"\xe9"))),
    "lone_surrogate": once(whole(body_of("\ud800", 22))),
    "nan": once(whole(body_of("7", 22).replace(b"22", b"NaN"))),
    "long_integer": once(whole(body_of("7", 22).replace(b"22", b"9" * 5000))),
}


def must_fail(address: str, renderer: Renderer) -> ModelError:
    """Ask, and check time, memory and words of the error."""
    tracemalloc.start()
    begun = time.monotonic()
    with pytest.raises(ModelError) as caught:
        ask(address, renderer)
    seconds = time.monotonic() - begun
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 0.5 + 2
    assert peak < 200e6
    assert KEY not in str(caught.value)
    assert str(caught.value).isprintable()
    return caught.value


@pytest.mark.parametrize("at", ["models", "completion"])
@pytest.mark.parametrize("stream", SLOW.values(), ids=SLOW)
def test_a_server_that_drips_bytes_times_out(renderer: Renderer, stream: Stream, at: str) -> None:
    # Failed first: httpx limits single reads, so a byte per second never timed out.
    with sending(stream, at) as address:
        assert "it timed out" in str(must_fail(address, renderer))


@pytest.mark.parametrize("at", ["models", "completion"])
@pytest.mark.parametrize("stream", LARGE.values(), ids=LARGE)
def test_an_endless_reply_does_not_fill_the_memory(renderer: Renderer, stream: Stream, at: str) -> None:
    with sending(stream, at) as address:
        must_fail(address, renderer)


@pytest.mark.parametrize("at", ["models", "greeting", "completion"])
@pytest.mark.parametrize("stream", BROKEN_HTTP.values(), ids=BROKEN_HTTP)
def test_a_broken_reply_is_an_error(renderer: Renderer, stream: Stream, at: str) -> None:
    with sending(stream, at) as address:
        must_fail(address, renderer)


@pytest.mark.parametrize("at", ["greeting", "completion"])
@pytest.mark.parametrize("stream", BROKEN_JSON.values(), ids=BROKEN_JSON)
def test_a_reply_that_is_not_a_completion_is_an_error(renderer: Renderer, stream: Stream, at: str) -> None:
    with sending(stream, at) as address:
        assert "its answer is no completion" in str(must_fail(address, renderer))


@pytest.mark.parametrize("stream", BROKEN_JSON.values(), ids=BROKEN_JSON)
def test_an_invalid_list_of_models_is_ignored(renderer: Renderer, stream: Stream) -> None:
    with sending(stream, "models") as address:
        assert ask(address, renderer).text == "7"


def test_a_redirect_to_nowhere_is_an_error(renderer: Renderer) -> None:
    with sending(once(whole(b"", "302 Found", "Location: http://[nope/")), "completion") as address:
        must_fail(address, renderer)


def test_an_answer_as_long_as_its_budget_is_read_whole(renderer: Renderer) -> None:
    # 32 tokens of 64 bytes, and a mebibyte beside them: a body just below the limit.
    text = "a" * (2**20 + 32 * 64 - 200)
    num_prompt = len(renderer.render("What is 7 + 5?", "on").ids)
    with sending(once(whole(body_of(text, num_prompt))), "completion") as address:
        assert ask(address, renderer).text == text


WORDS = {
    "markup": ("[/nope] [red]no[/red]", "[/nope] [red]no[/red]"),
    "escapes": ("\x1b[31mred\x1b[0m\x07 \u202edne \x00\x9b1m", "[31mred[0m dne 1m"),
    "surrogate": ("a\ud800b", "ab"),
    "lines": ("one\r\ntwo\u2028three", "one two three"),
    "long": ("x" * 100_000, "x" * 200),
    "key": (f"{KEY} {KEY.upper()} {KEY[:5]}\x00{KEY[5:]} {KEY[:5]}\n{KEY[5:]}", "*** *** *** ***"),
    "key_at_the_end": ("y" * 190 + KEY, "y" * 190 + "***"),
}


@pytest.mark.parametrize(("message", "expected"), WORDS.values(), ids=WORDS)
@pytest.mark.parametrize("status", ["404 Not Found", "503 Busy"])
def test_a_servers_messages_are_shown_safely(
    renderer: Renderer, capsys: pytest.CaptureFixture[str], message: str, expected: str, status: str
) -> None:
    error = whole(json.dumps({"error": {"message": message}}).encode(), status)
    with sending(once(error), "completion") as address:
        assert f"it answered {status[:3]} ({expected})" in str(must_fail(address, renderer))
    printed = capsys.readouterr().err  # of 503, that it is tried again
    assert KEY not in printed
    assert printed.replace("\n", "").isprintable()


@pytest.mark.parametrize("value", ["\u00b2", "-1", "1e9", "nan", "9" * 5000, "Mon, 01 Jan 0001 00:00:00 +2359", "x"])
def test_an_invalid_retry_after_is_ignored(renderer: Renderer, value: str) -> None:
    busy = whole(b"{}", "429 Too Many", f"Retry-After: {value}")
    with sending(once(busy), "completion") as address:
        assert "it answered 429" in str(must_fail(address, renderer))
