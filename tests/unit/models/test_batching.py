"""Which requests are decoded together, and that what a prompt gets does not depend on it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from presafe.models.batching import LocalEngine, choose_batch
from presafe.models.exchange import Completion, Request
from presafe.models.family import Sampling
from presafe.models.loading import LoadedModel

GREEDY, WARM = Sampling(), Sampling(temperature=1.0, top_p=0.95)


def request(length: int, *, max_tokens: int = 10, sampling: Sampling = GREEDY, seed: int = 0) -> Request:
    return Request([1] * length, max_tokens, sampling, seed)


def test_the_longest_that_fit_the_budget_go_first() -> None:
    # 20 + 10 tokens a row: 100 tokens hold three rows. Then 8 + 10: five rows, but only two are left.
    waiting = [request(5), request(20), request(8), request(19), request(12)]
    assert choose_batch(waiting, max_rows=64, max_tokens=100) == [1, 3, 4]
    assert choose_batch([waiting[0], waiting[2]], max_rows=64, max_tokens=100) == [1, 0]


def test_rows_are_bounded_too() -> None:
    assert choose_batch([request(5), request(7), request(6)], max_rows=2, max_tokens=10**6) == [1, 2]


def test_a_prompt_over_the_budget_is_decoded_alone() -> None:
    assert choose_batch([request(5), request(500)], max_rows=64, max_tokens=100) == [1]


def test_only_equal_settings_share_a_batch_whatever_the_order() -> None:
    waiting = [request(5, seed=3), request(9, sampling=WARM), request(5, seed=4), request(9, max_tokens=11)]
    assert choose_batch(waiting, 64, 10**6) == [1]
    tied = [waiting[0], waiting[2]]
    assert [tied[i].seed for i in choose_batch(tied, 64, 10**6)] == [4, 3]
    assert [tied[::-1][i].seed for i in choose_batch(tied[::-1], 64, 10**6)] == [4, 3]
    assert choose_batch([], 64, 100) == []


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


def test_a_failure_reaches_every_request_of_the_batch(loaded: LoadedModel) -> None:
    broken = LoadedModel(SimpleNamespace(device=torch.device("cpu")), loaded.renderer)

    async def together() -> list[Completion | BaseException]:
        engine = LocalEngine(lambda: broken, 64, 10**6)
        return await asyncio.gather(*map(engine.complete, (request(3), request(4))), return_exceptions=True)

    first, second = asyncio.run(together())
    assert isinstance(first, AttributeError)  # it has no config
    assert first is second
