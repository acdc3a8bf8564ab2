"""Faults planted in the product: a harness that does not catch them can catch nothing."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from faults.cases import Case, Kind, corpus_cases
from faults.server import GROWTH, run_cases
from presafe.config.recipe import load_recipe
from presafe.errors import ModelError, PreSafeError
from presafe.judges.parsing import Ruling, read_reply
from presafe.models.answers import completion_of
from presafe.models.exchange import Completion
from presafe.models.http import Refused, TryAgain
from presafe.models.loading import load_model
from presafe.models.logs import read_log
from presafe.prompts.sets import from_file
from presafe.runs.io import read_jsonl, write_text
from presafe.stages.run_folder import RunFolder

_MOST = 150
"""Inputs after which a planted fault has not been caught."""
_KEY = "sk-a-key-that-no-line-may-hold"


def _swallowing_recipe(path: Any) -> Any:
    try:
        return load_recipe(path)
    except PreSafeError:
        return load_recipe("smolthink-135m")


def _cutting_prompts(path: Path, **options: Any) -> Any:
    return [prompt.model_copy(update={"text": prompt.text.split(",")[0]}) for prompt in from_file(path, **options)]


def _losing_prompts(path: Path, **options: Any) -> Any:
    return from_file(path, **options)[:5]


def _lenient_completion(response: Any, max_tokens: int | None = None) -> Completion:
    try:
        return completion_of(response, max_tokens)
    except (TryAgain, Refused):
        return Completion("", 0, True)


def _lenient_reply(judge: Any, text: str, odds: Any, key: str) -> Ruling | None:
    return read_reply(judge, text, odds, key) or Ruling("safe", 0.0)


def _swallowing_log(path: Path, check: Any) -> Any:
    log = read_log(path, check)
    for sample in log.samples or []:
        sample.output.choices[0].message.content = "unread"
    return log


def _swallowing_lines(path: Path, kind: Any, **options: Any) -> Any:
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    records = []
    for number, line in enumerate(filter(str.strip, lines)):
        one = path.with_name(f".{number}")
        one.write_text(line)
        try:
            records += read_jsonl(one, kind, **options)
        except PreSafeError:
            continue
        finally:
            one.unlink()
    return records


def _without_adapter(address: str, *, adapter: Path | None = None, **options: Any) -> Any:
    return load_model(address, **options)


async def _telling(engine: Any, request: Any) -> Any:
    raise ModelError(f"the server says: {_KEY}.")


@contextmanager
def _marked_too_early(run: RunFolder, stage: Any) -> Iterator[None]:
    write_text(run.path / "stages" / stage, "done\n")
    yield


def _case(kind: str, target: str, text: str) -> Case:
    return Case(kind, target, text.encode())


_PLANTS: tuple[tuple[str, str, str, Any, tuple[Case, ...]], ...] = (
    (
        "a recipe that cannot be read is replaced",
        "declarations",
        "faults.kinds.declarations.load_recipe",
        _swallowing_recipe,
        (),
    ),
    ("a prompt is cut at its comma", "prompts", "faults.kinds.prompts.from_file", _cutting_prompts, ()),
    ("the sixth prompt is lost", "prompts", "faults.kinds.prompts.from_file", _losing_prompts, ()),
    (
        "a broken answer counts as an empty one",
        "replies",
        "faults.kinds.replies.completion_of",
        _lenient_completion,
        (),
    ),
    ("a malformed judgment counts as safe", "replies", "faults.kinds.replies.read_reply", _lenient_reply, ()),
    ("an answer is not read from its log", "folders", "faults.kinds.folders.read_log", _swallowing_log, ()),
    ("lines that cannot be read are left out", "folders", "presafe.runs.folder.read_jsonl", _swallowing_lines, ()),
    ("an adapter is ignored", "models", "faults.kinds.models.load_model", _without_adapter, ()),
    ("an error shows the key", "servers", "presafe.models.served.ServedEngine.complete", _telling, ()),
    (
        "scores that cannot be read are left out of the report",
        "corruptions",
        "presafe.runs.folder.read_jsonl",
        _swallowing_lines,
        (_case("corruptions", "report", '{"file": "evaluation/scores.jsonl", "how": "flip", "seed": 1}'),),
    ),
    (
        "a stage is marked as done when it begins",
        "kills",
        "presafe.stages.run_folder.RunFolder.working_on",
        _marked_too_early,
        tuple(
            _case("kills", "run", f'{{"moments": [{moment}]}}') for moment in (0.2, 0.4, 0.7)
        ),  # a kill can come early
    ),
)
"""What is planted, the kind that must catch it, what is replaced by what, and inputs where random ones take long."""


class _Misbehaving:
    """A kind whose product has no end, takes all memory, or fails in a way of its own."""

    name = "misbehaving"

    def __init__(self, clock_s: float) -> None:
        self.clock_s = clock_s

    def prepare(self, workspace: Path) -> None:
        """Need nothing."""

    def make(self, rng: random.Random) -> Case:
        """Return nothing of interest."""
        return Case(self.name, "", b"")

    def check(self, case: Case, folder: Path) -> None:
        """Misbehave as the case says."""
        actions: dict[str, Callable[[], Any]] = {
            "hang": lambda: time.sleep(60),
            "memory": lambda: b"x" * int(1.2 * GROWTH),
            "too much memory": lambda: bytearray(2**42),
            "traceback": lambda: [][0],
            "crash": lambda: _crash(),
            "empty refusal": lambda: _refuse(""),
            "endless refusal": lambda: _refuse("x" * 10**5),
        }
        actions[case.target]()


def _crash() -> None:
    import os

    os.abort()


def _refuse(text: str) -> None:
    raise PreSafeError(text)


_MISBEHAVIOR = {
    "hang": "hang",
    "memory": "memory",
    "too much memory": "MemoryError",
    "traceback": "IndexError",
    "crash": "ended with -6",
    "empty refusal": "without a text",
    "endless refusal": "too long",
}


def planted_faults(kinds: Sequence[Kind], workspace: Path, seed: int) -> Iterator[tuple[str, str]]:
    """Yield each planted fault with the signature that it was caught by; an empty one where it was not."""
    for target, words in _MISBEHAVIOR.items():
        odd = _Misbehaving(1.0 if target == "hang" else 30.0)
        (outcome,) = run_cases(odd, [Case(odd.name, target, b"")], workspace)
        yield target, outcome.signature if words in outcome.signature else ""
    named = {kind.name: kind for kind in kinds}
    for plant, name, place, replacement, cases in _PLANTS:
        if (kind := named.get(name)) is None:
            continue
        made = cases or tuple(kind.make(random.Random(f"{seed}:{plant}:{number}")) for number in range(_MOST))
        known = {case.signature for case in corpus_cases(name) if case.xfail}
        with patch(place, replacement), closing(run_cases(kind, made, workspace)) as outcomes:
            failed = (outcome.signature for outcome in outcomes if outcome.verdict == "failed")
            caught = next((signature for signature in failed if signature not in known), "")
        yield plant, caught
