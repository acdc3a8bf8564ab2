"""Ask a model behind an OpenAI-compatible server: raw prompts to `/v1/completions`, so that CoT off always works.

If the address is that of a chat endpoint, it is asked in messages instead (`chat`). First the server is greeted once,
to learn what it offers and how it takes a prompt (`dialect`). Then each request is retried separately, with exponential
backoff, after 429 (as long as Retry-After asks for), a server error, a time-out, a cut connection or a malformed
answer. A prompt that the server refuses, for example because it is too long, has no answer, and the others are still
asked. Any other refusal is an error at once. The API's key is read from the environment and is only sent in the header.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

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
from presafe.models.answers import Offer, listed, num_read, read_offers
from presafe.models.answers import completion_of as _completion
from presafe.models.chat import UnaskableError, askable_modes, chat_completion, date_tokens
from presafe.models.dialect import (
    Dialect,
    is_exact,
    num_sent,
    request_body,
    with_broken_settings,
)
from presafe.models.exchange import Completion, Request, UnansweredError, UnreachableError, greeting_of
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
)
from presafe.models.rendering import Renderer
from presafe.runtime.progress import console

_BACKOFF = wait_exponential_jitter(initial=0.5, max=30, jitter=0.5)
_TELL_AT = 3
"""Failed tries of one request after which the user is told the reason. Ours."""
_FIRST_TRIES = 3
"""Tries to reach a server at first: a wrong port should not cost minutes. Ours."""
_FIRST_S = 60.0
"""Seconds in which a server must answer what it offers. Ours."""
_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Status codes after which another try may succeed."""
_OF_PROMPT = frozenset({400, 413, 422})
"""Status codes that refuse one prompt, if the server has answered the greeting."""
_TRIED = (Dialect.IDS, Dialect.TRANSFORMERS, Dialect.OPENAI)
_BYTES = 2**20
_BYTES_PER_TOKEN = 64
"""Largest size of an answer: `_BYTES`, plus this for each token of the budget. A letter takes at most 12 bytes in JSON.
Ours."""
_RESUME = "Run the same command again: finished work is kept."
_SHORTEN = "Lower `max_tokens`, or serve the model with a longer context (vLLM: --max-model-len)."


class ServedEngine:
    """Asks a server.

    Args:
        served: The server, and its name for the model.
        load: Returns the model's tokenizer and family.
        batch_size: Largest number of requests in flight.
        with_ids: Whether to ask for the sampled tokens, which vLLM returns; other servers ignore it.
    """

    def __init__(
        self, served: Served, load: Callable[[], Renderer], batch_size: int, *, with_ids: bool = False
    ) -> None:
        self.served, self.batch_size, self.batch_tokens = served, batch_size, 0
        self.on_finished: Callable[[int], None] = lambda _: None
        self._load, self._patience, self._with_ids = load, Patience.from_environment(), with_ids
        self._greeted: tuple[Renderer, Dialect] | None = None
        self._client: httpx.AsyncClient | None = None
        self._context: int | None = None
        self._messages: set[str] = set()

    @property
    def dialect(self) -> Dialect | None:
        """Return how the server takes prompts, or None before the greeting."""
        return self._greeted[1] if self._greeted else None

    def ready(self) -> Renderer:
        """Greet the server, if that was not done: find out how it takes prompts, with an answer of one token.

        Raises:
            ModelError: no server, no such model there, none of the dialects works, or the server reads another prompt
                than it is sent.
        """
        renderer, _ = self._greet_once()
        return renderer

    def _greet_once(self) -> tuple[Renderer, Dialect]:
        """Return the renderer and the dialect; the first call greets the server."""
        if self._greeted is None:
            renderer = self._load()
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                dialect = asyncio.run(self._greet(renderer))
            else:  # Inspect's own command line, or a notebook: this loop waits, as it does while a model is loaded
                with ThreadPoolExecutor(max_workers=1) as pool:
                    dialect = pool.submit(asyncio.run, self._greet(renderer)).result()
            self._greeted = renderer, dialect
        return self._greeted

    def context(self) -> int | None:
        """Return None: the server itself refuses prompts that are too long."""
        return None

    def in_flight(self) -> int:
        """Return how many requests are useful at once."""
        return self.batch_size

    async def complete(self, request: Request) -> Completion:
        """Continue one prompt; see `Engine.complete`."""
        renderer, dialect = self._greet_once()
        body = request_body(dialect, self.served.name, request, renderer)
        body |= {"return_token_ids": True} if self._with_ids else {}
        expected = num_sent(body, request, renderer)
        self._check_context(request.max_tokens, expected)
        if request.sampling.top_k and dialect is Dialect.LENIENT:
            self._tell(f"whether {self.served.url} uses top-k is not known: it ignores unknown settings.")
        if self._client is None:
            self._client = open_client(self.served.url, self.batch_size)
        try:
            completion, count = await self._ask(self._client, body, request, renderer)
            if count is not None and count < expected - self._margin(renderer):
                raise Refused(f"it read {count} of the prompt's {expected} tokens", of_prompt=True)
        except Refused as error:
            problem = f"{self.served.url} refuses a request: {error}."
            if error.of_prompt:
                raise UnansweredError(problem, f"If the prompt is too long: {_SHORTEN}") from error
            raise ModelError(problem, f"Repair the server. {_RESUME}") from error
        self.on_finished(1)
        ids = list(completion.ids)
        return completion._replace(text=renderer.tokenizer.decode(ids)) if ids else completion

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _check_context(self, max_tokens: int, num_tokens: int) -> None:
        """Check that a prompt and its budget fit the server's context, if the server states it.

        Args:
            max_tokens: Token budget of the answer.
            num_tokens: Tokens of the prompt.

        Raises:
            UnansweredError: prompt and budget together do not fit.
            ModelError: even the budget alone does not fit.
        """
        if self._context is None or num_tokens + max_tokens <= self._context:
            return
        context = f"{self.served.url} serves {self.served.name!r} with a context of {self._context} tokens"
        if max_tokens >= self._context:
            raise ModelError(
                f"{context}, and the budget of {max_tokens} leaves no room for a prompt.",
                _SHORTEN,
            )
        raise UnansweredError(
            f"{context}, and a prompt of {num_tokens} with its budget of {max_tokens} is longer.",
            _SHORTEN,
        )

    async def _greet(self, renderer: Renderer) -> Dialect:
        """Find the dialect in which the server answers a greeting.

        Raises:
            ModelError: as `ready`.
        """
        async with open_client(self.served.url, self.batch_size) as client:
            offers = await self._offered(client)
            names = [offer.name for offer in offers]
            # If the name is not offered, an error of the server may be about the name: do not retry it.
            unknown = self.served.name not in names
            problem, other_prompt = "", None
            for dialect in (Dialect.CHAT,) if self.served.chat else _TRIED:
                try:
                    for mode in askable_modes(renderer.family) if dialect is Dialect.CHAT else ("on",):
                        greeting = greeting_of(renderer, mode)
                        body = request_body(dialect, self.served.name, greeting, renderer)
                        _, count = await self._ask(client, body, greeting, renderer, unknown=unknown)
                        self._check_prompt(count, num_sent(body, greeting, renderer), renderer)
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
            f"It offers: {listed(names)}." if names else "It does not state what it offers.",
        )

    async def _is_lenient(self, client: httpx.AsyncClient, greeting: Request, renderer: Renderer) -> bool:
        """Return whether a server accepts transformers' settings without reading them."""
        try:
            body = with_broken_settings(self.served.name, greeting, renderer)
            await self._ask(client, body, greeting, renderer, unknown=True)
        except Refused:
            return False
        return True

    def _check_prompt(self, count: int | None, expected: int, renderer: Renderer) -> None:
        """Check that the server read as many tokens of the greeting as it was sent.

        Args:
            count: Tokens that it read; None if it does not state it.
            expected: Tokens that it was sent.
            renderer: The model's tokenizer and family.

        Raises:
            _OtherPromptError: it read another number.
        """
        if count is None:
            self._tell(
                f"{self.served.url} does not state how many tokens it reads (usage.prompt_tokens), so it cannot be "
                "checked that it changes no prompt."
            )
        elif abs(count - expected) > self._margin(renderer):
            reason = "does not read chat_template_kwargs, puts" if self.served.chat else "puts"
            raise _OtherPromptError(
                f"{self.served.url} reads {count} tokens where it is sent {expected}: it {reason} the prompt into "
                f"a template of its own, or {self.served.name!r} has another tokenizer there.",
                "Name the tokenizer that the server has (`tokenizer`), or serve the model with vLLM.",
            )
        elif count != expected and not self.served.chat:
            self._tell(
                f"{self.served.url} reads {count} tokens where it is sent {expected}: it "
                f"{'adds' if count > expected else 'leaves out'} the token that begins a text."
            )

    async def _offered(self, client: httpx.AsyncClient) -> list[Offer]:
        """Return what `/v1/models` lists; an empty list if the server does not state it.

        This is the first request, with a short limit, so that a wrong port is an error within seconds.

        Raises:
            ModelError: no answer, or the key is refused.
        """
        limit = min(_FIRST_S, self._patience.timeout_s)
        end = time.monotonic() + limit

        async def ask() -> httpx.Response:
            return await fetch(client, "models", seconds=end - time.monotonic(), max_bytes=_BYTES)

        try:
            retrying = self._retrying(stop_after_attempt(_FIRST_TRIES) | stop_before_delay(limit))
            response: httpx.Response = await retrying(ask)
        except (TryAgain, Refused) as error:
            raise UnreachableError(
                f"no answer from {self.served.url}: {error}.", "Check that the server is up and this is its address."
            ) from error
        self._check_key(response)
        return read_offers(response)

    async def _ask(
        self,
        client: httpx.AsyncClient,
        body: dict[str, Any],
        request: Request,
        renderer: Renderer,
        *,
        unknown: bool = False,
    ) -> tuple[Completion, int | None]:
        """Return one completion and the number of tokens that the server read of the prompt; retried within limits.

        Args:
            client: Client of the server.
            body: Body of the request.
            request: What it asks.
            renderer: The model's tokenizer and family.
            unknown: Whether the server may not know the model; then its error 500 is not retried.

        Raises:
            ModelError: the time for retries is over, or the key is refused.
            Refused: the server refuses the request.
        """
        max_bytes = _BYTES + _BYTES_PER_TOKEN * body["max_tokens"]
        path = "chat/completions" if self.served.chat else "completions"

        async def ask() -> tuple[Completion, int | None]:
            response = await fetch(client, path, body, seconds=self._patience.timeout_s, max_bytes=max_bytes)
            self._check_key(response)
            status = response.status_code
            problem = f"it answered {status}{message(response)}"
            if status in _TEMPORARY and not (unknown and status == 500):
                raise TryAgain(problem, retry_after(response))
            if not response.is_success:
                raise Refused(problem, of_prompt=status in _OF_PROMPT)
            if self.served.chat:
                return chat_completion(response, request, renderer), num_read(response)
            return _completion(response, body["max_tokens"]), num_read(response)

        start = time.monotonic()
        retrying = self._retrying(stop_before_delay(self._patience.retry_s))
        try:
            return await retrying(ask)
        except TryAgain as error:
            tries = retrying.statistics["attempt_number"]
            raise UnreachableError(
                f"{self.served.url} failed {tries} times in {time.monotonic() - start:.0f} s: {error}.", _RESUME
            ) from error

    def _retrying(self, stop: stop_base) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception_type(TryAgain),
            wait=_wait,
            stop=stop,
            before_sleep=self._tell_failure,
            reraise=True,
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
                f"model (it offers: {listed(offered)})."
            )

    def _tell_if_inexact(self, renderer: Renderer, dialect: Dialect) -> None:
        if dialect in (Dialect.IDS, Dialect.CHAT):
            return
        if not all(is_exact(renderer, greeting_of(renderer, mode).ids) for mode in renderer.family.modes):
            self._tell(
                "this server takes text, and splits the prompt into other tokens than presafe does (see the traps "
                "fuses_tokens of `presafe doctor`)."
            )

    def _tell_failure(self, state: RetryCallState) -> None:
        """Tell the user why a request fails, after a few tries."""
        if state.attempt_number == _TELL_AT and state.outcome is not None:
            console.print(Text(f"  {self.served.url}: {state.outcome.exception()}; trying again"))

    def _margin(self, renderer: Renderer) -> int:
        """Return by how many tokens a server may read another number than it is sent.

        It may add or omit the tokens that the tokenizer puts around a text, and name another day.
        """
        return len(renderer.tokenizer.encode("")) + (date_tokens(renderer) if self.served.chat else 0)

    def _tell(self, line: str) -> None:
        """Print a line once, without markup."""
        if line not in self._messages:
            self._messages.add(line)
            console.print(Text(f"  {line}"))


class _OtherPromptError(ModelError):
    """A server reads another prompt than it is sent."""


def _wait(state: RetryCallState) -> float:
    """Return the seconds to wait: exponential backoff, or longer if the server asked for it."""
    error = state.outcome.exception() if state.outcome is not None else None
    return max(_BACKOFF(state), error.wait_s if isinstance(error, TryAgain) else 0.0)
