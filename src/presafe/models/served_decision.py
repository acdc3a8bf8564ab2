"""Read the decision before the CoT from a server, in the first of three ways that it has.

plug-in       the field `presafe` of an answer: `presafe-vllm` reads the head inside vLLM
classifier    `/classify` of a head that was exported as a sequence classifier (`presafe export --classifier`)
odds          P(r), where r is how a refusal starts: one request per token of r for its log-probability, which vLLM
              returns for tokens that are named (`logprob_token_ids`)

    ln P(r) = Σ_i ln Σ_t P(t | prompt, the tokens before step i)      over the tokens t that can stand at step i
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import httpx
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from presafe.errors import ModelError
from presafe.models.address import Served
from presafe.models.control import client_of, request
from presafe.models.decision_head import RefusalStart
from presafe.models.exchange import UnreachableError
from presafe.models.http import message, read_json
from presafe.models.likeness import first_chances
from presafe.models.rendering import Renderer
from presafe.runtime.loops import run_outside_loop

Way = Literal["plug-in", "classifier", "odds"]
WAYS: tuple[Way, ...] = ("plug-in", "classifier", "odds")
_IN_FLIGHT = 32
"""Requests at once; each is one forward pass. Ours."""
_TRIES = 3
_WAIT = wait_exponential_jitter(initial=0.5, max=8, jitter=0.5)
_LEAST = 1e-12
"""Nearest that ln P is taken to be to 0, where the odds would be infinite."""


class ServedDecision(NamedTuple):
    """What a server says about one prompt."""

    probability: float
    """Of a refusal, in [0, 1]."""
    logit: float
    """ln p − ln(1 − p)."""
    way: Way
    """How it was read."""


def served_decisions(
    served: Served,
    renderer: Renderer,
    texts: Sequence[str],
    start: RefusalStart,
    *,
    ways: Sequence[Way] = WAYS,
    on_finished: Callable[[int], None] = lambda _: None,
) -> list[ServedDecision]:
    """Return what a server says about each text; the first text decides in which way it is asked.

    Args:
        served: The server.
        renderer: The model's tokenizer and family.
        texts: Prompts of users, asked with CoT on; at least one.
        start: How its refusals start.
        ways: Ways that may be taken.
        on_finished: Called after each prompt with 1.

    Raises:
        UnreachableError: the server does not answer.
        ModelError: it has none of the ways, or did not read a prompt.
    """
    rendered = [renderer.render(text, "on").ids for text in texts]

    async def read_all() -> list[ServedDecision]:
        async with client_of(served, _IN_FLIGHT) as client:
            reader = _Reader(client, served, renderer.opening_ids(), start)
            way = await reader.way_of(rendered[0], ways)
            room = asyncio.Semaphore(_IN_FLIGHT)

            async def one(ids: list[int]) -> ServedDecision:
                async with room:
                    decision = await reader.read(way, ids)
                on_finished(1)
                return decision

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(ids)) for ids in rendered]
            return [task.result() for task in tasks]

    try:
        return run_outside_loop(lambda: asyncio.run(read_all()))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


def classified(answer: Any) -> Any:
    """Return what an answer of `/classify` gives as the probability of its single label.

    Args:
        answer: The answer's JSON.

    Raises:
        ValueError: it gives none, or several.
    """
    try:
        (value,) = answer["data"][0]["probs"]
    except (TypeError, KeyError, IndexError, ValueError) as error:
        raise ValueError("returns no single probability") from error
    return value


def checked_probability(value: Any, served: Served) -> float:
    """Return a probability that a server gives.

    Args:
        value: What stands in its answer.
        served: The server.

    Raises:
        ModelError: it is no number in [0, 1].
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ModelError(f"{served.url} gives {value!r:.40} as a probability.", "Repair the server.")
    return float(value)


class _NotThisWayError(ModelError):
    """A server does not have one of the ways."""


class _Reader:
    """Reads decisions at one server.

    Args:
        client: Client of its root.
        served: The server.
        opening: Ids between the prompt and the thought.
        start: How its refusals start.
    """

    def __init__(self, client: httpx.AsyncClient, served: Served, opening: list[int], start: RefusalStart) -> None:
        self._client, self._served, self._opening, self._start = client, served, opening, start

    async def way_of(self, ids: list[int], ways: Sequence[Way]) -> Way:
        """Return the first way that the server has.

        Raises:
            ModelError: it has none.
        """
        problems = []
        for way in ways:
            try:
                await self.read(way, ids)
            except _NotThisWayError as error:
                problems.append(f"{way}: {error.problem}")
            else:
                return way
        raise ModelError(
            f"{self._served.url} does not show the decision of {self._served.name!r} ({'; '.join(problems)}).",
            "Serve it with vLLM and the plug-in presafe-vllm, or the exported classifier.",
        )

    async def read(self, way: Way, ids: list[int]) -> ServedDecision:
        """Return the decision about a prompt.

        Raises:
            _NotThisWayError: the server does not have this way.
            ModelError: it did not read the prompt, or gives no probability.
        """
        if way == "odds":
            log = await self._log_of_refusal(ids + self._opening)
            return ServedDecision(math.exp(log), log - math.log(-math.expm1(log)), way)
        value = await (self._from_plugin(ids) if way == "plug-in" else self._from_classifier(ids))
        probability = checked_probability(value, self._served)
        inner = min(max(probability, 1e-7), 1 - 1e-7)  # as near to 0 and 1 as float32 gets
        return ServedDecision(probability, math.log(inner / (1 - inner)), way)

    async def _from_plugin(self, ids: list[int]) -> Any:
        """Return p from the field `presafe` of an answer of one token."""
        answer = await self._json("v1/completions", {"prompt": ids, "max_tokens": 1, "temperature": 0})
        field = answer.get("presafe")
        if not isinstance(field, dict):
            raise _NotThisWayError("its answers have no field `presafe`")
        values = field.get("refuse_probability")
        if not (isinstance(values, list) and len(values) == 1):
            raise ModelError(
                f"the plug-in at {self._served.url} did not read the decision of {self._served.name!r}.",
                "Ask a name that it monitors or gates.",
            )
        return values[0]

    async def _from_classifier(self, ids: list[int]) -> Any:
        """Return p from `/classify`."""
        answer = await self._json("classify", {"input": ids})
        try:
            return classified(answer)
        except ValueError as error:
            raise _NotThisWayError(f"its /classify {error}") from error

    async def _log_of_refusal(self, ids: list[int]) -> float:
        """Return ln P(r), below 0."""
        total = 0.0
        for step, tokens in enumerate(self._start.links):
            body = {
                "prompt": [*ids, *self._start.shared[:step]],
                "max_tokens": 1,
                "temperature": 0,
                "logprobs": 1,
                "logprob_token_ids": list(tokens),
                "return_tokens_as_token_ids": True,
            }
            table = first_chances(await self._response("v1/completions", body))
            if not all(token in table for token in tokens):
                raise _NotThisWayError("it does not state how likely a named token is (logprob_token_ids)")
            total += math.log(max(sum(math.exp(table[token]) for token in tokens), 1e-300))
        return min(total, -_LEAST)

    async def _json(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the JSON object in an answer."""
        try:
            answer = read_json(await self._response(path, body))
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise _NotThisWayError(f"/{path} answers no JSON object")
        return answer

    async def _response(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """Return an answer of a successful status; a request without an answer is tried again."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(UnreachableError),
            stop=stop_after_attempt(_TRIES),
            wait=_WAIT,
            reraise=True,
        )
        response: httpx.Response = await retrying(
            request, self._client, self._served, path, {"model": self._served.name, **body}
        )
        if not response.is_success:
            raise _NotThisWayError(f"/{path} answers {response.status_code}{message(response)}")
        return response
