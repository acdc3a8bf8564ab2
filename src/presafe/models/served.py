"""A model behind an OpenAI-compatible server: raw prompts to `/v1/completions`, so that CoT off works on any of them.

The server is met once: what it offers, and how it takes a prompt (`dialect`). Then each request is retried on its own,
with exponential backoff, after 429 (for as long as Retry-After says), a server's error, a time-out, a cut connection
or an answer that is none. A prompt that the server refuses, because it is too long for example, has no answer, and the
others are asked all the same. Any other refusal is an error at once. The key of the API is read from the environment
and goes nowhere but into the header.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import httpx
from rich.text import Text
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
from presafe.models.answers import Offer, num_read, read_offers
from presafe.models.answers import completion_of as _completion
from presafe.models.dialect import (
    Dialect,
    UnaskableError,
    is_exact,
    num_sent,
    request_body,
    with_broken_settings,
)
from presafe.models.exchange import Completion, Request, UnansweredError
from presafe.models.family import Sampling
from presafe.models.http import (
    KEY_VARIABLE,
    Patience,
    Refused,
    TryAgain,
    api_key,
    fetch,
    message,
    open_client,
    retry_after,
    shown,
)
from presafe.models.rendering import Renderer
from presafe.records import Thinking
from presafe.runtime.progress import console

_BACKOFF = wait_exponential_jitter(initial=0.5, max=30, jitter=0.5)
_SAY_AT = 3
"""Failed tries of one request after which the user is told what the matter is."""
_FIRST_TRIES = 3
"""Tries to reach a server at first: a wrong port should not cost minutes."""
_FIRST_S = 60.0
"""Time in which a server must say what it offers. Ours."""
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that another try may not get."""
_OF_PROMPT = frozenset({400, 413, 422})
"""Refusals of one prompt, where the server has answered the greeting."""
_TRIED = (Dialect.IDS, Dialect.TRANSFORMERS, Dialect.OPENAI)
_BYTES, _BYTES_PER_TOKEN = 2**20, 64
"""What an answer may be long: this, and so much for each token of the budget. A letter in JSON takes 6 bytes at most,
or 12 beyond the basic plane. Ours."""
_NAMES = 20
"""Offered names that are shown."""
_AGAIN = "Run the same command again: what is done is kept."
_LONGER = "serve the model with a longer context (vLLM: --max-model-len)"


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
        self._context: int | None = None
        self._told: set[str] = set()
        self.dialect: Dialect | None = None
        """How the server takes prompts; None before it was met."""

    def ready(self) -> Renderer:
        """Meet the server: find out how it takes prompts, with one token of an answer to a greeting.

        Raises:
            ModelError: no server, no such model there, none of the dialects works, or the server reads another prompt
                than it is sent.
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
        self._check_context(request.max_tokens, num_sent(body, renderer))
        if request.sampling.top_k and self.dialect is Dialect.LENIENT:
            self._tell(f"whether {self.served.url} uses top-k is not known: it ignores what it does not know.")
        if self._client is None:
            self._client = open_client(self.served.url, self.batch_size)
        try:
            completion, count = await self._ask(self._client, body)
            if count is not None and count < num_sent(body, renderer) - _margin(renderer):
                raise Refused(f"it read {count} of the prompt's {num_sent(body, renderer)} tokens", of_prompt=True)
        except Refused as error:
            problem = f"{self.served.url} refuses a request: {error}."
            if error.of_prompt:
                raise UnansweredError(problem, f"Where it is too long, lower --max-tokens, or {_LONGER}.") from error
            raise ModelError(problem, f"Once the server is mended: {_AGAIN[0].lower()}{_AGAIN[1:]}") from error
        self.on_finished(1)
        return completion

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _check_context(self, max_tokens: int, num_tokens: int) -> None:
        """Refuse what does not fit, where the server says how much does.

        Args:
            max_tokens: Budget of the answer.
            num_tokens: Those of the prompt.

        Raises:
            UnansweredError: the prompt does not fit with its budget.
            ModelError: the budget alone does not.
        """
        if self._context is None or num_tokens + max_tokens <= self._context:
            return
        context = f"{self.served.url} serves {self.served.name!r} with a context of {self._context} tokens"
        if max_tokens >= self._context:
            raise ModelError(
                f"{context}, and the budget of {max_tokens} leaves no room for a prompt.",
                f"Lower --max-tokens (max_tokens in a recipe), or {_LONGER}.",
            )
        raise UnansweredError(
            f"{context}, and a prompt of {num_tokens} with its budget of {max_tokens} is longer.",
            f"Lower --max-tokens (max_tokens in a recipe), or {_LONGER}.",
        )

    async def _meet(self, renderer: Renderer) -> Dialect:
        async with open_client(self.served.url, self.batch_size) as client:
            offers = await self._offered(client)
            names = [offer.name for offer in offers]
            # A name that is not offered may be the reason of a server's error: that is no reason to wait.
            unknown = self.served.name not in names
            greeting = Request(renderer.render("Hello.", "on").ids, max_tokens=1, sampling=Sampling(), seed=0)
            problem, other_prompt = "", None
            for dialect in _TRIED:
                try:
                    body = request_body(dialect, self.served.name, greeting, renderer)
                    _, count = await self._ask(client, body, unknown=unknown)
                    self._check_prompt(count, num_sent(body, renderer), renderer)
                    lenient = dialect is Dialect.TRANSFORMERS and await self._is_lenient(client, greeting, renderer)
                except Refused as error:
                    problem = f"{error}."
                except UnaskableError as error:
                    problem = error.problem
                except _OtherPromptError as error:
                    other_prompt = error
                else:
                    self._tell_if_not_offered(names)
                    self._tell_if_inexact(renderer, dialect)
                    self._context = next((offer.context for offer in offers if offer.name == self.served.name), None)
                    return Dialect.LENIENT if lenient else dialect
        raise other_prompt or ModelError(
            f"{self.served.url} does not serve {self.served.name!r}: {problem}",
            f"It offers: {_listed(names)}." if names else "It does not say what it offers.",
        )

    async def _is_lenient(self, client: httpx.AsyncClient, greeting: Request, renderer: Renderer) -> bool:
        """Return whether a server that accepts transformers' settings does so without reading them."""
        try:
            await self._ask(client, with_broken_settings(self.served.name, greeting, renderer), unknown=True)
        except Refused:
            return False
        return True

    def _check_prompt(self, count: int | None, expected: int, renderer: Renderer) -> None:
        """Compare the tokens that a server read the greeting as with those that it was sent.

        Raises:
            _OtherPromptError: they are others.
        """
        if count is None:
            self._tell(
                f"{self.served.url} does not say how many tokens it reads (usage.prompt_tokens): that it changes no "
                "prompt cannot be checked."
            )
        elif abs(count - expected) > _margin(renderer):
            raise _OtherPromptError(
                f"{self.served.url} reads {count} tokens where it is sent {expected}: it puts the prompt into "
                f"a template of its own, or {self.served.name!r} has another tokenizer there.",
                "Give the tokenizer that the server has (--tokenizer), or serve the model with vLLM.",
            )
        elif count != expected:
            self._tell(
                f"{self.served.url} reads {count} tokens where it is sent {expected}: it "
                f"{'adds' if count > expected else 'leaves out'} the token that begins a text."
            )

    async def _offered(self, client: httpx.AsyncClient) -> list[Offer]:
        """Return what `/v1/models` lists; none where the server does not say. The first word with the server, so that
        a wrong port is found out in seconds.
        """
        limit = min(_FIRST_S, self._patience.timeout_s)
        end = time.monotonic() + limit

        async def ask() -> httpx.Response:
            return await fetch(client, "models", seconds=end - time.monotonic(), max_bytes=_BYTES)

        try:
            retrying = self._retrying(stop_after_attempt(_FIRST_TRIES) | stop_before_delay(limit))
            response: httpx.Response = await retrying(ask)
        except (TryAgain, Refused) as error:
            raise ModelError(
                f"no answer from {self.served.url}: {error}.", "Is the server up, and is this its address?"
            ) from error
        self._check_key(response)
        return read_offers(response)

    async def _ask(
        self, client: httpx.AsyncClient, body: dict[str, Any], *, unknown: bool = False
    ) -> tuple[Completion, int | None]:
        """Return one completion and the tokens that the prompt was read as; retried while there is patience.

        Raises:
            ModelError: patience did not last, or the key is refused.
            Refused: the server refuses the request.
        """
        max_bytes = _BYTES + _BYTES_PER_TOKEN * body["max_tokens"]

        async def ask() -> tuple[Completion, int | None]:
            response = await fetch(client, "completions", body, seconds=self._patience.timeout_s, max_bytes=max_bytes)
            self._check_key(response)
            status = response.status_code
            problem = f"it answered {status}{message(response)}"
            if status in _PASSING and not (unknown and status == 500):
                raise TryAgain(problem, retry_after(response))
            if not response.is_success:
                raise Refused(problem, of_prompt=status in _OF_PROMPT)
            return _completion(response, body["max_tokens"]), num_read(response)

        start = time.monotonic()
        retrying = self._retrying(stop_before_delay(self._patience.retry_s))
        try:
            return await retrying(ask)
        except TryAgain as error:
            tries = retrying.statistics["attempt_number"]
            raise ModelError(
                f"{self.served.url} failed {tries} times in {time.monotonic() - start:.0f} s: {error}.", _AGAIN
            ) from error

    def _retrying(self, stop: stop_base) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception_type(TryAgain), wait=_wait, stop=stop, before_sleep=self._say, reraise=True
        )

    def _check_key(self, response: httpx.Response) -> None:
        if response.status_code in (401, 403):
            raise ModelError(
                f"{self.served.url} {'refuses the key' if api_key() else 'wants a key'}.",
                f"Set the environment variable {KEY_VARIABLE}.",
            )

    def _tell_if_not_offered(self, offered: list[str]) -> None:
        if offered and self.served.name not in offered:
            self._tell(
                f"{self.served.url} answers as {self.served.name!r}, which it does not offer: it may be another "
                f"model (it offers: {_listed(offered)})."
            )

    def _tell_if_inexact(self, renderer: Renderer, dialect: Dialect) -> None:
        prompts = [renderer.render("Hello.", mode).ids for mode in get_args(Thinking)]
        if dialect is not Dialect.IDS and not all(is_exact(renderer, ids) for ids in prompts):
            self._tell(
                "this server takes text, and cuts the prompt into other tokens than presafe does (see the traps "
                "fuses_tokens of `presafe doctor`)."
            )

    def _say(self, state: RetryCallState) -> None:
        if state.attempt_number == _SAY_AT and state.outcome is not None:
            console.print(Text(f"  {self.served.url}: {state.outcome.exception()}; trying again"))

    def _tell(self, line: str) -> None:
        """Print a line once, as it is: what stands in brackets is no markup."""
        if line not in self._told:
            self._told.add(line)
            console.print(Text(f"  {line}"))


class _OtherPromptError(ModelError):
    """A server reads another prompt than it is sent."""


def _margin(renderer: Renderer) -> int:
    """Return the number of tokens that the tokenizer puts round a text, which a server may add or leave out."""
    return len(renderer.tokenizer.encode(""))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(map(shown, names[:_NAMES])) + more


def _wait(state: RetryCallState) -> float:
    """Exponential backoff, or as long as the server asked for where that is longer."""
    error = state.outcome.exception() if state.outcome is not None else None
    return max(_BACKOFF(state), error.wait_s if isinstance(error, TryAgain) else 0.0)
