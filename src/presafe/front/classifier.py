"""Ask a classifier for p of a prompt: a server's `/classify`, or a forward pass in this process.

Both raise `ModelError` where they give no probability; the prompt is then unread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from presafe.errors import ModelError
from presafe.internals.decision import rendered_probabilities
from presafe.models.address import Served
from presafe.models.context import context_length
from presafe.models.control import client_of
from presafe.models.decision_head import DecisionHead
from presafe.models.http import Patience, Refused, TryAgain, fetch, message, read_json
from presafe.models.loading import LoadedModel
from presafe.models.rendering import RenderedPrompt
from presafe.models.served_decision import checked_probability, classified

_SECONDS = 10.0
"""Longest wait for p; a classifier that is slower does not answer in time. Ours."""
_IN_FLIGHT = 64
"""Requests at once at a server. Ours."""
_ROWS = 16
"""Prompts in one forward pass. Ours."""
_BYTES = 2**20
"""Largest answer. Ours."""


def patience() -> float:
    """Return the longest wait for p, in seconds: 10, or PRESAFE_TIMEOUT_S if that is shorter.

    Raises:
        ModelError: the variable is no positive number.
    """
    return min(_SECONDS, Patience.from_environment().timeout_s)


class Classifier(Protocol):
    """Gives p of prompts."""

    async def probability(self, ids: list[int]) -> float:
        """Return p of a prompt, in [0, 1].

        Args:
            ids: Its token ids; it ends at the decision position.

        Raises:
            ModelError: there is no p.
        """

    async def is_up(self) -> bool:
        """Return whether it can be asked."""

    async def close(self) -> None:
        """Release what it holds."""


class ServedClassifier:
    """Asks `/classify` of a server of an exported classifier.

    Args:
        served: The server, and its name for the classifier.
    """

    def __init__(self, served: Served) -> None:
        self._served, self._seconds = served, patience()
        self._client = client_of(served, _IN_FLIGHT)

    async def probability(self, ids: list[int]) -> float:
        """Return p of a prompt; see `Classifier`."""
        where = f"the classifier {self._served.url}#{self._served.name}"
        body = {"model": self._served.name, "input": ids}
        try:
            response = await fetch(self._client, "classify", body, seconds=self._seconds, max_bytes=_BYTES)
            if not response.is_success:
                raise ModelError(f"{where} answers {response.status_code}{message(response)}.")
            return checked_probability(classified(read_json(response)), self._served)
        except (TryAgain, Refused, ValueError) as error:
            raise ModelError(f"{where}: {error}.", "Check that it is up, and that it has /classify.") from error

    async def is_up(self) -> bool:
        """Return whether the server lists its models."""
        try:
            return (await fetch(self._client, "v1/models", seconds=self._seconds, max_bytes=_BYTES)).is_success
        except (TryAgain, Refused):
            return False

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()


class LocalClassifier:
    """Reads the head in this process; prompts that wait together share a forward pass.

    Args:
        loaded: The model, its adapter merged.
        head: The exported head.
    """

    def __init__(self, loaded: LoadedModel, head: DecisionHead) -> None:
        head.need_fit(loaded.model)
        self._loaded, self._head, self._seconds = loaded, head, patience()
        self._context = context_length(loaded.model.config)
        self._waiting: list[tuple[list[int], asyncio.Future[float]]] = []
        self._reading: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "presafe-head")

    async def probability(self, ids: list[int]) -> float:
        """Return p of a prompt; see `Classifier`."""
        if self._context is not None and len(ids) > self._context:
            raise ModelError(f"a prompt of {len(ids):,} tokens does not fit the classifier's {self._context:,}.")
        if max(ids) >= self._loaded.model.get_input_embeddings().num_embeddings:
            raise ModelError("a prompt has a token that the classifier does not know.")
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append((ids, future))
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_waiting())
        try:
            async with asyncio.timeout(self._seconds):
                return await future
        except TimeoutError as error:
            raise ModelError(f"the forward pass took longer than {self._seconds:g} s.") from error

    async def is_up(self) -> bool:
        """Return True: it is in this process."""
        return True

    async def close(self) -> None:
        """Wait for the forward pass that runs, and end the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _read_waiting(self) -> None:
        """Read all prompts that wait, and those that come meanwhile."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting[:_ROWS], self._waiting[_ROWS:]
            batch = [(ids, future) for ids, future in batch if not future.done()]  # who asked may have gone
            try:
                values = await loop.run_in_executor(self._thread, self._forward, [ids for ids, _ in batch])
            except (RuntimeError, ModelError) as error:  # torch's errors, such as too little memory
                problem = ModelError(f"the forward pass failed: {error}.")
                for _, future in batch:
                    if not future.done():
                        future.set_exception(problem)
                continue
            for (_, future), value in zip(batch, values, strict=True):
                if future.done():
                    continue
                if 0 <= value <= 1:  # false for NaN
                    future.set_result(value)
                else:
                    future.set_exception(ModelError(f"the head gives {value} as a probability."))

    def _forward(self, prompts: Sequence[list[int]]) -> list[float]:
        """Return p of each prompt."""
        rendered = [RenderedPrompt(ids, len(ids) - 1) for ids in prompts]
        return rendered_probabilities(self._loaded, rendered, self._head, batch_size=_ROWS)
