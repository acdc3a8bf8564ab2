"""Decide what is forced on each row: nothing, a refusal token by token, or the end of the turn at once.

    p is read            the prompt ends in the gate file's decision tail, and this is the step of its first token
    a gated name         p ≥ threshold forces the refusal; where p was not read, PRESAFE_GATE_UNREAD decides
    who asks otherwise   where a name is gated, a request that the middleware did not name is ended at once

The end of the turn is forced at every step after a refusal, so that `ignore_eos` writes nothing behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from presafe_vllm.channel import Told
from presafe_vllm.settings import Settings

MODE_KEY, ID_KEY = "presafe_mode", "presafe_id"
"""Names in a request's `vllm_xargs`. The middleware sets them; what a client wrote there is overwritten."""
_MOST_REMEMBERED = 10_000
"""Requests whose outcome is kept: a preempted request comes back as a new row."""

Tell = Callable[[str, str, Told], bool]
"""Tells the API server (request's id, which prompt, decision); returns whether that worked."""


class Row:
    """One request in the batch.

    Args:
        arguments: `extra_args` of its sampling parameters.
        prompt: Its token ids; None if they are not known yet, or it has none.
    """

    __slots__ = ("forced", "id", "is_decided", "mode", "prompt")

    def __init__(self, arguments: dict[str, Any] | None, prompt: Sequence[int] | None = None) -> None:
        arguments = arguments or {}
        self.id, self.mode = arguments.get(ID_KEY), arguments.get(MODE_KEY)
        self.prompt = prompt
        self.is_decided = False
        self.forced: tuple[int, ...] = ()
        """Tokens that are forced, from the first on; the last one for ever."""

    @property
    def key(self) -> str:
        """Return which prompt of its request it is: n answers to one prompt have one decision."""
        return str(hash(tuple(self.prompt or ())))


class Rows:
    """Decisions of the rows of one worker.

    Args:
        settings: What the operator has set.
        tell: Tells the API server.
    """

    def __init__(self, settings: Settings, tell: Tell) -> None:
        self._settings, self._tell = settings, tell
        self._outcomes: dict[tuple[str, str], tuple[int, ...]] = {}

    def decide(self, row: Row, probability: float | None) -> None:
        """Decide about a row at the step of its first token, and tell the API server.

        Args:
            row: The row, its prompt known.
            probability: p at its last token; None if there is none.
        """
        at_decision = self._is_at_decision(row.prompt)
        read = probability if at_decision and row.mode != "open" else None
        row.forced, row.is_decided = self._forced(row.mode, read), True
        is_told = isinstance(row.id, str) and self._tell(row.id, row.key, Told(read, bool(row.forced)))
        if not is_told and self._settings.is_gating:
            row.forced = self._end
        self._remember(row)

    def token(self, row: Row, written: int) -> int | None:
        """Return the token that is forced on a row; None leaves it to the model.

        Args:
            row: The row.
            written: Tokens that it has written.
        """
        if not row.is_decided:  # it was decided before it was preempted
            end = self._end if self._settings.is_gating and row.mode not in ("monitor", "open") else ()
            row.forced, row.is_decided = self._outcomes.get((str(row.id), row.key), end), True
        return row.forced[min(written, len(row.forced) - 1)] if row.forced else None

    def force(self, logits: torch.Tensor, forced: Sequence[tuple[int, int]]) -> torch.Tensor:
        """Leave one token possible in some rows of the logits.

        Args:
            logits: Shape (rows, vocabulary); it is changed.
            forced: Index of a row, and its token.
        """
        for index, token in forced:
            logits[index] = -torch.inf
            logits[index, token] = 0.0
        return logits

    @property
    def _end(self) -> tuple[int, ...]:
        """Return what ends the turn at once."""
        return self._settings.gate.refusal_ids[-1:]

    def _forced(self, mode: Any, read: float | None) -> tuple[int, ...]:
        """Return what is forced on a row of a mode, for what was read."""
        if mode in ("monitor", "open") or (mode != "gate" and not self._settings.is_gating):
            return ()
        if read is None:
            return () if self._settings.unread == "answer" else self._end
        return self._settings.gate.refusal_ids if read >= self._settings.gate.threshold else ()

    def _is_at_decision(self, prompt: Sequence[int] | None) -> bool:
        """Return whether a prompt ends at the decision position."""
        tail = self._settings.gate.decision_tail
        return prompt is not None and tuple(prompt[-len(tail) :]) == tail

    def _remember(self, row: Row) -> None:
        """Keep a row's outcome for the case that it is preempted."""
        self._outcomes[str(row.id), row.key] = row.forced
        if len(self._outcomes) > _MOST_REMEMBERED:
            del self._outcomes[next(iter(self._outcomes))]
