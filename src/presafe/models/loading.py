"""From a model's address (`address`) to a tokenizer and weights."""

from __future__ import annotations

import struct
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from presafe.errors import ModelError
from presafe.memory import free_memory
from presafe.models.address import SMOLTHINK, need_weights, pretrained, served_model
from presafe.models.family import detect_family, find_family
from presafe.models.rendering import Renderer
from presafe.models.weights import forget_quantizer
from presafe.processes import weights_are_cut

_UNREADABLE = (OSError, ValueError, KeyError, struct.error)
"""What transformers raises where files are missing or malformed; the last from a GGUF file that was cut."""


class LoadedModel(NamedTuple):
    """A causal language model in eval mode and the renderer of its prompts."""

    model: Any
    renderer: Renderer


def smolthink_adapter() -> Path:
    """Folder of the adapter, chat template and card that make SmolLM2 into SmolThink."""
    return Path(str(resources.files("presafe.models.smolthink") / "weights"))


def load_renderer(address: str, family: str | None = None, tokenizer: str | None = None) -> Renderer:
    """The tokenizer of a model and how its family is asked; loads no weights.

    Args:
        address: The model's address.
        family: Name of a chat family or the TOML text of one; None detects it from the template and the config.
        tokenizer: Of a served model: hub id or folder of its tokenizer, or "smolthink"; None takes the name it is
            served by.

    Raises:
        ModelError: no such model or family, no chat template, or as `detect_family`.
    """
    from transformers import AutoTokenizer

    named = find_family(family) if family is not None else None
    served = served_model(address)
    source = address if served is None else tokenizer or served.name
    try:
        loaded = AutoTokenizer.from_pretrained(**pretrained(source))
    except _UNREADABLE as error:
        if served is not None:
            raise ModelError(
                f"cannot load the tokenizer of {address} from {source!r}: {_reason(source, error)}.",
                "Name its hub id or a local folder with --tokenizer, or tokenizer in the recipe's [model].",
            ) from error
        raise _not_found(address, error) from error
    if source == SMOLTHINK:
        loaded.chat_template = (smolthink_adapter() / "chat_template.jinja").read_text(encoding="utf-8")
    if loaded.pad_token_id is None or loaded.pad_token_id == loaded.eos_token_id:
        loaded.pad_token = loaded.unk_token or loaded.eos_token
    model_type = _model_type(source)
    if named is None or not loaded.chat_template:
        named = detect_family(loaded.chat_template, source, model_type)
    return Renderer(loaded, named, model_type)


def _model_type(address: str) -> str | None:
    """`model_type` of a model's config; None where there is no config, as beside a tokenizer alone."""
    from transformers import PreTrainedConfig

    try:
        config, _ = PreTrainedConfig.get_config_dict(**pretrained(address))
    except (OSError, ValueError, KeyError):
        return None
    found: str | None = config.get("model_type")
    return found


def load_model(
    address: str, *, adapter: Path | None = None, family: str | None = None, dtype: str = "float32"
) -> LoadedModel:
    """A model ready to sample from, with an adapter merged into its weights where one is given.

    Args:
        address: Hub id, local folder, GGUF file, or "smolthink".
        adapter: Folder of a PEFT adapter, as the align stage exports it.
        family: Name of a chat family or the TOML text of one; None detects it from the template and the config.
        dtype: "float32" or "bfloat16".

    Raises:
        ModelError: no such model, adapter or family, no chat template, an adapter of another model, or a served model.
    """
    from peft import PeftModel

    need_weights(address, "loading a model")
    if adapter is not None:
        need_adapter(adapter)
    renderer = load_renderer(address, family)
    model = load_weights(address, dtype)
    if adapter is not None:
        try:
            model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise ModelError(
                f"the adapter in {adapter} does not fit {address}: {_first_line(error)}.",
                "Name the model that it was trained on, or export it again.",
            ) from error
    return LoadedModel(model.eval(), renderer)


def need_adapter(folder: Path) -> None:
    """Say at once, before weights are loaded, that a folder holds no adapter, or one whose file was cut.

    Raises:
        ModelError: it holds none that can be read.
    """
    from safetensors import SafetensorError, safe_open

    if not (folder / "adapter_config.json").is_file():
        raise ModelError(f"{folder} holds no adapter (no adapter_config.json).", "Name an exported adapter's folder.")
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise ModelError(f"{folder} holds no adapter (no {weights.name}).", "Name an exported adapter's folder.")
    try:
        with safe_open(weights, framework="pt"):
            pass
    except SafetensorError as error:
        raise ModelError(
            f"the adapter in {folder} cannot be read: {_first_line(error)}.", "Copy it again, or export it again."
        ) from error


def load_weights(address: str, dtype: str) -> Any:
    """The causal language model at an address, SmolThink's adapter merged, a GGUF file as an ordinary model.

    Raises:
        ModelError: no such model, one whose files cannot be read, or a served one.
    """
    import torch
    from peft import PeftModel
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    need_weights(address, "loading a model")
    try:
        model = AutoModelForCausalLM.from_pretrained(**pretrained(address), dtype=getattr(torch, dtype))
    except _UNREADABLE as error:
        raise _not_found(address, error) from error
    except SafetensorError as error:
        raise ModelError(
            f"the weights of {address} cannot be read: {_first_line(error)}.",
            "A download may have been cut: delete the file and fetch it again.",
        ) from error
    forget_quantizer(model)
    if address == SMOLTHINK:
        model = PeftModel.from_pretrained(model, str(smolthink_adapter())).merge_and_unload()
    if torch.cuda.is_available() and not weights_are_cut():
        model = model.to("cuda")
    return model


_shared: dict[tuple[str, Path | None, str | None, str], LoadedModel] = {}


def shared_model(address: str, adapter: Path | None, family: str | None, dtype: str) -> LoadedModel:
    """`load_model`, keeping the last one: CoT on and off ask the same weights."""
    key = (address, adapter, family, dtype)
    if key not in _shared:
        release_model()
        _shared[key] = load_model(address, adapter=adapter, family=family, dtype=dtype)
    return _shared[key]


def release_model() -> None:
    """Forget the shared model, so that its memory is free before another is loaded."""
    _shared.clear()
    free_memory()


def _first_line(error: Exception) -> str:
    """What a library says, without all that it goes on to say; a line that ends in a colon needs the next."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1]).removesuffix(".")


def _reason(source: str, error: Exception) -> str:
    """What is wrong with a model's files."""
    if "gguf_file" in pretrained(source):
        return f"its GGUF file cannot be read, perhaps because its download was cut ({_first_line(error)})"
    if "instantiate the backend tokenizer" in str(error):
        return "it holds no tokenizer that can be read here (tokenizer.json)"
    return _first_line(error)


def _not_found(address: str, error: Exception) -> ModelError:
    is_missing = address.startswith(("/", ".", "~")) and not Path(address).expanduser().exists()
    reason = "there is no such file or folder" if is_missing else _reason(address, error)
    return ModelError(
        f"cannot load model {address!r}: {reason}.",
        "Give a hub id, a local folder with config, tokenizer and weights or a GGUF file, `smolthink`, or http://host:port#name.",
    )
