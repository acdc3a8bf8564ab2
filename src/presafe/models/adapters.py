"""Put a PEFT adapter on a model, or merge it, and check that the result is the model that was trained.

PEFT only warns about missing weights, and ignores weights that have no place in the model. A merge into tied weights
also changes the embedding. In each case the measured model would not be the trained one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from presafe.errors import ModelError
from presafe.models.checks import first_line, need_finite, need_finite_model, read_object, reading
from presafe.models.merging import changed_part, read_layers
from presafe.models.patterns import need_quick_patterns
from presafe.runtime.launcher import weights_are_sharded

_OTHER_MODEL = "Name the model that it was trained on, or export it again."


def need_adapter(folder: Path) -> None:
    """Check, before weights are loaded, that a folder holds a complete adapter that can be merged.

    Args:
        folder: Folder of the adapter, as PEFT writes it.

    Raises:
        ModelError: there is no adapter that can be read, its type cannot be merged, it has no weights, or its weights
            are not finite.
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
    """Check an adapter's config: its type, its task, and that its rank fits the size of its weights.

    Args:
        folder: Folder of the adapter.
        largest_size: Largest dimension of its weights; 0 where it has none.

    Raises:
        ModelError: the adapter cannot be merged, or its config does not belong to its weights.
    """
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    config = read_object(folder / "adapter_config.json")
    kind, task = config.get("peft_type"), config.get("task_type")
    tuners = {name.value: tuner for name, tuner in PEFT_TYPE_TO_TUNER_MAPPING.items()}
    if not isinstance(kind, str) or kind not in tuners:
        raise ModelError(f"the adapter in {folder} is of no known type: peft_type is {kind!r}.", _OTHER_MODEL)
    hint = "Train one that can be merged: LoRA, for example."
    if not hasattr(tuners[kind], "merge_and_unload"):
        raise ModelError(f"the adapter in {folder} is of type {kind}, which cannot be merged into weights.", hint)
    if config.get("alora_invocation_tokens"):
        raise ModelError(
            f"the adapter in {folder} is an activated LoRA (alora_invocation_tokens): it acts only after certain "
            "tokens and cannot be merged into weights.",
            hint,
        )
    if task not in (None, "CAUSAL_LM"):
        raise ModelError(
            f"the adapter in {folder} is for the task {task}, not for a causal language model.", _OTHER_MODEL
        )
    if kind == "LORA":
        _need_scale(folder, config)
    patterns = config.get("rank_pattern")
    for rank in (config.get("r"), *(patterns.values() if isinstance(patterns, dict) else ())):
        if isinstance(rank, int) and rank > largest_size > 0:  # PEFT would allocate it before it sees the weights
            raise ModelError(
                f"the adapter in {folder} has rank {rank} in its adapter_config.json, and none of its weights is that "
                "large.",
                _OTHER_MODEL,
            )


def _need_scale(folder: Path, config: dict[str, Any]) -> None:
    """Check that the config of a LoRA adapter states its rank and its scale, and that it acts at that scale.

    Raises:
        ModelError: one of the two is missing, or the scale is 0.
    """
    if missing := [key for key in ("r", "lora_alpha") if key not in config]:
        raise ModelError(
            f"the adapter_config.json in {folder} lacks {missing[0]}; PEFT would take its default, which is another "
            "adapter than the one that was trained.",
            "Copy it again, or export it again.",
        )
    scale = config["lora_alpha"]
    if isinstance(scale, bool) or (scale == 0 and not config.get("alpha_pattern")):
        raise ModelError(
            f"the adapter in {folder} has lora_alpha {scale!r}, which is no scale at which it acts.",
            "Name an adapter that acts, or measure the model without one.",
        )


def with_adapter(model: Any, folder: Path, address: str) -> Any:
    """Put an adapter on a model, and check that each weight of its file has its place.

    Args:
        model: The causal language model; it is changed.
        folder: Folder of the adapter, as PEFT writes it.
        address: The model's address, for errors.

    Returns:
        The PEFT model, in eval mode.

    Raises:
        ModelError: as `need_adapter` and `need_quick_patterns`; or a weight has no place in the model, is missing, or
            has another shape.
    """
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    need_adapter(folder)
    modules = [name for name, _ in model.named_modules()]
    need_quick_patterns(folder, read_object(folder / "adapter_config.json"), modules)

    def load() -> tuple[Any, Any]:
        config = PeftConfig.from_pretrained(str(folder))
        config.inference_mode = True
        adapted = PeftModel(model, config)
        return adapted, adapted.load_adapter(
            str(folder), "default", key_mapping=getattr(model, "_checkpoint_conversion_mapping", None)
        )

    def misfit(error: Exception) -> ModelError:
        what = f"it lacks the weight {error}" if isinstance(error, KeyError) else first_line(error)
        return ModelError(f"the adapter in {folder} does not fit {address}: {what}.", _OTHER_MODEL)

    adapted, report = reading(load, misfit)
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        names = set(file.keys())
    if unexpected := report.unexpected_keys:
        raise ModelError(
            f"the adapter in {folder} does not fit {address}: {len(unexpected)} of its {len(names)} weights found no "
            f"place, first: {unexpected[0]}.",
            _OTHER_MODEL,
        )
    # PEFT reports only the adapter's own weights; a trained bias is a weight of the base model.
    biases = get_peft_model_state_dict(adapted, save_embedding_layers=False).keys() - names
    if missing := report.missing_keys + sorted(name for name in biases if name.endswith(".bias")):
        raise ModelError(
            f"the adapter in {folder} does not fit {address}: {len(missing)} weights that its config declares are "
            f"missing in its file of {len(names)}, first: {missing[0]}.",
            _OTHER_MODEL,
        )
    return adapted.eval()


@contextmanager
def merged_at(adapted: Any, scale: float) -> Iterator[None]:
    """Merge an adapter into the weights at a scale, as `merge_adapter` would after it was rescaled, for a while.

    A merge rounds to the type of the weights, so that a model with its adapter beside it does not answer quite as the
    merged model that is evaluated. The weights are copied before, because a merge in bfloat16 cannot be undone exactly.

    Args:
        adapted: The PEFT model (`with_adapter`).
        scale: Factor of the adapter's own scale.
    """
    from peft.helpers import rescale_adapter_scale
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [layer for layer in adapted.modules() if isinstance(layer, BaseTunerLayer)]
    before = [{name: value.clone() for name, value in layer.get_base_layer().state_dict().items()} for layer in layers]
    with rescale_adapter_scale(adapted, scale):
        adapted.merge_adapter()
    try:
        yield
    finally:
        for layer, weights in zip(layers, before, strict=True):
            layer.get_base_layer().load_state_dict(weights)
            layer.merged_adapters.clear()


def merge_adapter(model: Any, folder: Path, address: str) -> Any:
    """Merge an adapter into a model's weights.

    Args:
        model: The causal language model; it is changed.
        folder: Folder of the adapter.
        address: The model's address, for errors.

    Returns:
        The merged model, which computes the same as the model with the adapter on it.

    Raises:
        ModelError: as `with_adapter`; or the merged model computes something else, or numbers that are not finite.
    """
    what = f"{address} with the adapter in {folder}"

    def failed(error: Exception) -> ModelError:
        return ModelError(
            f"the adapter in {folder} cannot be merged into {address}: {first_line(error)}.", _OTHER_MODEL
        )

    adapted = with_adapter(model, folder, address)
    untie(adapted.get_base_model())
    before = None if weights_are_sharded() else reading(lambda: read_layers(adapted), failed)
    merged = reading(adapted.merge_and_unload, failed)
    if before is None:  # shards compute nothing here
        return merged
    need_finite_model(merged, what, "Its weights are too large for their type: train it again.")
    if changed := changed_part(before, merged):
        raise ModelError(
            f"{what} is another model merged than it was trained: it cannot be merged (first: {changed}).",
            _OTHER_MODEL,
        )
    return merged


def untie(model: Any) -> None:
    """Give the output layer its own weights, if it shares those of the embedding and an adapter is on one of the two.

    Training adapted only that one; a merge into shared weights would change both.

    Args:
        model: The causal language model; it is changed.
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
