"""Which requests are decoded together, and that what a prompt gets does not depend on it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from presafe.models import engine, sharing
from presafe.models.batching import LocalEngine, choose_next
from presafe.models.exchange import Completion, Request
from presafe.models.family import Sampling
from presafe.models.loading import LoadedModel

GREEDY, WARM = Sampling(), Sampling(temperature=1.0, top_p=0.95)


def request(length: int, *, max_tokens: int = 10, sampling: Sampling = GREEDY, seed: int = 0) -> Request:
    return Request([1] * length, max_tokens, sampling, seed)


def test_the_longest_that_fit_the_budget_go_first() -> None:
    # 20 + 10 tokens a row: 100 tokens hold three rows. Then 8 + 10: five rows, but only two are left.
    waiting = [request(5), request(20), request(8), request(19), request(12)]
    assert choose_next(waiting, [], max_rows=64, max_tokens=100) == [1, 3, 4]
    assert choose_next([waiting[0], waiting[2]], [], max_rows=64, max_tokens=100) == [1, 0]


def test_rows_are_bounded_too() -> None:
    assert choose_next([request(5), request(7), request(6)], [], max_rows=2, max_tokens=10**6) == [1, 2]


def test_a_prompt_over_the_budget_is_decoded_alone() -> None:
    assert choose_next([request(5), request(500)], [], max_rows=64, max_tokens=100) == [1]


def test_only_equal_settings_share_a_batch_whatever_the_order() -> None:
    waiting = [request(5, seed=3), request(9, sampling=WARM), request(5, seed=4), request(9, max_tokens=11)]
    assert choose_next(waiting, [], 64, 10**6) == [1]
    tied = [waiting[0], waiting[2]]
    assert [tied[i].seed for i in choose_next(tied, [], 64, 10**6)] == [4, 3]
    assert [tied[::-1][i].seed for i in choose_next(tied[::-1], [], 64, 10**6)] == [4, 3]
    assert choose_next([], [], 64, 100) == []


def test_prompts_that_begin_alike_are_neighbors() -> None:
    on, off = Request([5, 6], 10, GREEDY, 1), Request([5, 6, 7, 8, 9], 10, GREEDY, 2)
    other, again = Request([1, 2, 3], 10, GREEDY, 3), on._replace(seed=4)
    # By length alone, `other` would come between the prompt with CoT off and its two answers with CoT on.
    assert choose_next([on, other, off, again], [], 64, 10**6) == [2, 3, 0, 1]


def test_places_are_filled_once_an_eighth_is_free() -> None:
    waiting = [request(5, seed=1), request(5, seed=2), request(9, sampling=WARM)]
    # Of 16 rows 15 run: one free place is less than 2.
    assert choose_next(waiting, [request(5)] * 15, 16, 10**6) == []
    assert choose_next(waiting, [request(5)] * 14, 16, 10**6) == [1, 0]
    assert choose_next(waiting, [request(5, sampling=WARM)] * 8, 16, 10**6) == [2]


def test_running_rows_count_towards_the_budget() -> None:
    # 5 + 10 tokens a row: with two running rows of the same size, 60 tokens hold four.
    assert len(choose_next([request(5)] * 9, [request(5)] * 2, 64, 60)) == 2
    # A row of 25 tokens would make all rows as large: 3 × 25 > 60.
    assert choose_next([request(15)], [request(5)] * 2, 64, 60) == []


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    """Return a random Llama whose tokenizer spells ids as numbers."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.6,
        tie_word_embeddings=False,
    )
    renderer = Mock()
    renderer.stop_ids.return_value = [7]
    renderer.tokenizer.decode = lambda ids: " ".join(map(str, ids))
    return LoadedModel(LlamaForCausalLM(config).float().eval(), renderer)


def complete(loaded: LoadedModel, requests: list[Request], batch_size: int, batch_tokens: int) -> list[Completion]:
    async def together() -> list[Completion]:
        engine = LocalEngine(lambda: loaded, batch_size, batch_tokens)
        return await asyncio.gather(*(engine.complete(request) for request in requests))

    return asyncio.run(together())


def test_what_is_sampled_does_not_depend_on_the_batches(loaded: LoadedModel) -> None:
    warm = Sampling(temperature=2.0)
    requests = [Request([3 + i, 9, 11][: 1 + i % 3], 8, warm, seed=100 + i) for i in range(9)]
    together = complete(loaded, requests, batch_size=64, batch_tokens=10**6)
    # 3 + 8 tokens a row: 22 hold two rows.
    assert complete(loaded, requests, batch_size=64, batch_tokens=22) == together
    assert complete(loaded, requests, batch_size=1, batch_tokens=1) == together
    assert complete(loaded, requests[::-1], batch_size=4, batch_tokens=10**6) == together[::-1]
    assert len({completion.text for completion in together}) == 9


SENTENCE = [*range(20, 50)]
"""The beginning of prompts that share it, long enough for `sharing`."""


def test_waiting_prompts_take_the_places_of_finished_ones(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    # Answers of 1 to 24 tokens, prompts of 1 to 40; three rows at a time, of which the last ones come when others have
    # written much. Some prompts begin with others, some are the same with another seed.
    joined: list[tuple[int, int]] = []
    add = engine._Batch.add

    def noted(self: engine._Batch, requests: list[Request]) -> list[engine.Finished]:
        joined.append((len(self.running()), len(requests)))
        return add(self, requests)

    monkeypatch.setattr(engine._Batch, "add", noted)
    warm = Sampling(temperature=2.0, top_p=0.9)
    prompts = [[3 + i, 9, 11, *range(i)] for i in range(6)] + [[9]]
    prompts += [SENTENCE, [*SENTENCE, 5], [*SENTENCE, 6, 8], SENTENCE, [*SENTENCE, *range(8, 18)], SENTENCE[:20]]
    requests = [Request(ids, 1 + (7 * i) % 24, warm, seed=100 + i) for i, ids in enumerate(prompts)]
    alone = [complete(loaded, [each], 1, 1)[0] for each in requests]
    joined.clear()
    assert complete(loaded, requests, batch_size=3, batch_tokens=10**6) == alone
    assert len(joined) > 4
    assert all(running for running, _ in joined[1:])  # the batch never ran empty before it was filled
    greedy = [each._replace(sampling=GREEDY) for each in requests]
    assert complete(loaded, greedy, 3, 10**6) == [complete(loaded, [each], 1, 1)[0] for each in greedy]


def test_a_common_beginning_is_read_once(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[tuple[int, int]] = []
    forward = loaded.model.forward

    def noted(*args: object, **kwargs: Any) -> object:
        fed.append(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    monkeypatch.setattr(loaded.model, "forward", noted)
    requests = [Request(SENTENCE, 4, WARM, seed) for seed in range(4)] + [Request([*SENTENCE, 5, 6], 4, WARM, 9)]
    together = complete(loaded, requests, 8, 10**6)
    # The longest prompt is read; of each other only its last token. Then come at most three tokens of five rows.
    assert fed[:2] == [(1, 32), (4, 1)]
    assert all(shape[1] == 1 for shape in fed[2:])
    monkeypatch.setattr(sharing, "_WORTH", 10**6)
    assert complete(loaded, requests, 8, 10**6) == together


def test_a_failure_reaches_every_request_of_the_batch(loaded: LoadedModel) -> None:
    broken = LoadedModel(SimpleNamespace(device=torch.device("cpu")), loaded.renderer)

    async def together() -> list[Completion | BaseException]:
        engine = LocalEngine(lambda: broken, 64, 10**6)
        return await asyncio.gather(*map(engine.complete, (request(3), request(4))), return_exceptions=True)

    first, second = asyncio.run(together())
    assert isinstance(first, AttributeError)  # it has no config
    assert first is second
