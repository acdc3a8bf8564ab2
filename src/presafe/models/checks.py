"""Check that a loaded model is complete: each weight has its place and its shape, and is a finite number.

The libraries are lenient where a measurement must be strict. They fill a missing weight with random numbers, leave out
a weight that has no place, and load NaN. Each of these measures another model than the one that was named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from presafe.errors import ModelError, PreSafeError

if TYPE_CHECKING:
    from torch import Tensor

_FETCH_AGAIN = "A download may have been cut, or the files belong to another model: fetch it again."
_HARMLESS = re.compile(r"(inv_freq|masked_bias|attn\.bias|attention\.bias|position_ids|num_batches_tracked)$|pooler\.")
"""Weights that older checkpoints have or lack, and that no output of ours depends on: computed buffers, and the pooler
of an encoder, which is part of a new head.
"""
_MAX_JSON_BYTES = 16 * 2**20
"""Largest config that is read; the tokenizer's vocabulary is in another file, which is not read here."""


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error, with the second if the first ends in a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    text = " ".join(lines[: 2 if lines[0].endswith(":") else 1]).removesuffix(".")
    return text if len(text) <= 300 else f"{text[:300]}…"


def needs_own_code(error: BaseException) -> bool:
    """Return whether a library refused to run the Python code of a model."""
    return "custom code" in str(error) or "trust_remote_code" in str(error)


def reason(error: BaseException) -> str:
    """Return what is wrong with a model's files: our words where the library's mislead, else its first line."""
    if needs_own_code(error):
        return "it needs code of its own (auto_map in its config), which is not run"
    if "instantiate the backend tokenizer" in str(error):
        return "it has no tokenizer that can be read here (tokenizer.json)"
    return first_line(error)


def reading(call: Callable[[], Any], problem: Callable[[Exception], ModelError]) -> Any:
    """Return what a library reads from a user's files, and turn any error it raises into one about these files.

    Args:
        call: Reads the files.
        problem: Returns our error for the library's error.

    Raises:
        ModelError: the files cannot be read.
    """
    try:
        return call()
    except PreSafeError:
        raise
    except Exception as error:  # broken files raise errors of every kind; tokenizers raises plain Exception
        raise problem(error) from error


def read_object(file: Path, max_bytes: int = _MAX_JSON_BYTES) -> dict[str, Any]:
    """Return the JSON object in a file of a model.

    Args:
        file: The file.
        max_bytes: Largest size that is read.

    Raises:
        ModelError: it cannot be read, is larger, or does not hold a JSON object.
    """
    hint = "Take the publisher's file again."
    try:
        if not file.is_file():
            raise ModelError(f"{file} is not a file.", hint)
        if file.stat().st_size > max_bytes:
            raise ModelError(f"{file} has more than {max_bytes // 2**20} MiB.", hint)
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # a JSON error and a Unicode error are ValueErrors
        what = "it is nested too deep" if isinstance(error, RecursionError) else first_line(error)
        raise ModelError(f"{file} cannot be read as JSON: {what}.", hint) from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} holds {_kind(content)}, not a JSON object.", hint)
    return content


def first_not_finite(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """Return the name of the first tensor that holds NaN or infinity, or None if all numbers are finite.

    It takes one pass without a copy (0.08 s for SmolLM2 on one CPU core): if one number is NaN, so are the smallest and
    the largest.

    Args:
        named: Tensors by name.
    """
    import torch

    for name, tensor in named:
        if not tensor.is_floating_point() or tensor.numel() == 0 or tensor.is_meta:
            continue
        values = tensor.detach()
        if values.element_size() == 1:  # torch cannot compare numbers of 8 bits
            values = values.float()
        if not bool(torch.isfinite(torch.stack(torch.aminmax(values))).all()):
            return name
    return None


def need_finite(named: Iterable[tuple[str, Tensor]], what: str, hint: str = _FETCH_AGAIN) -> None:
    """Check that weights are finite numbers.

    Args:
        named: Tensors by name.
        what: What holds them, for the error.
        hint: What the user can do.

    Raises:
        ModelError: a number is NaN or infinite.
    """
    if name := first_not_finite(named):
        raise ModelError(f"{what} holds numbers that are NaN or infinite, first: {name}.", hint)


def need_places(
    weights: Mapping[str, Tensor], places: Mapping[str, Tensor], what: str, hint: str = _FETCH_AGAIN
) -> None:
    """Check that weights fill exactly the places of a model, by name and shape.

    Args:
        weights: The weights to load, by name.
        places: The weights that the model has, by name.
        what: What holds the weights, for the error.
        hint: What the user can do.

    Raises:
        ModelError: a weight has no place, is missing, or has another shape than its place.
    """
    if unexpected := sorted(weights.keys() - places.keys()):
        problem = f"{len(unexpected)} of its {len(weights)} weights have no place, first: {unexpected[0]}"
    elif missing := sorted(places.keys() - weights.keys()):
        problem = f"{len(missing)} of the {len(places)} weights are missing, first: {missing[0]}"
    elif shapes := [name for name in sorted(places) if weights[name].shape != places[name].shape]:
        name = shapes[0]
        problem = f"{name} has the shape {tuple(weights[name].shape)}, and its place {tuple(places[name].shape)}"
    else:
        return
    raise ModelError(f"{what} does not fit the model: {problem}.", hint)


def load_whole(
    auto: Any,
    what: str,
    problem: Callable[[Exception], ModelError],
    *,
    new_head: bool,
    trust_remote_code: bool = False,
    **options: Any,
) -> Any:
    """Load a model from its files, and check that the files hold all of it.

    A weight in the files without a place in the model is an error if it belongs to the network (a layer more than the
    config has, a norm that this kind of model lacks): the loaded model would compute something else. Outside the
    network (the value head of a reward model, the vision tower of a larger model) it is ignored.

    Args:
        auto: transformers' class, such as `AutoModelForCausalLM`.
        what: The model, for errors.
        problem: Returns our error for the library's error.
        new_head: Whether weights outside the network will be trained, and so may be missing.
        trust_remote_code: Whether to run the model's own Python code.
        options: Arguments of `from_pretrained`.

    Raises:
        ModelError: the files cannot be read; or a weight is missing, has another shape, or has no place in the
            network.
    """

    def load(**more: Any) -> Any:
        return auto.from_pretrained(**options, **more, output_loading_info=True, trust_remote_code=trust_remote_code)

    def failed(error: Exception) -> ModelError:
        if not (isinstance(error, RuntimeError) and "ignore_mismatched_sizes" in str(error)):
            return problem(error)
        _, report = load(ignore_mismatched_sizes=True, device_map="meta")  # to name the weight; allocates nothing
        name, in_file, in_model = min(report["mismatched_keys"])
        shapes = f"{tuple(in_file)} in its files and {tuple(in_model)} by its config"
        return ModelError(f"the weights of {what} do not fit its config: {name} has the shape {shapes}.", _FETCH_AGAIN)

    model, report = reading(load, failed)
    network = f"{model.base_model_prefix}."
    missing = [
        name
        for name in model.state_dict()
        if name in report["missing_keys"] and not _HARMLESS.search(name) and (name.startswith(network) or not new_head)
    ]
    if missing:
        total = len(model.state_dict())
        raise ModelError(
            f"{len(missing)} of the {total} weights of {what} are missing in its files, first: {missing[0]}.",
            _FETCH_AGAIN,
        )
    unexpected = [
        name
        for name in sorted(report["unexpected_keys"])
        if not _HARMLESS.search(name) and name.startswith((network, "lm_head."))
    ]
    if unexpected and not new_head:
        raise ModelError(
            f"{len(unexpected)} weights in the files of {what} find no place in a {type(model).__name__}, "
            f"first: {unexpected[0]}.",
            "Its config.json is of another model: take the publisher's.",
        )
    if report["error_msgs"]:
        raise ModelError(f"the weights of {what} cannot be loaded: {report['error_msgs'][0]}.", _FETCH_AGAIN)
    return model


def need_finite_model(model: Any, what: str, hint: str = _FETCH_AGAIN) -> Tensor:
    """Check that a causal language model's weights are finite, and that it computes finite numbers.

    Args:
        model: The model.
        what: The model, for the error.
        hint: What the user can do.

    Returns:
        Its logits for four tokens.

    Raises:
        ModelError: a weight or a logit is NaN or infinite.
    """
    need_finite([*model.named_parameters(), *model.named_buffers()], what, hint)
    logits = probe(model)
    if not bool(logits.isfinite().all()):
        raise ModelError(f"{what} computes numbers that are NaN or infinite from finite weights.", hint)
    return logits


def probe(model: Any) -> Tensor:
    """Return the logits of a causal language model for four tokens, in float32."""
    import torch

    rows = model.get_input_embeddings().weight.shape[0]
    ids = torch.arange(4, device=model.device)[None] % rows
    with torch.no_grad():  # not inference mode: training must be able to use position tensors that a model keeps
        logits: Tensor = model(input_ids=ids).logits.float()
    return logits


def need_rows(model: Any, tokenizer: Any, what: str) -> None:
    """Check that the embedding has a row for each id of the tokenizer. More rows are padding, and harmless.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        what: The model, for the error.

    Raises:
        ModelError: an id has no row.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    token, largest = max(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    if largest >= rows:
        raise ModelError(
            f"the tokenizer of {what} has ids up to {largest} ({token!r}), and the model's embedding has {rows} rows.",
            "Resize the model's embeddings to its tokenizer, or take the tokenizer that belongs to it.",
        )


def _kind(value: object) -> str:
    """Return the kind of a JSON value in words."""
    kinds = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
