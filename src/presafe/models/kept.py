"""Keep what a model wrote until its judge can be asked: a vLLM that a run starts holds one model at a time.

A judge whose weights are on this machine is asked when every answer is there: first all completions are kept in a file,
without verdicts; then the same requests are answered from the file, and the judge is asked about each answer.

    answers.part.jsonl     while completions are missing; each is written when it is there, so that a kill loses none
    answers.jsonl          once all are there; deleted when all are judged
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import Field

from presafe.errors import RunError
from presafe.models.exchange import Completion, Engine, Request, UnansweredError
from presafe.models.rendering import Renderer
from presafe.records import Count, Record
from presafe.runs.io import disk_error, write_jsonl
from presafe.runtime.progress import console

TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class KeptAnswer(Record):
    """A completion of one request, or why there is none."""

    request: str
    """sha256 of what was asked."""
    ids: tuple[TokenId, ...]
    """The sampled tokens; empty where a server does not tell them."""
    text: str | None
    """What they say; None where the tokens are known."""
    num_tokens: Count
    stopped: bool
    refusal: tuple[str, str] | None = None
    """Problem and hint, if the server refused the prompt."""


class KeptAnswers:
    """The completions of one folder of logs.

    Args:
        folder: The folder; it belongs to one sampler.

    Raises:
        RunError: the files cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self._part, self._whole = folder / "answers.part.jsonl", folder / "answers.jsonl"
        self.is_finished = self._whole.exists()
        """Whether every completion is there."""
        self._answers: dict[str, KeptAnswer] = {}
        for file in (self._part, self._whole):
            if file.exists():
                self._read(file)

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return bool(self._answers)

    def kept_by(self, engine: Engine) -> KeepingEngine:
        """Return an engine whose completions are kept here."""
        return KeepingEngine(engine, self)

    def get(self, request: Request) -> KeptAnswer | None:
        """Return the kept answer to a request, or None."""
        return self._answers.get(_sha256(request))

    def add(self, request: Request, completion: Completion, refusal: tuple[str, str] | None = None) -> None:
        """Keep a completion.

        Args:
            request: What was asked.
            completion: What the model wrote.
            refusal: Problem and hint, if the server refused the prompt.

        Raises:
            RunError: the file cannot be written.
        """
        kept = KeptAnswer(
            request=_sha256(request),
            ids=completion.ids,
            text=None if completion.ids else completion.text,
            num_tokens=completion.num_tokens,
            stopped=completion.stopped,
            refusal=refusal,
        )
        self._answers[kept.request] = kept
        try:
            self._part.parent.mkdir(parents=True, exist_ok=True)
            with self._part.open("a", encoding="utf-8") as file:
                file.write(kept.model_dump_json() + "\n")
        except OSError as error:
            raise disk_error(self._part, error) from error

    def finish(self) -> None:
        """Mark that every completion is there.

        Raises:
            RunError: the folder cannot be written.
        """
        write_jsonl(self._whole, self._answers.values())
        self._remove(self._part)
        self.is_finished = True

    def delete(self) -> None:
        """Delete the files.

        Raises:
            RunError: the folder cannot be written.
        """
        self._remove(self._part)
        self._remove(self._whole)

    def _remove(self, file: Path) -> None:
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(file, error) from error

    def _read(self, file: Path) -> None:
        """Read a file without its damaged lines, such as one that a kill cut; these are asked again."""
        try:
            lines = file.read_bytes().splitlines()
        except OSError as error:
            raise RunError(f"cannot read {file}: {error.strerror or error}.") from error
        answers = [answer for line in lines if (answer := _parsed(line)) is not None]
        self._answers |= {answer.request: answer for answer in answers}
        if damaged := len(lines) - len(answers):
            console.print(
                f"  {file.name}: {damaged} of {len(lines)} lines are damaged, and are asked again.", soft_wrap=True
            )
            write_jsonl(self._part, self._answers.values())
            self.is_finished = False
            if file != self._part:
                self._remove(file)


class KeepingEngine:
    """Asks an engine, and keeps its completions; what is kept already is not asked.

    Args:
        engine: The engine.
        kept: Where completions are kept.
    """

    def __init__(self, engine: Engine, kept: KeptAnswers) -> None:
        self._engine, self._kept = engine, kept
        self.batch_size, self.batch_tokens = engine.batch_size, engine.batch_tokens
        self.on_finished: Callable[[int], None] = lambda _: None
        """Called for what is kept already; the engine itself calls its own."""

    def ready(self) -> Renderer:
        """Make the engine ready; see `Engine.ready`."""
        return self._engine.ready()

    def context(self) -> int | None:
        """Return the engine's context; see `Engine.context`."""
        return self._engine.context()

    def in_flight(self) -> int:
        """Return how many requests are useful at once."""
        return self._engine.in_flight()

    async def complete(self, request: Request) -> Completion:
        """Continue one prompt; see `Engine.complete`."""
        if kept := self._kept.get(request):
            return _completion_of(kept, self._engine.ready(), self.on_finished)
        try:
            completion = await self._engine.complete(request)
        except UnansweredError as error:
            self._kept.add(request, Completion("", 0, False), (error.problem, error.hint))
            raise
        self._kept.add(request, completion)
        return completion

    async def close(self) -> None:
        """Release connections."""
        await self._engine.close()


class KeptEngine:
    """Answers from what is kept, without a model.

    Args:
        renderer: The model's tokenizer and family.
        kept: The completions.
        batch_size: Number of answers that are judged at once.
    """

    def __init__(self, renderer: Renderer, kept: KeptAnswers, batch_size: int) -> None:
        self._renderer, self._kept = renderer, kept
        self.batch_size, self.batch_tokens = batch_size, 0
        self.on_finished: Callable[[int], None] = lambda _: None

    def ready(self) -> Renderer:
        """Return the tokenizer and family."""
        return self._renderer

    def context(self) -> int | None:
        """Return None: the prompts were asked already."""
        return None

    def in_flight(self) -> int:
        """Return how many answers are judged at once."""
        return self.batch_size

    async def complete(self, request: Request) -> Completion:
        """Return what is kept.

        Raises:
            UnansweredError: a server had refused this prompt.
            RunError: it is not kept.
        """
        kept = self._kept.get(request)
        if kept is None:
            raise RunError("an answer that is to be judged was not kept.", "Delete answers.jsonl beside the logs.")
        return _completion_of(kept, self._renderer, self.on_finished)

    async def close(self) -> None:
        """Do nothing: there is no connection to close."""


def _completion_of(kept: KeptAnswer, renderer: Renderer, on_finished: Callable[[int], None]) -> Completion:
    """Return a kept completion.

    Raises:
        UnansweredError: a server had refused the prompt.
    """
    if kept.refusal is not None:
        raise UnansweredError(*kept.refusal)
    on_finished(1)
    text = renderer.tokenizer.decode(list(kept.ids)) if kept.text is None else kept.text
    return Completion(text, kept.num_tokens, kept.stopped, kept.ids)


def _parsed(line: bytes) -> KeptAnswer | None:
    """Return the answer of a line, or None if the line is damaged."""
    try:
        return KeptAnswer.model_validate_json(line)
    except ValueError:  # also text that is not UTF-8
        return None


def _sha256(request: Request) -> str:
    """Return what identifies a request; equal requests have equal answers, because their seeds are equal."""
    asked = [request.ids, request.max_tokens, request.sampling.model_dump(mode="json"), request.seed]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()
