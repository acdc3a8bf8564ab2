"""The decision position in one forward pass per prompt: no sampling, no threshold, no judge.

refusal logit        ln P(r) − ln(1 − P(r)), where r is how a refusal starts, up to its first word: the model's own
                     log-odds of refusing at once
weakest logit        the same for the least likely token of r; if it is above 0, greedy decoding refuses at once
head probability     σ(φ(h)), the auxiliary head's decision, for systems with a head

r is several tokens: a direct refusal closes the thought before its first word; a refusal with a thought begins with
the words that all such thoughts share. One token would say little: a model may close the thought before every prompt
and decide afterwards, or begin every thought with "I".

The head reads the position and layer that it was trained at. A head that was trained at the thought's first token saw
the training target's token there; here it sees the token that the model itself finds most likely, in a second pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from presafe.internals.forward import padded_batches
from presafe.models.decision_head import DecisionHead, RefusalStart, read_states, start_log_odds, states_at
from presafe.models.loading import LoadedModel
from presafe.models.output import logits_of, need_own_logits
from presafe.models.rendering import RenderedPrompt

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


class DecisionScore(NamedTuple):
    """One prompt at the decision position."""

    refusal_logit: float
    weakest_logit: float
    head_probability: float | None
    """In [0, 1]; None without a head."""


class _DecisionBatch(NamedTuple):
    """Prompts, each with the opening of its thought and the start of a refusal, padded on the right."""

    indices: list[int]
    """Index of each row's prompt."""
    ids: Int[Tensor, "rows positions"]
    mask: Int[Tensor, "rows positions"]
    decision: Int[Tensor, " rows"]
    """Position of the last prompt token."""
    thought: Int[Tensor, " rows"]
    """Position of the thought's first token."""


def decision_scores(
    loaded: LoadedModel,
    texts: Sequence[str],
    start: RefusalStart,
    head: DecisionHead | None,
    *,
    batch_size: int = 32,
    on_finished: Callable[[int], None] = lambda _: None,
) -> list[DecisionScore]:
    """Score prompts with CoT on.

    Args:
        loaded: The model, its adapter merged.
        texts: The user prompts.
        start: How this model's refusals start.
        head: The auxiliary head of an aligned system, or None.
        batch_size: Rows per forward pass.
        on_finished: Called after each batch with the number of prompts it finished.

    Returns:
        One score per prompt, in order.

    Raises:
        ModelError: the head is not one of this model's size, or as `need_own_logits`.
    """
    import torch

    need_own_logits(loaded.model)
    if head is not None:
        head.need_fit(loaded.model)
    scores: dict[int, DecisionScore] = {}
    with torch.inference_mode():
        for batch in _decision_batches(loaded, _rendered(loaded, texts), start.shared, batch_size):
            output = _decode(loaded, batch.ids, batch.mask, head)
            logits = _thought_logits(loaded, output, batch, len(start.links))
            log_odds = torch.stack([start_log_odds(logits[:, i], tokens) for i, tokens in enumerate(start.links)])
            refusal_logits, weakest_logits = log_odds_of_all(log_odds), log_odds.min(0).values
            probabilities: list[float | None] = [None] * len(batch.indices)
            if head is not None:
                probabilities = [*_read_head(loaded, head, output, batch, logits[:, 0])]
            for row, index in enumerate(batch.indices):
                scores[index] = DecisionScore(
                    float(refusal_logits[row]), float(weakest_logits[row]), probabilities[row]
                )
            on_finished(len(batch.indices))
    return [scores[index] for index in range(len(texts))]


def head_probabilities(
    loaded: LoadedModel, texts: Sequence[str], head: DecisionHead, *, batch_size: int = 32
) -> list[float]:
    """Return what a head says about prompts with CoT on: the probability of a refusal, in [0, 1].

    Args:
        loaded: The model, its adapter merged.
        texts: The user prompts.
        head: The auxiliary head of the aligned system.
        batch_size: Rows per forward pass.

    Returns:
        One probability per prompt, in order.
    """
    return rendered_probabilities(loaded, _rendered(loaded, texts), head, batch_size=batch_size)


def rendered_probabilities(
    loaded: LoadedModel, prompts: Sequence[RenderedPrompt], head: DecisionHead, *, batch_size: int = 32
) -> list[float]:
    """Return what a head says about rendered prompts: the probability of a refusal, in [0, 1].

    Args:
        loaded: The model, its adapter merged.
        prompts: Token ids, and where the decision is read.
        head: The auxiliary head of the aligned system.
        batch_size: Rows per forward pass.

    Returns:
        One probability per prompt, in order.

    Raises:
        ModelError: the head is not one of this model's size.
    """
    import torch

    head.need_fit(loaded.model)
    probabilities: dict[int, float] = {}
    with torch.inference_mode():
        for batch in _decision_batches(loaded, prompts, (), batch_size):
            output = _decode(loaded, batch.ids, batch.mask, head)
            first_logits = _thought_logits(loaded, output, batch, 1)[:, 0]
            rows = _read_head(loaded, head, output, batch, first_logits)
            probabilities.update(zip(batch.indices, rows, strict=True))
    return [probabilities[index] for index in range(len(prompts))]


def _rendered(loaded: LoadedModel, texts: Sequence[str]) -> list[RenderedPrompt]:
    """Return texts of users as prompts with CoT on."""
    return [loaded.renderer.render(text, "on") for text in texts]


def _decision_batches(
    loaded: LoadedModel, rendered: Sequence[RenderedPrompt], shared: Sequence[int], batch_size: int
) -> Iterator[_DecisionBatch]:
    """Yield prompts in padded batches, each with its opening and the tokens that all refusals share."""
    import torch

    opening = loaded.renderer.opening_ids()
    sequences = [prompt.ids + opening + list(shared) for prompt in rendered]
    for indices, ids, mask in padded_batches(sequences, batch_size, loaded.model.device):
        decision = torch.tensor([rendered[index].decision_index for index in indices], device=ids.device)
        yield _DecisionBatch(indices, ids, mask, decision, decision + len(opening) + 1)


def _decode(loaded: LoadedModel, ids: Tensor, mask: Tensor, head: DecisionHead | None) -> Any:
    """Run the decoder once; keep the states of all layers if the head reads one of them."""
    needs_layers = head is not None and head.layer is not None
    return loaded.model.base_model(
        input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=needs_layers
    )


def _thought_logits(
    loaded: LoadedModel, output: Any, batch: _DecisionBatch, num: int
) -> Float[Tensor, "rows steps vocabulary"]:
    """Return the logits of the first `num` tokens of the thought, in float64."""
    import torch

    rows = torch.arange(len(batch.indices), device=batch.ids.device)
    positions = batch.thought[:, None] - 1 + torch.arange(num, device=batch.ids.device)
    return logits_of(loaded.model, output.last_hidden_state[rows[:, None], positions]).double()


def log_odds_of_all(log_odds: Float[Tensor, "steps rows"]) -> Float[Tensor, " rows"]:
    """Return the log-odds that every step happens, from the log-odds of each: ln P − ln(1 − P) with P = ∏ σ(step)."""
    import torch
    from torch.nn.functional import logsigmoid

    log_probability = logsigmoid(log_odds).sum(0)
    return log_probability - (-torch.expm1(log_probability)).log()


def _read_head(
    loaded: LoadedModel,
    head: DecisionHead,
    output: Any,
    batch: _DecisionBatch,
    first_logits: Float[Tensor, "rows vocabulary"],
) -> list[float]:
    """Return the head's probability for each row.

    Args:
        loaded: The model.
        head: The auxiliary head.
        output: Of the decoder, for the batch.
        batch: The prompts.
        first_logits: Of the thought's first token.
    """
    import torch
    from torch.nn.functional import pad

    if head.position == "thought_start":
        rows = torch.arange(len(batch.indices), device=batch.ids.device)
        ids, mask = pad(batch.ids, (0, 1)), pad(batch.mask, (0, 1))
        ids[rows, batch.thought] = first_logits.argmax(-1)
        mask[rows, batch.thought] = 1
        output = _decode(loaded, ids, mask, head)
    states = read_states(states_at(output, head.layer), head.position, batch.decision, batch.thought)
    probabilities: list[float] = head.probability(states).tolist()
    return probabilities
