"""Send requests to a server, with limits of time and bytes, and read its answers strictly.

time       one limit for the whole try: connecting, headers, "100 Continue", body. httpx only limits each read.
bytes      the body is streamed up to a limit; a compressed body is refused, because it may unpack to any size
messages   a server's messages are shown on one line, without control characters and without the key
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpx

from presafe.errors import ModelError
from presafe.runtime.reading import parse_json

KEY_VARIABLE = "PRESAFE_API_KEY"
_SHOWN = 200
"""Number of letters of a server's message that are shown."""
SECRET = 16
"""Number of letters from which a key is a secret, and not a dummy such as EMPTY. Ours."""
_CONNECT_S = 10.0


class TryAgain(Exception):
    """A failure that may pass; `wait_s` is how long the server asks us to wait, in seconds."""

    def __init__(self, problem: str, wait_s: float = 0.0) -> None:
        super().__init__(problem)
        self.wait_s = wait_s


class Refused(Exception):
    """A failure that the same request would meet again. With `of_prompt`, other prompts can still be answered."""

    def __init__(self, problem: str, *, of_prompt: bool = False) -> None:
        super().__init__(problem)
        self.of_prompt = of_prompt


class Patience(NamedTuple):
    """How long to wait for a server, in seconds; from the environment, because no result depends on it."""

    timeout_s: float
    """PRESAFE_TIMEOUT_S: time limit of one try. A long thought at a busy server takes minutes."""
    retry_s: float
    """PRESAFE_RETRY_S: time in which one request is retried."""

    @classmethod
    def from_environment(cls) -> Patience:
        """Read both variables; the default of each is 600 s.

        Raises:
            ModelError: a value is not a positive number.
        """
        return cls(_seconds("PRESAFE_TIMEOUT_S"), _seconds("PRESAFE_RETRY_S"))


def api_key() -> str | None:
    """Return the API's key, without blanks and line breaks around it, or None if it is not set.

    Raises:
        ModelError: it holds characters that a header cannot.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ModelError(
            f"the environment variable {KEY_VARIABLE} holds letters that no key has.",
            "Copy the key again: it is printable ASCII, on one line.",
        )
    return key or None


def open_client(url: str, connections: int) -> httpx.AsyncClient:
    """Return a client of one server, which sends the key and asks for uncompressed answers.

    Args:
        url: Root of the API.
        connections: Largest number of requests in flight.

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
        client: Client of the server (`open_client`).
        path: Path below the root of the API.
        body: JSON to post; None sends a GET request.
        seconds: Time limit of the whole try.
        max_bytes: Largest size of the answer's body.

    Raises:
        TryAgain: no connection, a cut connection, or no complete answer in time.
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
    """Return an answer's JSON, read as the standard defines it: UTF-8, without NaN and Infinity.

    Raises:
        ValueError: as `parse_json`.
    """
    return parse_json(response.content.decode("utf-8-sig"))


def shown(text: str) -> str:
    """Return a server's message as it is shown: short, on one line, without control characters or the key."""
    line = " ".join("".join(letter for letter in text if letter.isprintable() or letter.isspace()).split())
    return _without_key(line)[:_SHOWN]


def without_secret(text: str) -> str:
    """Return what a model wrote; if the server repeats the key in it, the key is masked."""
    return _without_key(text) if len(api_key() or "") >= SECRET else text


def message(response: httpx.Response) -> str:
    """Return the server's own message in brackets, or "" if it may repeat the request."""
    try:
        body = read_json(response)
    except ValueError:
        return ""
    text = body.get("error", body) if isinstance(body, dict) else None
    text = (text.get("message") or text.get("detail")) if isinstance(text, dict) else text
    # FastAPI's lists of problems repeat the request, so a list is not shown.
    return f" ({shown(text)})" if isinstance(text, str) and shown(text) else ""


def retry_after(response: httpx.Response) -> float:
    """Return how many seconds the server asks us to wait: a number, or a date (RFC 9110, section 10.2.3)."""
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


def _seconds(variable: str) -> float:
    value = os.environ.get(variable, "") or "600"
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise ModelError(f"{variable} must be a number of seconds above 0, got {value!r}.")
    return seconds
