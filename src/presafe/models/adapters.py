"""A PEFT adapter on a model: every weight of its file in its place, and what is merged computes what was trained.

PEFT warns of weights that are missing and says nothing of those that find no place, and a merge into tied weights
changes the embedding, too. Either way the measured model would not be the trained one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from presafe.errors import ModelError
from presafe.models.checks import first_line, need_finite, need_finite_model, probe, read_object, reading
from presafe.runtime.launcher import weights_are_sharded

_ANOTHER = "Name the model that it was trained on, or export it again."
_MERGE_TOLERANCE = 0.1
"""Largest difference of merged and adapted logits, as a share of the largest logit. Rounding in bfloat16 makes about a
hundredth; weights that were merged in a wrong place make one of the order of the logits.
"""


def need_adapter(folder: Path) -> None:
    """Check, before weights are loaded, that a folder holds an adapter that can be merged and whose file is whole.

    Raises:
        ModelError: it holds none that can be read, one of a type that cannot be merged, no weights, or weights that are
            not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    hint = "Name an exported adapter's folder."
    weights = folder / "adapter_model.safetensors"
    for file in (folder / "adapter_config.json", weights):
        if not file.is_file():
            raise ModelError(f"{folder} holds no adapter (no {file.name}).", hint)
    try:
        tensors = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"the adapter in {folder} cannot be read: {first_line(error)}.", "Copy it again, or export it again."
        ) from error
    _need_mergeable(folder, max((size for tensor in tensors.values() for size in tensor.shape), default=0))
    if not tensors:
        raise ModelError(f"the adapter in {folder} has no weights.", "Copy it again, or export it again.")
    need_finite(tensors.items(), f"the adapter in {folder}", "Its training has diverged: train it again.")


def _need_mergeable(folder: Path, largest_size: int) -> None:
    """Check an adapter's config: its type, its task, and that its rank can be that of its weights."""
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    config = read_object(folder / "adapter_config.json")
    kind, task = config.get("peft_type"), config.get("task_type")
    tuners = {name.value: tuner for name, tuner in PEFT_TYPE_TO_TUNER_MAPPING.items()}
    if not isinstance(kind, str) or kind not in tuners:
        raise ModelError(f"the adapter in {folder} is of no known type: peft_type is {kind!r}.", _ANOTHER)
    instead = "Train one that can: LoRA, for example."
    if not hasattr(tuners[kind], "merge_and_unload"):
        raise ModelError(f"the adapter in {folder} is of type {kind}, which cannot be merged into weights.", instead)
    if config.get("alora_invocation_tokens"):
        raise ModelError(
            f"the adapter in {folder} is an activated LoRA (alora_invocation_tokens), which acts after certain tokens "
            "only and cannot be merged into weights.",
            instead,
        )
    if task not in (None, "CAUSAL_LM"):
        raise ModelError(f"the adapter in {folder} is for the task {task}, not for a causal language model.", _ANOTHER)
    patterns = config.get("rank_pattern")
    for rank in (config.get("r"), *(patterns.values() if isinstance(patterns, dict) else ())):
        if isinstance(rank, int) and rank > largest_size > 0:  # PEFT would allocate it before it sees the weights
            raise ModelError(
                f"the adapter in {folder} has rank {rank} by its adapter_config.json, and none of its weights is that "
                "large.",
                _ANOTHER,
            )


def with_adapter(model: Any, folder: Path, address: str) -> Any:
    """Put an adapter on a model, with every weight of its file in its place.

    Args:
        model: The causal language model; it is changed.
        folder: Folder of the adapter, as PEFT writes it.
        address: The model's address, for errors' texts.

    Returns:
        The PEFT model, in eval mode.

    Raises:
        ModelError: as `need_adapter`; or a weight finds no place in the model, is missing, or has another shape.
    """
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    need_adapter(folder)

    def load() -> tuple[Any, Any]:
        config = PeftConfig.from_pretrained(str(folder))
        config.inference_mode = True
        adapted = PeftModel(model, config)
        return adapted, adapted.load_adapter(
            str(folder), "default", key_mapping=getattr(model, "_checkpoint_conversion_mapping", None)
        )

    def misfit(error: Exception) -> ModelError:
        what = f"it lacks the weight {error}" if isinstance(error, KeyError) else first_line(error)
        return ModelError(f"the adapter in {folder} does not fit {address}: {what}.", _ANOTHER)

    adapted, report = reading(load, misfit)
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        names = set(file.keys())
    if strange := report.unexpected_keys:
        raise ModelError(
            f"the adapter in {folder} does not fit {address}: {len(strange)} of its {len(names)} weights found no "
            f"place, first: {strange[0]}.",
            _ANOTHER,
        )
    # PEFT reports the adapter's own weights only, and a trained bias is one of the base.
    biases = get_peft_model_state_dict(adapted, save_embedding_layers=False).keys() - names
    if missing := report.missing_keys + sorted(name for name in biases if name.endswith(".bias")):
        raise ModelError(
            f"the adapter in {folder} does not fit {address}: {len(missing)} weights that its config declares are "
            f"missing in its file of {len(names)}, first: {missing[0]}.",
            _ANOTHER,
        )
    return adapted.eval()


def merge_adapter(model: Any, folder: Path, address: str) -> Any:
    """Merge an adapter into a model's weights.

    Args:
        model: The causal language model; it is changed.
        folder: Folder of the adapter.
        address: The model's address, for errors' texts.

    Returns:
        The model, which computes what it does with the adapter on it.

    Raises:
        ModelError: as `with_adapter`; or the merged model is another one or not finite.
    """
    what = f"{address} with the adapter in {folder}"

    def failed(error: Exception) -> ModelError:
        return ModelError(f"the adapter in {folder} cannot be merged into {address}: {first_line(error)}.", _ANOTHER)

    adapted = with_adapter(model, folder, address)
    trained = None if weights_are_sharded() else reading(lambda: probe(adapted), failed)
    untie(adapted.get_base_model())
    merged = reading(adapted.merge_and_unload, failed)
    if trained is None:  # shards compute nothing here
        return merged
    logits = need_finite_model(merged, what, "Its weights are too large for their type: train it again.")
    if float((logits - trained).abs().max()) > _MERGE_TOLERANCE * float(trained.abs().max()):
        raise ModelError(f"{what} is another model merged than it was trained: it cannot be merged.", _ANOTHER)
    return merged


def untie(model: Any) -> None:
    """Give the output layer weights of its own, where it shares the embedding's and an adapter is on either.

    Training adapts one of the two; merged into what they share, it would change both.
    """
    from torch import nn

    embedding, output = model.get_input_embeddings(), model.get_output_embeddings()
    if output is None or embedding.weight is not output.weight:
        return
    if not any(hasattr(layer, "base_layer") for layer in (embedding, output)):
        return
    own = output.get_base_layer() if hasattr(output, "base_layer") else output
    own.weight = nn.Parameter(own.weight.detach().clone(), requires_grad=own.weight.requires_grad)
    model.config.tie_word_embeddings = False
