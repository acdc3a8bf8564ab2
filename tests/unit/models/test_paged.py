"""Continuous batching, on a CPU, where transformers can do it too: the loop's answers, whatever the company."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, PreTrainedConfig, Qwen3_5TextConfig
from transformers.generation.continuous_batching import ContinuousBatchingManager, RequestState
from transformers.generation.continuous_batching.continuous_api import BackgroundThreadStatus

from presafe.errors import ModelError
from presafe.models import cache, paged
from presafe.models.batching import LocalEngine
from presafe.models.cache import PAGE, can_page
from presafe.models.draw import draw
from presafe.models.exchange import Completion, Request
from presafe.models.family import Sampling
from presafe.models.loading import LoadedModel
from presafe.models.paged import SeededDraw

GREEDY, WARM = Sampling(), Sampling(temperature=2.0, top_p=0.95, top_k=20)
STOP = 30
NEVER = 64
"""Not in the vocabulary: a row with this stop token runs to its budget."""
PROMPTS = [[5, 6, 7], [9], [11, 12, 13, 14, 15, 16, 17], [20, 21], [5, 6, 7, 8], [33, 2, 60, 4, 41], [1], [62, 63]]
LLAMA = LlamaConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    initializer_range=0.6,  # wide, so that the most likely token wins by far and outputs differ
    tie_word_embeddings=False,
)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    """Return a random Llama whose tokenizer spells ids as numbers."""
    torch.manual_seed(0)
    renderer = Mock()
    renderer.stop_ids.return_value = [STOP]
    renderer.tokenizer.decode = lambda ids: " ".join(map(str, ids))
    return LoadedModel(LlamaForCausalLM(LLAMA).float().eval(), renderer)


@pytest.fixture
def never_stops(loaded: LoadedModel) -> Iterator[None]:
    renderer: Any = loaded.renderer
    renderer.stop_ids.return_value = [NEVER]
    yield
    renderer.stop_ids.return_value = [STOP]


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every prompt is decoded in pages, as on a GPU; the prompts that were."""
    monkeypatch.setattr(cache, "can_page", lambda *_: True)
    monkeypatch.setattr(gc, "collect", lambda: 0)  # a second each time, with all that tests have imported
    asked: list[str] = []
    decode = paged.PagedDecoder.complete

    async def noted(self: paged.PagedDecoder, request: Request) -> object:
        asked.append(str(request.ids))
        return await decode(self, request)

    monkeypatch.setattr(paged.PagedDecoder, "complete", noted)
    return asked


def requests_of(sampling: Sampling, max_tokens: int = 12) -> list[Request]:
    return [Request(ids, max_tokens, sampling, seed=100 + i) for i, ids in enumerate(PROMPTS)]


def complete(
    loaded: LoadedModel, requests: list[Request], *, batch_size: int = 8, num_pages: int = 8
) -> list[Completion]:
    async def together() -> list[Completion]:
        engine = LocalEngine(lambda: loaded, batch_size, num_pages * PAGE)
        finished: list[int] = []
        engine.on_finished = finished.append
        completions = await asyncio.gather(*(engine.complete(request) for request in requests))
        assert sum(finished) == len(requests)
        return completions

    return asyncio.run(together())


@pytest.fixture(scope="module")  # before a test has pages
def by_the_loop(loaded: LoadedModel) -> list[Completion]:
    return complete(loaded, requests_of(GREEDY))


def test_greedy_answers_are_those_of_the_loop(
    loaded: LoadedModel, by_the_loop: list[Completion], pages: list[str]
) -> None:
    # Two rows at a time: each of the other six takes the place of one that has ended.
    assert complete(loaded, requests_of(GREEDY), batch_size=2) == by_the_loop
    assert {completion.stopped for completion in by_the_loop} == {True, False}
    assert sorted(pages) == sorted(map(str, PROMPTS))


@pytest.fixture(scope="module")
def sampled_by_the_loop(loaded: LoadedModel) -> list[Completion]:
    return complete(loaded, requests_of(WARM))


def test_a_sampled_answer_does_not_depend_on_its_company(
    loaded: LoadedModel, sampled_by_the_loop: list[Completion], pages: list[str]
) -> None:
    requests = requests_of(WARM)
    together = complete(loaded, requests)
    assert together == sampled_by_the_loop
    assert sorted(pages) == sorted(map(str, PROMPTS))
    assert len({completion.text for completion in together}) == len(PROMPTS)
    assert complete(loaded, requests[::-1])[::-1] == together
    assert complete(loaded, requests, batch_size=2) == together
    assert [complete(loaded, [request])[0] for request in requests] == together
    other = [request._replace(seed=request.seed + 100) for request in requests]
    assert all(one != two for one, two in zip(complete(loaded, other), together, strict=True))


@pytest.mark.usefixtures("never_stops", "pages")
def test_row_put_off_and_read_again_draws_the_same_tokens(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    put_off = []
    again = RequestState.create_equivalent_initial_request

    def noted(state: RequestState) -> RequestState:
        put_off.append(state.request_id)
        return again(state)

    monkeypatch.setattr(RequestState, "create_equivalent_initial_request", noted)
    # Each comes to need two pages: three hold all prompts, but only one whole row.
    long = requests_of(WARM, max_tokens=260)[:3]
    enough = complete(loaded, long, num_pages=6)
    assert not put_off
    assert complete(loaded, long, num_pages=3) == enough
    assert put_off


@pytest.mark.usefixtures("pages")
def test_two_ways_of_sampling_take_turns(loaded: LoadedModel, by_the_loop: list[Completion]) -> None:
    warm = complete(loaded, requests_of(WARM)[:3])
    mixed = complete(loaded, [*requests_of(GREEDY), *requests_of(WARM)[:3]])
    assert mixed == [*by_the_loop, *warm]


@pytest.mark.usefixtures("pages")
def test_budgets_may_differ(loaded: LoadedModel, by_the_loop: list[Completion]) -> None:
    requests = [request._replace(max_tokens=1 + i) for i, request in enumerate(requests_of(GREEDY))]
    for i, (completion, whole) in enumerate(zip(complete(loaded, requests), by_the_loop, strict=True)):
        assert completion.num_tokens == min(1 + i, whole.num_tokens)
        assert whole.text.startswith(completion.text)
        assert completion.stopped == (whole.stopped and completion.num_tokens == whole.num_tokens)


@pytest.mark.usefixtures("pages", "never_stops")
def test_one_that_is_cancelled_leaves_the_others_as_they_were(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = requests_of(WARM, max_tokens=200)[:3]
    told: list[str] = []

    def noted(self: Any, name: str) -> None:
        told.append(name)
        self.cancel_queue.put(name)

    monkeypatch.setattr(ContinuousBatchingManager, "cancel_request", noted)

    async def without_the_second() -> list[Completion | BaseException]:
        engine = LocalEngine(lambda: loaded, 8, 8 * PAGE)
        tasks = [asyncio.create_task(engine.complete(request)) for request in requests]
        await asyncio.sleep(0.1)
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, second, third = asyncio.run(without_the_second())
    assert isinstance(second, asyncio.CancelledError)
    assert told == ["1"]  # so that it is not decoded to its end
    assert [first, third] == complete(loaded, [requests[0], requests[2]])


@pytest.mark.usefixtures("pages")
def test_failure_reaches_every_prompt_and_the_next_are_decoded(
    loaded: LoadedModel, by_the_loop: list[Completion], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    async def together() -> list[Completion | BaseException]:
        engine = LocalEngine(lambda: loaded, 2, 8 * PAGE)
        with monkeypatch.context() as broken:
            broken.setattr(loaded.model.model, "forward", fail)
            tried = await asyncio.gather(*map(engine.complete, requests_of(GREEDY)), return_exceptions=True)
        assert len(tried) == len(PROMPTS)
        for error in tried:
            assert isinstance(error, ModelError)
            assert "out of memory" in error.problem
            assert "lower `batch_tokens`" in error.hint
        return await asyncio.gather(*map(engine.complete, requests_of(GREEDY)))

    assert asyncio.run(together()) == by_the_loop


@pytest.mark.usefixtures("pages")
def test_prompt_just_after_the_end_does_not_wait_forever(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_late(self: ContinuousBatchingManager, *_: object, request_id: str, **__: object) -> str:
        self.background_thread_status.request_stop(BackgroundThreadStatus.HARD_STOP, 0)
        return request_id  # and the queue was emptied before

    monkeypatch.setattr(ContinuousBatchingManager, "add_request", too_late)
    monkeypatch.setattr(paged, "_POLL_S", 0.05)
    engine = LocalEngine(lambda: loaded, 2, 8 * PAGE)
    with pytest.raises(ModelError, match="continuous batching ended: it takes no more prompts"):
        asyncio.run(asyncio.wait_for(engine.complete(requests_of(GREEDY)[0]), 20))


def test_the_model_is_left_as_it_was(loaded: LoadedModel, pages: list[str]) -> None:
    complete(loaded, requests_of(GREEDY)[:1])
    assert pages
    assert loaded.model.config._attn_implementation == "sdpa"
    with torch.no_grad():
        assert loaded.model(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, 64)


def model_on(device: str, config: PreTrainedConfig = LLAMA) -> SimpleNamespace:
    return SimpleNamespace(device=torch.device(device), config=config)


def test_what_is_decoded_in_pages() -> None:
    assert can_page(model_on("cuda"), 512, 2 * PAGE)
    assert not can_page(model_on("cuda"), 512, 2 * PAGE - 1)  # 512 tokens take two pages
    assert not can_page(model_on("cpu"), 512, 2 * PAGE)
    assert not can_page(model_on("cuda", MistralConfig(sliding_window=16)), 512, 2 * PAGE)
    assert not can_page(model_on("cuda", Qwen3_5TextConfig()), 512, 2 * PAGE)


def test_only_the_drawn_token_is_left() -> None:
    scores = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    keys = torch.tensor([1, -2, 3, 0, 0], dtype=torch.int32)  # as wide as the largest batch
    left = SeededDraw(WARM)(scores, keys)
    assert left.argmax(-1).tolist() == draw(scores, WARM, keys[:3]).tolist()
    assert left.isfinite().sum(-1).tolist() == [1, 1, 1]
