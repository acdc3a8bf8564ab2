"""Prompts that do not fit the model's context are refused before the first token; the bound is that of the config."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import LlamaConfig, MambaConfig, Qwen3Config

from presafe.config.recipe import ModelSettings
from presafe.errors import PromptError
from presafe.models.context import check_context, context_length
from presafe.models.sampling import Sampler, sample_responses
from presafe.records import Prompt


def prompt(text: str, number: int = 1) -> Prompt:
    return Prompt(id=f"mine-{number}", text=text, category="none", split="x", license="x", expect="comply")


def word_lengths(text: str) -> list[int]:
    """Return one token id per word."""
    return [len(word) for word in text.split()]


@pytest.mark.parametrize(
    ("rope", "length"),
    [
        (None, 40_960),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768}, 131_072),  # 4 · 32,768
        ({"rope_type": "linear", "factor": 2.0}, 81_920),  # 2 · 40,960
        # the config names the stretched length already: 1.1 · 32,768 = 36,044 is below it
        ({"rope_type": "yarn", "factor": 1.1, "original_max_position_embeddings": 32_768}, 40_960),
    ],
)
def test_context_is_the_configs_stretched_as_its_positions(rope: dict[str, object] | None, length: int) -> None:
    config = Qwen3Config(max_position_embeddings=40_960)
    if rope is not None:
        config.rope_parameters = {"rope_theta": 1e6, **rope}
    assert context_length(config) == length


def test_a_model_without_positions_has_no_bound() -> None:
    assert context_length(MambaConfig()) is None
    assert context_length(LlamaConfig(max_position_embeddings=2048)) == 2048


def test_prompt_and_budget_may_fill_the_context() -> None:
    prompts = {"one": "a b", "two": "a", "three": "a b c"}  # 2, 1 and 3 tokens
    check_context(prompts, word_lengths, 7, 10)
    check_context(prompts, word_lengths, 10**9, None)
    with pytest.raises(PromptError, match=r"1 of 3 .* context of 10 tokens: the longest, three, has 3, and"):
        check_context(prompts, word_lengths, 8, 10)
    with pytest.raises(PromptError, match="Lower `max_tokens` to at most 7"):
        check_context(prompts, word_lengths, 8, 10)
    with pytest.raises(PromptError, match=r"3 of 3 .*Leave out the prompts"):
        check_context(prompts, word_lengths, 8, 2)


def test_nothing_is_sampled_where_a_prompt_does_not_fit(tmp_path: Path) -> None:
    # SmolLM2's config: 8,192 positions. Failed first: the long prompt was sampled, beyond what the model knows.
    sampler = Sampler(
        ModelSettings(address="smolthink"), "on", None, batch_size=1, batch_tokens=65_536, max_tokens=4, seed=0
    )
    suites = {"mine": [prompt("What is 2 + 2?"), prompt("one two " * 5_000, 2)]}
    with pytest.raises(PromptError, match=r"1 of 2 prompts do not fit the model's context of 8,192 tokens: .*mine-2"):
        sample_responses("mine", suites, {"mine": []}, sampler, tmp_path)
    assert not list(tmp_path.rglob("*.eval"))
