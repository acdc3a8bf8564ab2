"""Hidden states where a response begins: one forward pass a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from presafe.evaluation.forward import batches
from presafe.models.loading import LoadedModel
from presafe.records import Prompt, Thinking

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float


def hidden_states(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    thinking: Thinking,
    *,
    batch_size: int = 32,
    on_finished: Callable[[int], None] = lambda _: None,
) -> Float[np.ndarray, "prompts layers hidden"]:
    """States at the last prompt token, after every block, the last one's after the final norm.

    With CoT on that is the decision position. off(x) goes on from on(x), so that the decision position has the very
    same states in both modes; with CoT off, where the answer begins is read instead.

    Args:
        loaded: The model, its adapter merged.
        prompts: What is asked.
        thinking: Mode in which it is asked.
        batch_size: Rows a forward pass.
        on_finished: Told how many prompts each forward pass finished.

    Returns:
        float32, on the CPU.
    """
    import numpy as np
    import torch

    sequences = [loaded.renderer.render(prompt.text, thinking).ids for prompt in prompts]
    config = loaded.model.config.get_text_config()
    found = np.zeros((len(prompts), config.num_hidden_layers, config.hidden_size), dtype=np.float32)
    with torch.inference_mode():
        for indices, ids, mask in batches(sequences, batch_size, loaded.model.device):
            output = loaded.model.base_model(
                input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=True
            )
            rows, last = torch.arange(len(indices), device=ids.device), mask.sum(-1) - 1
            read = [states[rows, last].float().cpu() for states in output.hidden_states[1:]]  # [0]: the embeddings
            found[indices] = torch.stack(read, dim=1).numpy()
            on_finished(len(indices))
    return found
