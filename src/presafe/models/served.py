"""A model behind an OpenAI-compatible server: raw prompts to `/v1/completions`, so that CoT off works on any of them.

The server is met once: what it offers, and how it takes a prompt (`dialect`). Then each request is retried on its own,
with exponential backoff, after 429 (for as long as Retry-After says), a server's error, a time-out, a cut connection
or an answer that is no JSON. Anything else that it refuses is an error at once. The key of the API is read from the
environment and goes nowhere but into the header.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, get_args

import httpx
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_exponential_jitter,
)
from tenacity.stop import stop_base

from presafe.errors import ModelError
from presafe.models.address import Served
from presafe.models.dialect import Dialect, UnaskableError, is_exact, request_body
from presafe.models.exchange import Completion, Request
from presafe.models.family import Sampling
from presafe.models.rendering import Renderer
from presafe.progress import console
from presafe.records import Thinking

_BACKOFF = wait_exponential_jitter(initial=0.5, max=30, jitter=0.5)
_SAY_AT = 3
"""Failed tries of one request after which the user is told what the matter is."""
_FIRST_TRIES = 3
"""Tries to reach a server at first: a wrong port should not cost minutes."""
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that another try may not get."""
_WORDS = 200
"""Letters of a server's message that are passed on."""
_KEY = "PRESAFE_API_KEY"
_AGAIN = "Run the same command again: what is done is kept."


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


class _TryAgain(Exception):
    """A failure that may pass; `wait_s` is how long the server asks to be left alone."""

    def __init__(self, problem: str, wait_s: float = 0.0) -> None:
        super().__init__(problem)
        self.wait_s = wait_s


class _Refused(Exception):
    """The server will answer the same to the same request."""


class ServedEngine:
    """Asks a server.

    Args:
        served: The server, and what it calls the model.
        load: Gives the model's tokenizer and family.
        batch_size: Requests in flight.
    """

    def __init__(self, served: Served, load: Callable[[], Renderer], batch_size: int) -> None:
        self.served, self.batch_size, self.batch_tokens = served, batch_size, 0
        self.on_finished: Callable[[int], None] = lambda _: None
        self._load, self._patience = load, Patience.from_environment()
        self._renderer: Renderer | None = None
        self._client: httpx.AsyncClient | None = None
        self.dialect: Dialect | None = None
        """How the server takes prompts; None before it was met."""

    def ready(self) -> Renderer:
        """Meet the server: find out how it takes prompts, with one token of an answer to a greeting.

        Raises:
            ModelError: no server, no such model there, or none of the dialects works.
        """
        if self._renderer is None:
            renderer = self._load()
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                self.dialect = asyncio.run(self._meet(renderer))
            else:  # Inspect's own command line, or a notebook: this loop waits, as it does while a model is loaded
                with ThreadPoolExecutor(max_workers=1) as apart:
                    self.dialect = apart.submit(asyncio.run, self._meet(renderer)).result()
            self._renderer = renderer
        return self._renderer

    def context(self) -> int | None:
        return None  # the server refuses what is too long for it

    def in_flight(self) -> int:
        return self.batch_size

    async def complete(self, request: Request) -> Completion:
        renderer = self.ready()
        assert self.dialect is not None
        body = request_body(self.dialect, self.served.name, request, renderer)
        if self._client is None:
            self._client = httpx.AsyncClient(**self._settings())
        try:
            completion = await self._ask(self._client, body)
        except _Refused as error:
            raise ModelError(f"{self.served.url} refuses a request: {error}.", _AGAIN) from error
        self.on_finished(1)
        return completion

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _meet(self, renderer: Renderer) -> Dialect:
        async with httpx.AsyncClient(**self._settings()) as client:
            offered = await self._offered(client)
            greeting = Request(renderer.render("Hello.", "on").ids, max_tokens=1, sampling=Sampling(), seed=0)
            problem = ""
            for dialect in Dialect:
                try:
                    body = request_body(dialect, self.served.name, greeting, renderer)
                    # A name that is not offered may be the reason of a server's error: that is no reason to wait.
                    await self._ask(client, body, unknown=self.served.name not in offered)
                except _Refused as error:
                    problem = f"{error}."
                except UnaskableError as error:
                    problem = error.problem
                else:
                    self._say_if_not_offered(offered)
                    _warn(renderer, dialect)
                    return dialect
        raise ModelError(
            f"{self.served.url} does not serve {self.served.name!r}: {problem}",
            f"It offers: {', '.join(offered)}." if offered else "It does not say what it offers.",
        )

    async def _offered(self, client: httpx.AsyncClient) -> list[str]:
        """Names in `/v1/models`; none where the server does not say. The first word with the server, so that a wrong
        port is found out in seconds.
        """

        async def ask() -> httpx.Response:
            try:
                return await client.get("models")
            except httpx.TransportError as error:
                raise _cut(error) from error

        try:
            response: httpx.Response = await self._retrying(stop_after_attempt(_FIRST_TRIES))(ask)
        except _TryAgain as error:
            raise ModelError(
                f"no answer from {self.served.url}: {error}.", "Is the server up, and is this its address?"
            ) from error
        self._check_key(response)
        try:
            return [str(each["id"]) for each in response.json()["data"]]
        except (ValueError, KeyError, TypeError):
            return []

    async def _ask(self, client: httpx.AsyncClient, body: dict[str, Any], *, unknown: bool = False) -> Completion:
        """One completion, tried again while the server's patience and ours last.

        Raises:
            ModelError: they did not last, or the key is refused.
            _Refused: the server refuses the request.
        """

        async def ask() -> Completion:
            try:
                response = await client.post("completions", json=body)
            except httpx.TransportError as error:
                raise _cut(error) from error
            self._check_key(response)
            said = f"it answered {response.status_code}{self._message(response)}"
            if response.status_code in _PASSING and not (unknown and response.status_code == 500):
                raise _TryAgain(said, _retry_after(response))
            if not response.is_success:
                raise _Refused(said)
            return _completion(response)

        start = time.monotonic()
        retrying = self._retrying(stop_before_delay(self._patience.retry_s))
        try:
            return await retrying(ask)
        except _TryAgain as error:
            tries = retrying.statistics["attempt_number"]
            raise ModelError(
                f"{self.served.url} failed {tries} times in {time.monotonic() - start:.0f} s: {error}.", _AGAIN
            ) from error

    def _retrying(self, stop: stop_base) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception_type(_TryAgain), wait=_wait, stop=stop, before_sleep=self._say, reraise=True
        )

    def _settings(self) -> dict[str, Any]:
        key = _key()
        return {
            "base_url": self.served.url,
            "timeout": httpx.Timeout(self._patience.timeout_s, connect=min(10.0, self._patience.timeout_s), pool=None),
            "limits": httpx.Limits(max_connections=self.batch_size),
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
        }

    def _check_key(self, response: httpx.Response) -> None:
        if response.status_code in (401, 403):
            raise ModelError(
                f"{self.served.url} {'refuses the key' if _key() else 'wants a key'}.",
                f"Set the environment variable {_KEY}.",
            )

    def _message(self, response: httpx.Response) -> str:
        """The server's own words in brackets, short and without the key. What was sent is not among them."""
        try:
            body = response.json()
        except ValueError:
            return ""
        said = body.get("error", body) if isinstance(body, dict) else None
        said = (said.get("message") or said.get("detail")) if isinstance(said, dict) else said
        if not isinstance(said, str):  # FastAPI's lists of what is wrong repeat the request
            return ""
        key = _key()
        return f" ({' '.join((said.replace(key, '***') if key else said).split())[:_WORDS]})"

    def _say_if_not_offered(self, offered: list[str]) -> None:
        if offered and self.served.name not in offered:
            console.print(
                f"  {self.served.url} answers as {self.served.name!r}, which it does not offer: it may be another "
                f"model (it offers: {', '.join(offered)})."
            )

    def _say(self, state: RetryCallState) -> None:
        if state.attempt_number == _SAY_AT and state.outcome is not None:
            console.print(f"  {self.served.url}: {state.outcome.exception()}; trying again")


def _warn(renderer: Renderer, dialect: Dialect) -> None:
    prompts = [renderer.render("Hello.", mode).ids for mode in get_args(Thinking)]
    if dialect is not Dialect.IDS and not all(is_exact(renderer, ids) for ids in prompts):
        console.print(
            "  this server takes text, and cuts the prompt into other tokens than presafe does (see the traps "
            "fuses_tokens of `presafe doctor`)."
        )


def _wait(state: RetryCallState) -> float:
    """Exponential backoff, or as long as the server asked for where that is longer."""
    error = state.outcome.exception() if state.outcome is not None else None
    return max(_BACKOFF(state), error.wait_s if isinstance(error, _TryAgain) else 0.0)


def _cut(error: httpx.TransportError) -> _TryAgain:
    if isinstance(error, httpx.TimeoutException):
        return _TryAgain("it timed out")
    if isinstance(error, httpx.ConnectError):
        return _TryAgain("no connection")
    return _TryAgain("the connection was cut")


def _retry_after(response: httpx.Response) -> float:
    """Seconds that the server asks to be left alone: a number, or a date (RFC 9110, section 10.2.3)."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


def _completion(response: httpx.Response) -> Completion:
    """What a server wrote.

    Raises:
        _TryAgain: it is no completion.
    """
    try:
        body = response.json()
        choice = body["choices"][0]
        text, stopped = str(choice["text"]), choice["finish_reason"] != "length"
        return Completion(text, int(body["usage"]["completion_tokens"]), stopped)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise _TryAgain("its answer is no completion") from error


def _key() -> str | None:
    """The API's key, where there is one. A line's end, which files have, is no part of it.

    Raises:
        ModelError: it holds what a header cannot.
    """
    key = os.environ.get(_KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ModelError(
            f"the environment variable {_KEY} holds letters that no key has.",
            "Copy the key again: it is printable ASCII, on one line.",
        )
    return key or None


def _seconds(variable: str) -> float:
    value = os.environ.get(variable, "") or "600"
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise ModelError(f"{variable} must be a number of seconds above 0, got {value!r}.")
    return seconds
