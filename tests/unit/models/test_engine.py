"""The decoding loop against transformers' own, alone and in company, on a random Llama of two layers."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen3_5ForCausalLM, Qwen3_5TextConfig

from presafe.models.engine import Generation, generate_batch
from presafe.models.family import Sampling

GREEDY = Sampling()
WARM = Sampling(temperature=1.0, top_p=0.95, top_k=20)
NEVER = 64
"""Not in the vocabulary: a row with this stop token runs to its budget."""
PROMPTS = [[5, 6, 7], [9], [11, 12, 13, 14, 15, 16, 17], [20, 21], [5, 6, 7, 8], [33, 2, 60, 4, 41], [1], [62, 63]]
BUDGET = 12


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.6,  # wide, so that the most likely token wins by far and outputs differ
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).float().eval()


def decode(
    model: PreTrainedModel,
    prompts: list[list[int]],
    *,
    stop: int = NEVER,
    sampling: Sampling = GREEDY,
    seeds: list[int] | None = None,
    budget: int = BUDGET,
) -> list[Generation]:
    return generate_batch(
        model,
        prompts,
        max_new_tokens=budget,
        stop_ids=[stop],
        sampling=sampling,
        seeds=seeds if seeds is not None else [0] * len(prompts),
    )


def reference(model: PreTrainedModel, prompt: list[int], stop: int | None = None) -> list[int]:
    """Return what transformers' own loop writes after one prompt."""
    ids = torch.tensor([prompt])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=BUDGET,
        do_sample=False,
        eos_token_id=stop,
        pad_token_id=0,
    )
    ids_after: list[int] = out[0, len(prompt) :].tolist()
    return ids_after


@pytest.fixture(scope="module")
def greedy(model: LlamaForCausalLM) -> list[list[int]]:
    """Each prompt's greedy continuation, by transformers."""
    return [reference(model, prompt) for prompt in PROMPTS]


def a_stop_token(rows: list[list[int]]) -> int:
    """Return a token that ends some rows early, at different steps, and leaves others to their budget."""
    for token in range(64):
        where = {row.index(token) for row in rows if token in row}
        if len(where) >= 2 and min(where) < BUDGET - 2 and any(token not in row for row in rows):
            return token
    raise AssertionError("the tiny model offers no such token; choose another seed")


def test_the_tiny_model_is_worth_testing_on(greedy: list[list[int]]) -> None:
    assert len({tuple(row) for row in greedy}) == len(PROMPTS)
    assert all(len(set(row)) > 1 for row in greedy)


def test_each_prompt_alone_is_decoded_as_transformers_does(model: LlamaForCausalLM, greedy: list[list[int]]) -> None:
    for prompt, expected in zip(PROMPTS, greedy, strict=True):
        assert decode(model, [prompt]) == [Generation(expected, stopped=False)]


def test_batch_of_different_lengths_decodes_as_prompts_alone(model: LlamaForCausalLM, greedy: list[list[int]]) -> None:
    assert decode(model, PROMPTS) == [Generation(row, stopped=False) for row in greedy]


def test_a_row_that_stops_leaves_the_others_as_they_were(model: LlamaForCausalLM, greedy: list[list[int]]) -> None:
    # One of 8 rows is 1/8, so that rows are released from the cache at every stop.
    stop = a_stop_token(greedy)
    expected = [
        Generation(row[: row.index(stop) + 1], stopped=True) if stop in row else Generation(row, stopped=False)
        for row in greedy
    ]
    assert decode(model, PROMPTS, stop=stop) == expected


def test_stopping_is_as_in_transformers(model: LlamaForCausalLM, greedy: list[list[int]]) -> None:
    stop = a_stop_token(greedy)
    for prompt, generation in zip(PROMPTS, decode(model, PROMPTS, stop=stop), strict=True):
        assert generation.ids == reference(model, prompt, stop)


def test_rows_leave_layers_of_linear_attention_too() -> None:
    # Failed first: Qwen3.5's layers keep a state that does not grow, without the method that we took rows out by.
    torch.manual_seed(0)
    config = Qwen3_5TextConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        initializer_range=0.6,
    )
    assert set(config.layer_types) == {"linear_attention", "full_attention"}
    hybrid = Qwen3_5ForCausalLM(config).float().eval()
    stop = a_stop_token([reference(hybrid, prompt) for prompt in PROMPTS])
    for prompt, generation in zip(PROMPTS, decode(hybrid, PROMPTS, stop=stop), strict=True):
        assert generation.ids == reference(hybrid, prompt, stop)


def test_finished_rows_that_stay_in_the_cache_write_nothing(model: LlamaForCausalLM, greedy: list[list[int]]) -> None:
    # Of 24 rows 1 is less than 1/8: it stays in the batch after its stop and must write no more.
    stop = a_stop_token(greedy)
    stopping = next(prompt for prompt, row in zip(PROMPTS, greedy, strict=True) if stop in row)
    (running, row) = next((p, r) for p, r in zip(PROMPTS, greedy, strict=True) if stop not in r)
    generations = decode(model, [stopping] + [running] * 23, stop=stop)
    assert generations[0].ids == reference(model, stopping, stop)
    assert generations[0].stopped
    assert generations[1:] == [Generation(row, stopped=False)] * 23


def test_stop_token_at_the_end_of_the_budget_counts_as_stopped(
    model: LlamaForCausalLM, greedy: list[list[int]]
) -> None:
    stop = a_stop_token(greedy)
    prompt, row = next((p, r) for p, r in zip(PROMPTS, greedy, strict=True) if stop in r)
    budget = row.index(stop) + 1
    assert decode(model, [prompt], stop=stop, budget=budget) == [Generation(row[:budget], stopped=True)]
    if budget > 1:
        assert decode(model, [prompt], stop=stop, budget=budget - 1) == [Generation(row[: budget - 1], stopped=False)]


def test_every_row_is_reported_finished_once(model: LlamaForCausalLM, greedy: list[list[int]]) -> None:
    stop = a_stop_token(greedy)
    counts: list[int] = []
    generations = generate_batch(
        model,
        PROMPTS,
        max_new_tokens=BUDGET,
        stop_ids=[stop],
        sampling=GREEDY,
        seeds=[0] * len(PROMPTS),
        on_finished=counts.append,
    )
    assert sum(counts) == len(PROMPTS)
    # The last call reports those that the budget cut off; all before it are stops.
    cut = [row for row in generations if not row.stopped]
    assert len(cut) == sum(stop not in row for row in greedy) > 0
    assert counts[-1] == len(cut)


def test_a_sampled_row_does_not_depend_on_its_company(model: LlamaForCausalLM) -> None:
    seeds = list(range(100, 100 + len(PROMPTS)))
    together = decode(model, PROMPTS, sampling=WARM, seeds=seeds)
    alone = [decode(model, [p], sampling=WARM, seeds=[s])[0] for p, s in zip(PROMPTS, seeds, strict=True)]
    assert together == alone
    backwards = decode(model, PROMPTS[::-1], sampling=WARM, seeds=seeds[::-1])
    assert backwards[::-1] == together


def test_a_sampled_row_keeps_its_draws_when_others_stop(model: LlamaForCausalLM) -> None:
    seeds = list(range(100, 100 + len(PROMPTS)))
    rows = [row.ids for row in decode(model, PROMPTS, sampling=WARM, seeds=seeds)]
    stop = a_stop_token(rows)
    expected = [row[: row.index(stop) + 1] if stop in row else row for row in rows]
    assert [row.ids for row in decode(model, PROMPTS, stop=stop, sampling=WARM, seeds=seeds)] == expected


def test_another_seed_draws_another_text(model: LlamaForCausalLM) -> None:
    hot = Sampling(temperature=5.0)
    texts = {tuple(decode(model, [[5, 6, 7]], sampling=hot, seeds=[seed])[0].ids) for seed in range(5)}
    assert len(texts) == 5


@pytest.mark.parametrize(
    "narrow",
    [
        Sampling(temperature=3.0, top_k=1),
        Sampling(temperature=3.0, top_p=1e-6),
        # No recipe or family holds these: the engine takes them all the same.
        Sampling.model_construct(temperature=3.0, top_p=1e-9),
        Sampling.model_construct(temperature=3.0, top_p=1e-300),  # 0 in float32, in which it is compared
        Sampling.model_construct(temperature=1e-40),  # logits divided by it are infinite
        Sampling.model_construct(temperature=1e-5),
    ],
    ids=["top_k", "least_top_p", "top_p", "tiny_top_p", "tiny_temperature", "small_temperature"],
)
def test_the_narrowest_sampling_is_greedy(model: LlamaForCausalLM, greedy: list[list[int]], narrow: Sampling) -> None:
    rows = decode(model, PROMPTS, sampling=narrow, seeds=list(range(len(PROMPTS))))
    assert [row.ids for row in rows] == greedy


def first_tokens(model: LlamaForCausalLM, sampling: Sampling, n: int) -> list[int]:
    rows = decode(model, [[5, 6, 7]] * n, sampling=sampling, seeds=list(range(n)), budget=1)
    return [row.ids[0] for row in rows]


def probabilities(model: LlamaForCausalLM, temperature: float) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([[5, 6, 7]])).logits[0, -1]
    return (logits / temperature).softmax(-1)


def test_tokens_are_drawn_as_often_as_their_probability_says(model: LlamaForCausalLM) -> None:
    # At temperature 4. Over 2,000 draws a share p is within 5 · √(p(1−p)/2000) ≤ 0.056.
    p = probabilities(model, 4.0)
    drawn = torch.bincount(torch.tensor(first_tokens(model, Sampling(temperature=4.0), 2000)), minlength=64) / 2000
    assert torch.allclose(drawn, p, atol=0.056)
    assert int(drawn.argmax()) == int(p.argmax())
    assert float(p.max()) < 0.9  # else drawing would say nothing


def test_top_k_and_top_p_draw_from_their_set_only(model: LlamaForCausalLM) -> None:
    p, order = probabilities(model, 4.0).sort(descending=True)
    three = set(order[:3].tolist())
    assert set(first_tokens(model, Sampling(temperature=4.0, top_k=3), 300)) == three
    # A nucleus is the fewest tokens whose mass reaches top_p: just above the mass of two, that is three.
    just_above = float(p[:2].sum()) + 1e-4
    assert set(first_tokens(model, Sampling(temperature=4.0, top_p=just_above), 300)) == three
    just_below = float(p[:2].sum()) - 1e-4
    assert set(first_tokens(model, Sampling(temperature=4.0, top_p=just_below), 300)) == set(order[:2].tolist())
