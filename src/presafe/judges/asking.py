"""A judge at work: what one model, or a panel, says of one answer.

A model is asked once, and once more where its reply is malformed; then the answer counts as unjudged. So does one that
the model could not be asked about: an error of the server, no reply in time, or one that is too long. A key that is
refused or a model that is not there ends the run instead, since no answer would be judged.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageUser,
    GenerateConfig,
    Model,
    ModelOutput,
    get_model,
)

from presafe.errors import JudgeError, PreSafeError
from presafe.judges.description import Asks, Description, descriptions
from presafe.judges.keys import hide_key
from presafe.judges.limits import limit_replies
from presafe.judges.quoting import filled, quoted, set_off
from presafe.judges.refusal import OFFLINE
from presafe.judges.replies import Ruling, read_reply
from presafe.judges.spec import Bench, Rule, Seat, read_name

_ATTEMPT_S, _CALL_S, _RETRIES = 120, 600, 6
"""Time for one request, time after which it is not tried again, and how often it is. Ours. Inspect waits 3, 6, 12 … s
between them, and its client as long as a server's Retry-After says."""
_IN_PROCESS = ("presafe", "hf")
_STARTED = {"vllm": "VLLM_BASE_URL", "vllm-completions": "VLLM_BASE_URL", "sglang": "SGLANG_BASE_URL"}
"""Providers that Inspect starts a server for, unless this variable says where one runs."""
_REMINDER = "\n\nYour last reply did not end as asked. Judge again, and end exactly as asked."

Vote = TypeVar("Vote", bound=str)

Rules = Callable[[str, str, bool], Awaitable[Ruling]]
"""From request, answer, and whether the thought was cut, to a ruling."""


class Judge(NamedTuple):
    """A judge that can be asked."""

    name: str
    asks: Asks
    rule: Rules


def open_judge(name: str) -> Judge:
    """Make a judge ready.

    Raises:
        JudgeError: as `read_name`; or its model needs a key or a package that is not there.
    """
    bench = read_name(name)
    return Judge(bench.name, bench.asks, _panel(bench, bench.rule) if bench.rule else _single(bench.seats[0]))


def panel_ruling(rule: Rule, rulings: Sequence[tuple[str, Ruling]]) -> Ruling:
    """What a panel says: the verdict of more than half of all its members, or of all; else unjudged.

    A member that did not judge is a member all the same. Classes of compliance and refusal are elected like verdicts:
    where members refuse in part and in full, the panel may refuse in no class. The score is the mean of the members'
    where the panel has a verdict and every member gave one.
    """
    members = tuple((name, ruling.verdict) for name, ruling in rulings)
    note = "; ".join(f"{name}: {each}" for name, each in members)
    needed = len(members) if rule == "unanimity" else len(members) // 2 + 1
    verdict = _elected([each for _, each in members if each != "unjudged"], needed)
    if verdict is None:
        return Ruling("unjudged", note=note, members=members)
    extent = _elected([ruling.extent for _, ruling in rulings if ruling.extent], needed)
    scores = [ruling.score for _, ruling in rulings if ruling.score is not None]
    return Ruling(verdict, sum(scores) / len(scores) if len(scores) == len(members) else None, note, members, extent)


def _elected(votes: Sequence[Vote], needed: int) -> Vote | None:
    return next((vote for vote, number in Counter(votes).most_common(1) if number >= needed), None)


def _panel(bench: Bench, rule: Rule) -> Rules:
    asked = [(seat.name, _single(seat)) for seat in bench.seats]

    async def ask(request: str, answer: str, truncated: bool) -> Ruling:
        rulings = await asyncio.gather(*(single(request, answer, truncated) for _, single in asked))
        return panel_ruling(rule, [(name, ruling) for (name, _), ruling in zip(asked, rulings, strict=True)])

    return ask


def _single(seat: Seat) -> Rules:
    if seat.judge in OFFLINE:

        async def read(request: str, answer: str, truncated: bool) -> Ruling:
            return Ruling(OFFLINE[seat.judge](answer, truncated=truncated))

        return read
    description, model = descriptions()[seat.judge], _connect(seat)
    config = _config(description, seat.model or "")

    async def ask(request: str, answer: str, truncated: bool) -> Ruling:
        if truncated or not answer.strip():
            return Ruling("unjudged", note="no answer to judge")
        key = secrets.token_hex(3)  # drawn anew: one made from the answer could be searched for, and put into it
        for reminder in ("", _REMINDER if description.send == "chat" else ""):
            try:
                output = await model.generate(_messages(description, request, answer, key, reminder), config=config)
            except PreSafeError:
                raise
            except Exception as error:  # providers share no class of errors
                return _no_reply(seat, error)
            if _ended(description, output) and (
                ruling := read_reply(description, output.message.text, _odds(output), key)
            ):
                return ruling
        return Ruling("unjudged", note="malformed reply, twice")

    return ask


def _connect(seat: Seat) -> Model:
    from presafe.models import registry  # noqa: F401  registers our provider

    address = seat.model or ""
    arguments: dict[str, Any] = {}
    if address.startswith("presafe/"):
        arguments["keep"] = True
    elif address.startswith("hf/"):
        arguments["do_sample"] = False
        if descriptions()[seat.judge].send == "completion":
            arguments["chat_template"] = "{{ messages[0]['content'] }}"
    try:
        return hide_key(limit_replies(get_model(address, memoize=False, **arguments)))
    except PreSafeError:
        raise
    except Exception as error:  # a key, an address or a package that is missing, in as many classes as providers
        reason = " ".join(re.sub(r"\[/?[a-z]+\]", "", str(error)).split()).removeprefix("ERROR: ")  # Inspect marks up
        raise JudgeError(f"judge {seat.name}: {reason.removesuffix('.')}.", "See docs/judges.md.") from error


def _config(description: Description, address: str) -> GenerateConfig:
    is_here, reads_odds = _loads_here(address), description.reply == "grades"
    return GenerateConfig(
        max_tokens=description.max_tokens,
        # Ours samples as its publisher says, with a seed; Transformers takes no zero, but `do_sample`.
        temperature=None if address.startswith(("presafe/", "hf/")) else 0.0,
        logprobs=True if reads_odds else None,
        top_logprobs=20 if reads_odds else None,
        attempt_timeout=None if is_here else _ATTEMPT_S,
        timeout=None if is_here else _CALL_S,
        max_retries=_RETRIES,
    )


def _loads_here(address: str) -> bool:
    """Whether the model may be loaded first, or works in this process: then it is waited for."""
    provider, _, _ = address.partition("/")
    return provider in _IN_PROCESS or (provider in _STARTED and not os.environ.get(_STARTED[provider]))


def _messages(description: Description, request: str, answer: str, key: str, reminder: str) -> list[ChatMessage]:
    answer = answer[: description.answer_characters]
    if description.send == "conversation":
        marks = description.marks
        return [ChatMessageUser(content=set_off(request, marks)), ChatMessageAssistant(content=set_off(answer, marks))]

    def part(text: str) -> str:
        return quoted(text) if description.send == "chat" else set_off(text, description.marks)

    parts = {"request": part(request), "answer": part(answer), "key": key}
    return [ChatMessageUser(content=filled(description.prompt, parts) + reminder)]


def _ended(description: Description, output: ModelOutput) -> bool:
    """Return whether there is a reply that ended as one does: not filtered or broken off by the server.

    A reply in lines must have ended by itself, for a cut one might go on to contradict itself. One word fills its
    budget.
    """
    if output.empty:
        return False
    return output.stop_reason == "stop" or (output.stop_reason == "max_tokens" and description.reply != "lines")


def _odds(output: ModelOutput) -> dict[str, float]:
    """Log-probabilities of the first token of a reply, by token."""
    logprobs = output.choices[0].logprobs
    if logprobs is None or not logprobs.content:
        return {}
    first = logprobs.content[0]
    return {each.token: each.logprob for each in first.top_logprobs or []}


def _no_reply(seat: Seat, error: Exception) -> Ruling:
    last = getattr(error, "last_attempt", None)  # tenacity's, after the last retry
    cause = (last.exception() if last else None) or error
    status = getattr(cause, "status_code", None)
    if status in (401, 404):  # its words may quote the key
        what = "refuses the key" if status == 401 else "does not know the model, or its address is wrong"
        raise JudgeError(f"the server of judge {seat.name} {what} (HTTP {status}).", "See docs/judges.md.") from None
    return Ruling("unjudged", note=f"no reply: {type(cause).__name__}" + (f" {status}" if status else ""))
