"""Connect `rows` to vLLM: one class for both of its interfaces of logits processors.

V1 gives rows by batch index, with references to their tokens (`v1/sample/logits_processor`). V2 gives rows by slot, on
the host where rows lie and how long they are (`v1/worker/gpu/sample/logits_processor`). With V2 the host waits for the
device only in steps in which a request writes its first token: then p and that prompt are read.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from vllm.v1.sample.logits_processor import LogitsProcessor
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as SlotLogitsProcessor

from presafe_vllm import ARCHITECTURES
from presafe_vllm.channel import tell
from presafe_vllm.gating.gate_file import GateError
from presafe_vllm.rows import Row, Rows
from presafe_vllm.settings import RUN_VARIABLE, read_settings


class _Place(NamedTuple):
    """A request in this step."""

    at: int
    """Its row of the logits."""
    row: Row
    written: int
    """Tokens that it has written; negative while its prompt is computed in chunks (V2)."""
    slot: int


class PreSafeGate(LogitsProcessor, SlotLogitsProcessor):
    """Reads the decision of each new row, and forces what it asks for.

    Args:
        vllm_config: vLLM's configuration.
        rest: V1: a device and a flag. V2: the state of the requests.
    """

    def __init__(self, vllm_config: Any, *rest: Any) -> None:
        settings = read_settings()
        self._states = rest[0] if len(rest) == 1 else None
        self._by_place: dict[int, tuple[Row, list[int]]] = {}
        """V1: by batch index, with the tokens that it has written. V2: by slot."""
        self._rows: Rows | None = None
        if settings is None:
            return
        architecture = vllm_config.model_config.architecture
        if architecture not in ARCHITECTURES:
            raise GateError(
                f"presafe-vllm serves {', '.join(ARCHITECTURES)}, and this model is a {architecture}. Unset "
                "PRESAFE_GATE to serve it without a decision."
            )
        folder = os.environ[RUN_VARIABLE]
        self._rows = Rows(settings, functools.partial(tell, folder))
        Path(folder, f"{os.getpid()}.ready").write_text(architecture, encoding="utf-8")

    def is_argmax_invariant(self) -> bool:
        """Return False: a forced token changes what is most likely."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow V1's batch: rows that ended, came, and moved."""
        if batch_update is None or self._rows is None:
            return
        for index in batch_update.removed:
            self._by_place.pop(index, None)
        for index, params, prompt, output in batch_update.added:
            self._by_place[index] = Row(params.extra_args, prompt), output
        for source, target, direction in batch_update.moved:
            moved, other = self._by_place.pop(source, None), self._by_place.pop(target, None)
            if moved is not None:
                self._by_place[target] = moved
            if other is not None and direction.name == "SWAP":
                self._by_place[source] = other

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Take a request into V2's slot; return whether its logits are looked at."""
        if self._rows is None:
            return False
        self._by_place[req_idx] = Row(sampling_params.extra_args), []
        return True

    def apply(self, logits: torch.Tensor, ctx: Any = None) -> torch.Tensor:
        """Decide about rows that write their first token, and force what was decided.

        Args:
            logits: Shape (rows, vocabulary); it is changed.
            ctx: V2's layout of the step.
        """
        if self._rows is None:
            return logits
        places = [place for place in self._places(len(logits), ctx) if place.written >= 0]
        if first := [place for place in places if place.written == 0]:
            probabilities = self._probabilities(len(logits))
            for place in first:
                if ctx is not None:
                    place.row.prompt = self._prompt(place.slot)
                self._rows.decide(place.row, probabilities[place.at] if probabilities else None)
        forced = [(place.at, self._token(place, ctx)) for place in places]
        return self._rows.force(logits, [(index, token) for index, token in forced if token is not None])

    def _token(self, place: _Place, ctx: Any) -> int | None:
        """Return the token that is forced on a request."""
        assert self._rows is not None
        if ctx is not None and place.row.prompt is None:  # preempted, and back
            place.row.prompt = self._prompt(place.slot)
        return self._rows.token(place.row, place.written)

    def _probabilities(self, num_rows: int) -> list[float] | None:
        """Return p of each row of the logits; None if the model left none for these rows."""
        from presafe_vllm.model import Latest

        latest = Latest.probabilities
        return None if latest is None or len(latest) != num_rows else latest.tolist()

    def _places(self, num_rows: int, ctx: Any) -> Iterator[_Place]:
        """Yield the requests of this step."""
        if ctx is None:
            for index, (row, output) in self._by_place.items():
                yield _Place(index, row, len(output), index)
            return
        if len(ctx.idx_mapping_np) != num_rows:
            raise GateError("vLLM samples several tokens per step, and the gate reads one.")
        assert self._states is not None
        lengths = self._states.prompt_len.np
        for index, slot in enumerate(ctx.idx_mapping_np.tolist()):
            row, _ = self._by_place[slot]
            yield _Place(index, row, int(ctx.seq_lens_upper_bound_np[index]) - int(lengths[slot]), slot)

    def _prompt(self, slot: int) -> list[int]:
        """Return the prompt in one of V2's slots."""
        assert self._states is not None
        length = int(self._states.prompt_len.np[slot])
        ids: list[int] = self._states.all_token_ids.gpu[slot, :length].tolist()
        return ids
