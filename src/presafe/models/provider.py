"""The Inspect model provider `presafe/<address>`: CoT on and off for a model in this process or behind a server.

The thought is returned separately from the answer (`ContentReasoning`). Without a closed thought the answer is empty,
so that no scorer reads a thought as an answer; if the budget cut the thought, the stop reason is `max_tokens`. The same
holds if a server refused the prompt: the answer is empty, and the metadata hold the reason (`unanswered`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any, get_args

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
from pydantic import ValidationError

from presafe.errors import ModelError
from presafe.methods.registry import is_prefill, methods
from presafe.models.address import need_weights, served_model
from presafe.models.batching import LocalEngine
from presafe.models.decision_head import DecisionReading
from presafe.models.dialect import Dialect
from presafe.models.exchange import Completion, Engine, Request, UnansweredError
from presafe.models.family import Sampling
from presafe.models.loading import LoadedModel, load_model, load_renderer, shared_model
from presafe.models.logs import TOKEN_IDS
from presafe.models.rendering import Renderer
from presafe.models.retokenization import dropped_merges
from presafe.models.served import ServedEngine
from presafe.records import Prefill, Prompt, Thinking, Turn

_MAX_UNANSWERED = 8
"""Prompts that a server may refuse before it answers one; if there are more, the prompts are not the reason. Ours."""

TURN = "turn"
"""Key of a user message's metadata with how it is asked (`Turn`); without it, plainly."""


PROVIDER = "presafe/"
"""What Inspect's addresses of our models begin with."""
_ELSEWHERE: dict[str, Engine] = {}
"""Where judges' models are asked, if not in this process, by address."""


@contextmanager
def judge_asked_at(address: str, engine: Engine) -> Iterator[None]:
    """Have a judge's model asked at an engine, for a while.

    Args:
        address: The model's address.
        engine: What continues its prompts.
    """
    _ELSEWHERE[address] = engine
    try:
        yield
    finally:
        del _ELSEWHERE[address]


def _both(first: Prefill | None, later: Prefill | None) -> Prefill | None:
    """Return two beginnings of a turn, one after the other."""
    return first.then(later) if first and later else first or later


def _unwatched(label: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    """Show no progress of a search."""
    return nullcontext(lambda _: None)


class PreSafeAPI(ModelAPI):
    """A reasoning model with its CoT switched on or off.

    Args:
        model_name: The model's address.
        base_url: Not used: the address of a served model holds it.
        api_key: Not used: the key of a server comes from PRESAFE_API_KEY.
        config: Inspect's generation settings; token budget, temperature, top-p and top-k override the family's.
        thinking: "on", "off", or a level that the family has.
        adapter: Folder of a PEFT adapter.
        family: Name of a chat family or the TOML text of one; None detects it.
        tokenizer: For a served model: hub id or folder of its tokenizer; None takes the name it is served by.
        dtype: "float32" or "bfloat16".
        batch_size: Largest number of rows decoded together; for a served model, of requests in flight.
        batch_tokens: Largest number of tokens in a batch's cache; not used by a served model.
        method: Name of a method that prefills the thought with CoT on; None prefills nothing.
        trust_remote_code: Whether to run the model's own Python code.
        keep: Whether to keep these weights beside those of the model that is sampled, as for a judge.

    Raises:
        ModelError: `thinking` is another word, `method` does not prefill, the address of a server is malformed, a
            served model is given an adapter, or a chat endpoint a method.
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
        tokenizer: str | None = None,
        dtype: str = "float32",
        batch_size: int = 64,
        batch_tokens: int = 65_536,
        method: str | None = None,
        trust_remote_code: bool = False,
        keep: bool = False,
    ) -> None:
        super().__init__(model_name, None, None, [], config)
        if isinstance(thinking, bool):  # Inspect reads `-M thinking=off` as YAML, in which off is False
            thinking = "on" if thinking else "off"
        if thinking not in get_args(Thinking):
            raise ModelError(f"thinking must be one of {', '.join(get_args(Thinking))}; got {thinking!r}.")
        self._thinking: Thinking = thinking
        if method is not None and not (is_prefill(method) and thinking == "on"):
            raise ModelError(
                f"there is no prefilled thought {method!r} with CoT {thinking}.",
                f"With CoT on there are: {', '.join(filter(is_prefill, methods()))}.",
            )
        self._prefill = methods()[method].prefill if method else None
        served = served_model(model_name)
        self._is_chat = served is not None and served.chat
        self._keep = keep
        self._engine: Engine
        self._local: LocalEngine | None = None
        if served is not None:
            if adapter:
                need_weights(model_name, "putting an adapter on a model")
            if served.chat and method:
                raise ModelError(
                    f"a chat endpoint takes no prefilled thought, so {method} cannot be asked of {model_name}.",
                    "Give the address without /chat/completions, of a server that takes raw prompts.",
                )
            open_renderer = partial(load_renderer, model_name, family, tokenizer, trust_remote_code=trust_remote_code)
            self._engine = ServedEngine(served, open_renderer, batch_size)
        else:
            folder = Path(adapter) if adapter else None
            own = partial(
                load_model, model_name, adapter=folder, family=family, dtype=dtype, trust_remote_code=trust_remote_code
            )
            shared = partial(shared_model, model_name, folder, family, dtype, trust_remote_code)
            self._engine = self._local = LocalEngine(cache(own) if keep else shared, batch_size, batch_tokens)
        self._num_answered = self._num_unanswered = 0
        self.on_answered: Callable[[int], None] = lambda _: None
        """Called with the number of answers that a solver has just finished, where it asks several times for one."""
        self.decision: DecisionReading | None = None
        """How the system's decision before the CoT is read, for searches that attack it."""
        self.searches: Path | None = None
        """Folder in which searches keep how far they are."""
        self.on_search: Callable[[str, int], AbstractContextManager[Callable[[int], None]]] = _unwatched
        """Called with the name of a search and its queries; it gives what is called with the queries done."""
        self.failure: Exception | None = None
        """The error of sampling with its traceback; Inspect passes on only its message."""

    @property
    def engine(self) -> Engine:
        """Return what continues the prompts."""
        return _ELSEWHERE.get(self.model_name, self._engine) if self._keep else self._engine

    @engine.setter
    def engine(self, engine: Engine) -> None:
        self._engine = engine

    def max_connections(self) -> int:
        """Return how many prompts Inspect may sample at once."""
        return self.engine.in_flight()

    def local_model(self) -> LoadedModel:
        """Return the model's weights in this process.

        Raises:
            ModelError: the model is behind a server.
        """
        if self._local is None:
            need_weights(self.model_name, "reading a model's probabilities")
            raise AssertionError("a model without weights here is at the address of a server")
        return self._local.loaded()

    def sampling_for(self, given: Mapping[str, Any]) -> Sampling:
        """Return how tokens are drawn: as the family publishes for this mode, except for what is given.

        Args:
            given: Temperature, top-p and top-k; None leaves the family's.

        Raises:
            ModelError: a value is out of bounds.
        """
        family = self.engine.ready().family
        published = family.sampling(self._thinking)
        changes = {name: value for name, value in given.items() if value is not None}
        try:
            return Sampling.model_validate(published.model_dump() | changes)
        except ValidationError as error:
            first = error.errors()[0]
            raise ModelError(f"`{first['loc'][0]}`: {first['msg']}, got {first['input']!r}.") from error

    def prompt_ids(self, text: str, turn: Turn = Turn()) -> list[int]:  # noqa: B008  frozen
        """Return the token ids that a user's text is asked with, including what the model's turn begins with.

        Args:
            text: The user's text.
            turn: How it is asked.

        Raises:
            ModelError: as `Renderer.render`; or a thought is begun with CoT off, merges are to be left out of a
                tokenizer that has none, or a chat endpoint is to begin the model's turn.
        """
        renderer = self.engine.ready()
        if self._is_chat and (turn.prefill or turn.header):
            raise ModelError(
                f"{self.model_name} is a chat endpoint, which does not let presafe begin the model's turn.",
                "Give the address without /chat/completions, of a server that takes raw prompts.",
            )
        if turn.dropout and isinstance(self.engine, ServedEngine) and self.engine.dialect is not Dialect.IDS:
            raise ModelError(
                f"{self.model_name} takes text, and would merge again what retokenization cuts.",
                "Serve the model with vLLM, which takes token ids.",
            )
        encode = dropped_merges(renderer.tokenizer, turn.dropout, turn.seed) if turn.dropout else None
        ids = renderer.render(text, self._thinking, encode).ids
        return ids + self._prefill_ids(renderer, turn) + (renderer.header_ids() if turn.header else [])

    def ids_of(self, prompt: Prompt) -> list[int]:
        """Return the token ids that a prompt is asked with, as its attack says; see `prompt_ids`."""
        return self.prompt_ids(prompt.text, prompt.attacked.turn if prompt.attacked else Turn())

    def _prefill_ids(self, renderer: Renderer, turn: Turn) -> list[int]:
        """Return the ids with which the model's turn begins: the method's, then the attack's."""
        prefill = _both(self._prefill, turn.prefill)
        if prefill is None:
            return []
        if self._thinking != "off":
            return renderer.prefill_ids(prefill)
        if not prefill.closed:
            raise ModelError("a thought is begun for the model, and with CoT off there is none.", "Measure CoT on.")
        return renderer.text_ids(prefill.answer)

    async def count_text_tokens(self, text: str) -> int:
        """Return the number of tokens of a text."""
        return len(self.engine.ready().text_ids(text))

    async def aclose(self) -> None:
        """Close the connections."""
        await self.engine.close()

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """Answer one user message; see `ModelAPI.generate`.

        Raises:
            ModelError: more than one user message, or tools; or as `Engine.complete`.
        """
        if len(input) != 1 or input[0].role != "user" or tools:
            raise ModelError("the presafe provider takes one user message and no tools.")
        try:
            turn = Turn.model_validate((input[0].metadata or {}).get(TURN, {}))
            return await self._generate(input[0].text, turn, config)
        except Exception as error:
            self.failure = error
            raise

    async def _generate(self, text: str, turn: Turn, config: GenerateConfig) -> ModelOutput:
        renderer = self.engine.ready()
        given = {"temperature": config.temperature, "top_p": config.top_p, "top_k": config.top_k}
        draw = f"{config.seed or 0} {text}".encode()
        # After the mark of a new answer, what stands before it is no part of the answer.
        prefill = [] if turn.header else self._prefill_ids(renderer, turn)
        thinking: Thinking = "off" if turn.header else self._thinking
        request = Request(
            ids=self.prompt_ids(text, turn),
            max_tokens=config.max_tokens or renderer.family.max_tokens,
            sampling=self.sampling_for(given),
            seed=int.from_bytes(hashlib.sha256(draw).digest()[:6]),
            text=text,
            thinking=self._thinking,
        )
        try:
            completion = await self.engine.complete(request)
        except UnansweredError as error:
            return self._unanswered(error, request)
        self._num_answered += 1
        if completion.answer is not None:
            thought, answer, truncated = completion.answer
        else:
            text_of_turn = renderer.tokenizer.decode(prefill) + completion.text
            thought, answer, truncated = renderer.split_text(text_of_turn, thinking, ended=completion.stopped)
        content: list[Content] = [ContentReasoning(reasoning=thought)] if thought else []
        content.append(ContentText(text=answer))
        if prefill or turn.header:  # the sampled tokens are then not the whole turn
            completion = completion._replace(ids=())
        # If the thought closed, an answer cut by the budget is still an answer; after a cut thought there is none.
        return self._output(content, request, completion, "max_tokens" if truncated else "stop")

    def _unanswered(self, error: UnansweredError, request: Request) -> ModelOutput:
        """Return an empty answer to a prompt that the server refused.

        Raises:
            UnansweredError: it has refused many prompts and answered none.
        """
        self._num_unanswered += 1
        if not self._num_answered and self._num_unanswered > max(_MAX_UNANSWERED, self.engine.in_flight()):
            raise error
        self.engine.on_finished(1)
        output = self._output([ContentText(text="")], request, Completion("", 0, False), "max_tokens")
        output.metadata = {**(output.metadata or {}), "unanswered": str(error)}
        return output

    def _output(
        self, content: list[Content], request: Request, completion: Completion, reason: StopReason
    ) -> ModelOutput:
        message = ChatMessageAssistant(content=content, model=self.model_name, source="generate")
        sampled = {TOKEN_IDS: list(completion.ids)} if completion.ids else {}
        num_in, num_out = len(request.ids), completion.num_tokens
        return ModelOutput(
            model=self.model_name,
            choices=[ChatCompletionChoice(message=message, stop_reason=reason)],
            usage=ModelUsage(input_tokens=num_in, output_tokens=num_out, total_tokens=num_in + num_out),
            metadata={
                "thinking": self._thinking,
                "complete": completion.stopped,
                "sampling": request.sampling.model_dump(),
                **sampled,
            },
        )
