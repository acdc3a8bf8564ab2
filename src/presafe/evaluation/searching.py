"""What a search reads of the model under attack, and how it keeps how far it is.

<logs of a system>/searches/<hash>.json    one search on one prompt: the attack, the best suffix, the cost after each
                                           round, what was spent; written after each round

A search that was killed begins again at its last round. The file stays as the record of the search's curve.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from presafe.attacks.attack import Decided, Draw, Objective, Reader
from presafe.attacks.search import Budget, Search, SearchState
from presafe.errors import RunError
from presafe.internals.searching import CostReader
from presafe.internals.surprise import surprises
from presafe.judges.refusal import is_refusal
from presafe.models.provider import PreSafeAPI
from presafe.prompts.sets import built_in
from presafe.records import Record
from presafe.runs.folder import set_aside_damaged
from presafe.runs.io import read_record, write_json


class SearchRecord(Record):
    """One search on one prompt."""

    attack: str
    """Label of the attack."""
    prompt_id: str
    seed: int
    """Seed of the search."""
    state: SearchState


def reader_of(api: PreSafeAPI) -> Reader:
    """Return what searches and defenses read of a model beside its answers.

    Args:
        api: The model; its weights are loaded when they are first read.
    """
    opened: list[CostReader] = []

    def weights() -> CostReader:
        if not opened:
            opened.append(CostReader(api.local_model(), api.decision))
        return opened[0]

    def costs(texts: Sequence[str], objective: Objective) -> list[float]:
        read = weights().costs(texts, objective)
        reader.num_read = weights().num_read
        return read

    def neighbors(request: str, suffix: str, objective: Objective, draw: Draw) -> list[str]:
        drawn = weights().neighbors(request, suffix, objective, draw)
        reader.num_read = weights().num_read
        return drawn

    def decides(text: str) -> Decided:
        return weights().decides(text)

    def read(texts: Sequence[str]) -> list[list[float]]:
        return surprises(api.local_model(), texts)

    harmless = tuple(prompt.text for prompt in built_in("benign", "align"))
    reader = Reader(is_refusal, read, costs, neighbors, decides, harmless)
    return reader


@contextmanager
def searching(
    api: PreSafeAPI,
    search: Search,
    label: str,
    prompt_id: str,
    request: str,
    seed: int,
    count_tokens: Callable[[], int],
) -> Iterator[Budget]:
    """Give the budget of one search on one prompt, with a progress bar, and with the state that a killed one left.

    Args:
        api: The model under attack.
        search: The attack.
        label: Its label.
        prompt_id: Id of the prompt.
        request: The plain request.
        seed: Seed of the search.
        count_tokens: Returns the tokens that this session has read and written for the prompt so far.

    Raises:
        RunError: the state cannot be written.
    """
    file = _file(api.searches, label, prompt_id, request, seed) if api.searches else None
    state = _state_of(file, label, prompt_id, seed) if file else None
    earlier = state.tokens if state else 0
    budget = search.budget(lambda: earlier + count_tokens())
    budget.state = state
    if not search.objective().is_read:
        yield budget
        return
    with api.on_search(f"{label}, {prompt_id}", search.queries) as advance:
        advance(state.queries if state else 0)
        done = [state.queries if state else 0]

        def keep(new: SearchState) -> None:
            if file:
                record = SearchRecord(attack=label, prompt_id=prompt_id, seed=seed, state=new)
                write_json(file, record.model_dump(mode="json"))
            advance(new.queries - done[0])
            done[0] = new.queries

        budget.keep = keep
        yield budget


def _file(folder: Path, label: str, prompt_id: str, request: str, seed: int) -> Path:
    """Return the file of a search; ids and labels may hold characters that a file name cannot."""
    name = hashlib.sha256(f"{label}\n{prompt_id}\n{seed}\n{request}".encode()).hexdigest()[:16]
    return folder / f"{name}.json"


def _state_of(file: Path, label: str, prompt_id: str, seed: int) -> SearchState | None:
    """Return the state in a file; a damaged file is set aside, and the search begins anew."""
    if not file.exists():
        return None
    try:
        record = read_record(file, SearchRecord)
        if (record.attack, record.prompt_id, record.seed) != (label, prompt_id, seed):
            raise RunError(f"{file} is damaged: it is of another search.")
    except RunError as error:
        set_aside_damaged(file, error.problem, "The search begins anew.")
        return None
    return record.state
