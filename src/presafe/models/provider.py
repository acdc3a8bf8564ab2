"""The Inspect model provider `presafe/<address>`: our decoding loop behind Inspect's interface.

Requests wait in a queue while a batch decodes; each batch takes the waiting prompts that are nearest in length.
The answer comes back with its thought apart (`ContentReasoning`); without a closed thought it is empty, so that no
scorer can take a thought for an answer, and where the budget cut the thought the stop reason is `max_tokens`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    Content,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    StopReason,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from presafe.errors import ModelError
from presafe.models.family import Sampling
from presafe.models.loading import LoadedModel, load_model, shared_model
from presafe.records import Thinking

_GATHER_S = 0.05
"""Wait before the first batch of a burst, so that it can be filled."""


class _Request(NamedTuple):
    ids: list[int]
    max_tokens: int
    sampling: Sampling
    seed: int
    result: asyncio.Future[ModelOutput]


class PreSafeAPI(ModelAPI):
    """A local reasoning model with its CoT switched on or off.

    Args:
        model_name: The model's address.
        base_url: Not used by a local model.
        api_key: Not used by a local model.
        config: Inspect's generation settings; temperature, top-p and top-k override the family's.
        thinking: "on" or "off".
        adapter: Folder of a PEFT adapter.
        family: Name of a chat family or the TOML text of one; None detects it.
        dtype: "float32" or "bfloat16".
        batch_size: Rows decoded together.
        keep: Whether to hold these weights beside those of the model that is sampled, as a judge does.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008  Inspect's own signature
        thinking: Thinking | bool = "on",
        adapter: str | None = None,
        family: str | None = None,
        dtype: str = "float32",
        batch_size: int = 64,
        keep: bool = False,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        if isinstance(thinking, bool):  # Inspect reads `-M thinking=off` as YAML, in which off is False
            thinking = "on" if thinking else "off"
        if thinking not in ("on", "off"):
            raise ModelError(f"thinking must be on or off, got {thinking!r}.")
        self._thinking: Thinking = thinking
        self.batch_size = batch_size
        where = Path(adapter) if adapter else None
        self.load: Callable[[], LoadedModel] = lambda: shared_model(model_name, where, family, dtype)
        if keep:
            self.load = cache(lambda: load_model(model_name, adapter=where, family=family, dtype=dtype))
        self._waiting: list[_Request] = []
        self._pump: asyncio.Task[None] | None = None
        self.on_finished: Callable[[int], None] | None = None
        """Called with the number of rows that have just stopped, from the thread that decodes."""
        self.failure: Exception | None = None
        """What went wrong while decoding, with its traceback: Inspect passes on its words only."""

    def max_connections(self) -> int:
        """Requests in flight: enough that a batch can be chosen by length."""
        return self.batch_size * 8

    async def count_text_tokens(self, text: str) -> int:
        return len(self.load().renderer.text_ids(text))

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """One turn; see `ModelAPI.generate`.

        Raises:
            ModelError: more than one user message, or tools.
        """
        if len(input) != 1 or input[0].role != "user" or tools:
            raise ModelError("the presafe provider takes one user message and no tools.")
        renderer = self.load().renderer
        family = renderer.family
        published = family.sampling_on if self._thinking == "on" else family.sampling_off
        given = {"temperature": config.temperature, "top_p": config.top_p, "top_k": config.top_k}
        prompt = renderer.render(input[0].text, self._thinking)
        draw = f"{config.seed or 0} {input[0].text}".encode()
        request = _Request(
            ids=prompt.ids,
            max_tokens=config.max_tokens or 4096,
            sampling=published.model_copy(update={k: v for k, v in given.items() if v is not None}),
            seed=int.from_bytes(hashlib.sha256(draw).digest()[:6]),
            result=asyncio.get_running_loop().create_future(),
        )
        self._waiting.append(request)
        if self._pump is None:
            self._pump = asyncio.create_task(self._decode_waiting())
        return await request.result

    async def _decode_waiting(self) -> None:
        await asyncio.sleep(_GATHER_S)
        try:
            while batch := self._take_batch():
                try:
                    outputs = await asyncio.to_thread(self._decode, batch)
                except Exception as error:
                    self.failure = error
                    for request in batch:
                        if not request.result.done():
                            request.result.set_exception(error)
                    continue
                for request, output in zip(batch, outputs, strict=True):
                    if not request.result.done():
                        request.result.set_result(output)
                await asyncio.sleep(0)
        finally:
            self._pump = None

    def _take_batch(self) -> list[_Request]:
        """The longest waiting prompts that share settings, so that the slowest batch comes first."""
        self._waiting = [request for request in self._waiting if not request.result.done()]  # none cancelled
        self._waiting.sort(key=lambda request: (len(request.ids), request.seed), reverse=True)
        if not self._waiting:
            return []
        first = self._waiting[0]
        alike = [r for r in self._waiting if (r.max_tokens, r.sampling) == (first.max_tokens, first.sampling)]
        batch = alike[: self.batch_size]
        taken = {id(request) for request in batch}
        self._waiting = [request for request in self._waiting if id(request) not in taken]
        return batch

    def _decode(self, batch: list[_Request]) -> list[ModelOutput]:
        from presafe.models.engine import generate_batch

        loaded = self.load()
        generations = generate_batch(
            loaded.model,
            [request.ids for request in batch],
            max_new_tokens=batch[0].max_tokens,
            stop_ids=loaded.renderer.stop_ids(),
            sampling=batch[0].sampling,
            seeds=[request.seed for request in batch],
            on_finished=self.on_finished,
        )
        outputs = []
        for request, generation in zip(batch, generations, strict=True):
            thought, answer, truncated = loaded.renderer.split(generation.ids, self._thinking)
            content: list[Content] = [ContentReasoning(reasoning=thought)] if thought else []
            content.append(ContentText(text=answer))
            num_in, num_out = len(request.ids), len(generation.ids)
            message = ChatMessageAssistant(content=content, model=self.model_name, source="generate")
            # Where the thought closed, an answer cut by the budget is still an answer: only a cut thought is not.
            reason: StopReason = "max_tokens" if truncated else "stop"
            outputs.append(
                ModelOutput(
                    model=self.model_name,
                    choices=[ChatCompletionChoice(message=message, stop_reason=reason)],
                    usage=ModelUsage(input_tokens=num_in, output_tokens=num_out, total_tokens=num_in + num_out),
                    metadata={
                        "thinking": self._thinking,
                        "complete": generation.stopped,
                        "sampling": request.sampling.model_dump(),
                    },
                )
            )
        return outputs
