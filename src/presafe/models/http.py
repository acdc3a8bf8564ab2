"""Requests to a server: each has a limit of time and bytes, and its answer is read strictly.

time    one limit round the whole try: connecting, headers, "100 Continue", body. httpx limits each read alone.
bytes   the body is streamed and cut off at a limit; a compressed one is refused, because it may unpack to anything
words   what a server says is shown on one line, without control characters and without the key
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, NoReturn

import httpx

from presafe.errors import ModelError

KEY_VARIABLE = "PRESAFE_API_KEY"
_SHOWN = 200
"""Letters of a server's words that are shown."""
SECRET = 16
"""Letters from which a key is a secret, and no dummy such as EMPTY."""
_CONNECT_S = 10.0


class TryAgain(Exception):
    """A failure that may pass; `wait_s` is how long the server asks to be left alone."""

    def __init__(self, problem: str, wait_s: float = 0.0) -> None:
        super().__init__(problem)
        self.wait_s = wait_s


class Refused(Exception):
    """A failure that the same request meets again. `of_prompt`: other prompts may be answered all the same."""

    def __init__(self, problem: str, *, of_prompt: bool = False) -> None:
        super().__init__(problem)
        self.of_prompt = of_prompt


class Patience(NamedTuple):
    """Patience with a server, in seconds; from the environment, because no result depends on it."""

    timeout_s: float
    """PRESAFE_TIMEOUT_S: how long one try may take. A long thought at a busy server takes minutes."""
    retry_s: float
    """PRESAFE_RETRY_S: how long one request is tried again."""

    @classmethod
    def from_environment(cls) -> Patience:
        """Read both; 600 s each where they are not set.

        Raises:
            ModelError: not a positive number.
        """
        return cls(_seconds("PRESAFE_TIMEOUT_S"), _seconds("PRESAFE_RETRY_S"))


def api_key() -> str | None:
    """Return the API's key, where there is one. A line's end, which files have, is no part of it.

    Raises:
        ModelError: it holds what a header cannot.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ModelError(
            f"the environment variable {KEY_VARIABLE} holds letters that no key has.",
            "Copy the key again: it is printable ASCII, on one line.",
        )
    return key or None


def open_client(url: str, connections: int) -> httpx.AsyncClient:
    """Return a client of one server, which sends the key and asks for answers that are not compressed.

    Args:
        url: Root of the API.
        connections: Requests in flight, at most.

    Raises:
        ModelError: as `api_key`.
    """
    key = api_key()
    return httpx.AsyncClient(
        base_url=url,
        timeout=httpx.Timeout(None, connect=_CONNECT_S),  # `fetch` limits the whole try
        limits=httpx.Limits(max_connections=connections),
        headers={"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {}),
    )


async def fetch(
    client: httpx.AsyncClient, path: str, body: dict[str, Any] | None = None, *, seconds: float, max_bytes: int
) -> httpx.Response:
    """Send one request and return the whole answer.

    Args:
        client: As `open_client` makes it.
        path: Below the root of the API.
        body: What is posted; None gets instead.
        seconds: Limit of the whole try.
        max_bytes: Limit of the answer's body.

    Raises:
        TryAgain: no connection, one that was cut, or no whole answer in time.
        Refused: the answer is compressed or too long.
    """
    content = bytearray()
    try:
        async with (
            asyncio.timeout(seconds),
            client.stream("GET" if body is None else "POST", path, json=body) as response,
        ):
            if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("identity", ""):
                raise Refused("it compresses its answer, though it was asked not to")
            async for part in response.aiter_raw():
                content += part
                if len(content) > max_bytes:
                    raise Refused(f"its answer is longer than {max_bytes:,} bytes")
    except (TimeoutError, httpx.TimeoutException) as error:
        raise TryAgain("it timed out") from error
    except httpx.ConnectError as error:
        raise TryAgain("no connection") from error
    except httpx.TransportError as error:
        raise TryAgain("the connection was cut") from error
    return httpx.Response(response.status_code, headers=response.headers, content=bytes(content))


def read_json(response: httpx.Response) -> Any:
    """Return an answer's JSON, read as its standard has it: UTF-8, without NaN and Infinity.

    Raises:
        ValueError: it is none, or is nested too deeply.
    """
    try:
        return json.loads(response.content.decode("utf-8-sig"), parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def shown(text: str) -> str:
    """Return a server's words as they may be shown: short, on one line, without control characters or the key."""
    line = " ".join("".join(letter for letter in text if letter.isprintable() or letter.isspace()).split())
    return _without_key(line)[:_SHOWN]


def without_secret(text: str) -> str:
    """Return what a model wrote, with a key that the server repeats in it masked."""
    return _without_key(text) if len(api_key() or "") >= SECRET else text


def message(response: httpx.Response) -> str:
    """Return the server's own words in brackets; nothing where they may repeat the request."""
    try:
        body = read_json(response)
    except ValueError:
        return ""
    words = body.get("error", body) if isinstance(body, dict) else None
    words = (words.get("message") or words.get("detail")) if isinstance(words, dict) else words
    # FastAPI's lists of what is wrong repeat the request.
    return f" ({shown(words)})" if isinstance(words, str) and shown(words) else ""


def retry_after(response: httpx.Response) -> float:
    """Return the seconds that the server asks to be left alone: a number, or a date (RFC 9110, section 10.2.3)."""
    value = response.headers.get("Retry-After", "").strip()
    if re.fullmatch("[0-9]+", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _without_key(text: str) -> str:
    key = (api_key() or "").replace(" ", "")
    return re.sub(r"\s*".join(map(re.escape, key)), "***", text, flags=re.IGNORECASE) if key else text


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _seconds(variable: str) -> float:
    value = os.environ.get(variable, "") or "600"
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise ModelError(f"{variable} must be a number of seconds above 0, got {value!r}.")
    return seconds
