"""Hidden states where a response begins: one forward pass per prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from presafe.internals.forward import padded_batches
from presafe.models.loading import LoadedModel
from presafe.records import Thinking

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float


def hidden_states(
    loaded: LoadedModel,
    texts: Sequence[str],
    thinking: Thinking,
    *,
    batch_size: int = 32,
    on_finished: Callable[[int], None] = lambda _: None,
) -> Float[np.ndarray, "prompts layers hidden"]:
    """Return the states at the last prompt token after every block; the last block's are after the final norm.

    With CoT on, this is the decision position. With CoT off, the states are those where the answer begins. Where the
    prompt with CoT off starts with the one with CoT on, the decision position has the same states in both modes.

    Args:
        loaded: The model, its adapter merged.
        texts: The user prompts.
        thinking: CoT mode.
        batch_size: Rows per forward pass.
        on_finished: Called after each forward pass with the number of prompts it finished.

    Returns:
        float32, on the CPU.
    """
    import numpy as np
    import torch

    sequences = [loaded.renderer.render(text, thinking).ids for text in texts]
    config = loaded.model.config.get_text_config()
    all_states = np.zeros((len(texts), config.num_hidden_layers, config.hidden_size), dtype=np.float32)
    with torch.inference_mode():
        for indices, ids, mask in padded_batches(sequences, batch_size, loaded.model.device):
            output = loaded.model.base_model(
                input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=True
            )
            rows, last = torch.arange(len(indices), device=ids.device), mask.sum(-1) - 1
            layers = output.hidden_states[1:]  # [0] holds the embeddings
            last_states = [states[rows, last].float().cpu() for states in layers]
            all_states[indices] = torch.stack(last_states, dim=1).numpy()
            on_finished(len(indices))
    return all_states
