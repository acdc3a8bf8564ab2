"""How unlikely each token of a text is under a model: −ln P(token | the tokens before it), in nats."""

from __future__ import annotations

from collections.abc import Sequence

from presafe.internals.forward import padded_batches
from presafe.models.loading import LoadedModel

_BATCH = 32


def surprises(loaded: LoadedModel, texts: Sequence[str]) -> list[list[float]]:
    """Return −ln P of each token of each text, read alone and without a template.

    Args:
        loaded: The model.
        texts: The texts. A text begins with the tokenizer's token for the beginning or, without one, for the end of a
            text, so that its first token has a probability, too.

    Returns:
        One list per text, with one number per token, at least 0.
    """
    import torch

    tokenizer = loaded.renderer.tokenizer
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    sequences = [[start, *loaded.renderer.text_ids(text)] for text in texts]
    read: dict[int, list[float]] = {}
    with torch.inference_mode():
        for batch in padded_batches(sequences, _BATCH, loaded.model.device):
            logits = loaded.model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits
            chosen = batch.ids[:, 1:, None]
            log_probabilities = logits[:, :-1].float().log_softmax(-1).gather(-1, chosen)[..., 0]
            for row, index in enumerate(batch.indices):
                read[index] = (-log_probabilities[row, : len(sequences[index]) - 1]).tolist()
    return [read[index] for index in range(len(sequences))]
