"""Answers that are kept for their judge: what a kill cut is asked again, and what is kept is answered from the file."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from tiny_models import make_model, renderer, tokenizer  # noqa: F401

from presafe.errors import RunError
from presafe.models.batching import LocalEngine
from presafe.models.exchange import Completion, Engine, Request, UnansweredError
from presafe.models.family import Sampling
from presafe.models.kept import KeptAnswers, KeptEngine
from presafe.models.loading import LoadedModel
from presafe.models.rendering import Renderer

REFUSED = "it is too long"


class CountingEngine(LocalEngine):
    """Counts what it is asked, and refuses the prompt of seed 9, as a server may."""

    num_asked = 0

    async def complete(self, request: Request) -> Completion:
        self.num_asked += 1
        if request.seed == 9:
            raise UnansweredError(REFUSED, "Shorten it.")
        return await super().complete(request)


@pytest.fixture
def engine(renderer: Renderer) -> CountingEngine:  # noqa: F811
    loaded = LoadedModel(make_model(), renderer)
    return CountingEngine(lambda: loaded, batch_size=4, batch_tokens=10_000)


@pytest.fixture
def requests(renderer: Renderer) -> list[Request]:  # noqa: F811
    return [Request(renderer.render(text, "on").ids, 6, Sampling(), seed=0) for text in ("one", "two", "three")]


def ask(engine: Engine, requests: Sequence[Request]) -> list[Completion]:
    async def gathered() -> list[Completion]:
        return list(await asyncio.gather(*map(engine.complete, requests)))

    return asyncio.run(gathered())


def test_what_a_kill_cut_is_asked_again(
    engine: CountingEngine, requests: list[Request], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = ask(engine, requests)
    assert ask(KeptAnswers(tmp_path).kept_by(engine), requests) == plain
    part, whole = tmp_path / "answers.part.jsonl", tmp_path / "answers.jsonl"
    part.write_bytes(part.read_bytes()[:-20])  # a kill in the middle of the third line
    kept = KeptAnswers(tmp_path)
    assert "answers.part.jsonl: 1 of 3 lines are damaged, and are asked again." in capsys.readouterr().err
    assert not kept.is_finished
    engine.num_asked = 0
    assert ask(kept.kept_by(engine), requests) == plain
    assert engine.num_asked == 1
    kept.finish()
    assert not part.exists()
    again = KeptAnswers(tmp_path)
    assert again.is_finished
    assert ask(KeptEngine(engine.ready(), again, 4), requests) == plain
    assert engine.num_asked == 1
    again.delete()
    assert not whole.exists()


@pytest.mark.parametrize("damage", [b"\xff{}", b'{"request": 1}', b"", b'"ids":[99999999999999999999]'])
def test_a_damaged_line_costs_its_own_answer_only(
    damage: bytes, engine: CountingEngine, requests: list[Request], tmp_path: Path
) -> None:
    kept = KeptAnswers(tmp_path)
    plain = ask(kept.kept_by(engine), requests)
    kept.finish()
    whole = tmp_path / "answers.jsonl"
    first, second, third = whole.read_bytes().splitlines()
    if damage.startswith(b'"ids"'):
        damage = re.sub(rb'"ids":\[[^]]*\]', damage, second)
        assert damage != second
    whole.write_bytes(b"\n".join([first, damage, third]) + b"\n")
    again = KeptAnswers(tmp_path)
    assert not again.is_finished
    engine.num_asked = 0
    assert ask(again.kept_by(engine), requests) == plain
    assert engine.num_asked == 1
    assert [answer is not None for answer in map(KeptAnswers(tmp_path).get, requests)] == [True] * 3


def test_other_requests_are_not_answered_from_the_file(
    engine: CountingEngine, requests: list[Request], tmp_path: Path
) -> None:
    kept = KeptAnswers(tmp_path)
    ask(kept.kept_by(engine), requests[:1])
    replayed = KeptEngine(engine.ready(), kept, 4)
    warm = Sampling(temperature=1.0)
    for other in (requests[1], requests[0]._replace(max_tokens=5), requests[0]._replace(sampling=warm, seed=1)):
        with pytest.raises(RunError, match="was not kept"):
            ask(replayed, [other])


def test_a_prompt_that_was_refused_stays_refused(
    engine: CountingEngine, requests: list[Request], tmp_path: Path
) -> None:
    kept, refused = KeptAnswers(tmp_path), requests[0]._replace(seed=9)
    for _ in range(2):
        with pytest.raises(UnansweredError, match=REFUSED):
            ask(kept.kept_by(engine), [refused])
    with pytest.raises(UnansweredError, match=REFUSED):
        ask(KeptEngine(engine.ready(), KeptAnswers(tmp_path), 4), [refused])
    assert engine.num_asked == 1
