"""Load the tokenizer and the weights of a model from its address (`address`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from presafe.errors import ModelError
from presafe.models.adapters import merge_adapter, need_adapter
from presafe.models.address import SMOLTHINK, adapter_of, need_weights, pretrained, served_model
from presafe.models.checks import first_line, load_whole, need_finite_model, need_rows, needs_own_code, reading, reason
from presafe.models.configs import default_template, need_readable_configs
from presafe.models.conversion import forget_quantizer
from presafe.models.family import Family, families, find_family
from presafe.models.inference import infer_family
from presafe.models.recognition import UnknownFamilyError, detect_family
from presafe.models.rendering import Renderer
from presafe.runtime.launcher import weights_are_sharded
from presafe.runtime.memory import free_memory
from presafe.runtime.reading import read_text

_TRUST = (
    "Read that code; if you trust it, set `trust_remote_code` to true for this model in the recipe (`[model]`, or "
    "`[respond.teacher]`)."
)


AUTO = "auto"
"""Family of a model whose own is inferred where its template is of no known one."""


class LoadedModel(NamedTuple):
    """A causal language model in eval mode and the renderer of its prompts."""

    model: Any
    renderer: Renderer


def smolthink_adapter() -> Path:
    """Return the folder of the adapter, chat template and card that make SmolLM2 into SmolThink."""
    return Path(str(resources.files("presafe.models") / SMOLTHINK / "weights"))


def load_renderer(
    address: str, family: str | None = None, tokenizer: str | None = None, *, trust_remote_code: bool = False
) -> Renderer:
    """Load the tokenizer of a model and how its family is asked; no weights.

    Args:
        address: The model's address.
        family: Name of a chat family or the TOML text of one; None detects it from the template and the config, and
            "auto" infers it where it is of no known family.
        tokenizer: For a served model: hub id or folder of its tokenizer, or "smolthink"; None takes the name it is
            served by.
        trust_remote_code: Whether to run the tokenizer's own Python code.

    Raises:
        ModelError: no such model or family, no chat template, code of its own that is not trusted, or as
            `detect_family`.
    """
    from transformers import AutoTokenizer

    named = find_family(family) if family not in (None, AUTO) else None
    served = served_model(address)
    source = address if served is None else tokenizer or served.name

    def failed(error: Exception) -> ModelError:
        if served is None:
            return _load_error(address, error)
        return ModelError(
            f"cannot load the tokenizer of {address} from {source!r}: {_reason(source, error)}.",
            _TRUST if needs_own_code(error) else "Name its hub id or a local folder (`tokenizer`).",
        )

    options = pretrained(source)
    need_readable_configs(options)
    loaded = reading(lambda: AutoTokenizer.from_pretrained(**options, trust_remote_code=trust_remote_code), failed)
    loaded.chat_template = _own_template(source) or default_template(loaded.chat_template, source)
    if loaded.pad_token_id is None or loaded.pad_token_id == loaded.eos_token_id:
        loaded.pad_token = loaded.unk_token or loaded.eos_token
    model_type = _model_type(source)
    if named is None or not loaded.chat_template:
        named = _family_of(loaded, source, model_type, infer=family == AUTO)
    renderer = Renderer(loaded, named, model_type)
    if named not in families().values():
        renderer.need_stops()
    renderer.try_template()
    return renderer


def _own_template(address: str) -> str | None:
    """Return the chat template beside a model's adapter; None if there is no adapter, or none with a template.

    Raises:
        ModelError: it cannot be read.
    """
    adapter = adapter_of(address)
    file = adapter / "chat_template.jinja" if adapter else None
    return read_text(file, ModelError, "chat template") if file and file.exists() else None


def _family_of(tokenizer: Any, source: str, model_type: str | None, *, infer: bool) -> Family:
    """Return the family of a tokenizer's template: a known one or, if asked for, the one that it shows.

    Args:
        tokenizer: The tokenizer.
        source: The model's address, for errors.
        model_type: `model_type` of the model's config; None if it is not known.
        infer: Whether to infer the family of an unknown template.

    Raises:
        ModelError: as `detect_family` and `infer_family`.
    """
    try:
        return detect_family(tokenizer.chat_template, source, model_type)
    except UnknownFamilyError:
        if not infer:
            raise
    return infer_family(tokenizer.chat_template, source, tokenizer.eos_token)


def _model_type(address: str) -> str | None:
    """Return `model_type` of a model's config, or None if there is no config (a folder with only a tokenizer)."""
    from transformers import PreTrainedConfig

    try:
        config, _ = PreTrainedConfig.get_config_dict(**pretrained(address))
    except (OSError, ValueError, KeyError):
        return None
    kind = config.get("model_type")
    return kind if isinstance(kind, str) else None


def load_model(
    address: str,
    *,
    adapter: Path | None = None,
    family: str | None = None,
    dtype: str = "float32",
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Load a model ready to sample from, with an adapter merged into its weights where one is given.

    Args:
        address: Hub id, local folder, GGUF file, or "smolthink".
        adapter: Folder of a PEFT adapter, as the align stage exports it.
        family: Name of a chat family or the TOML text of one; None detects it from the template and the config.
        dtype: "float32" or "bfloat16".
        trust_remote_code: Whether to run the model's own Python code.

    Raises:
        ModelError: no such model, adapter or family, no chat template, a tokenizer with more ids than the model has
            rows, or as `load_weights` and `merge_adapter`.
    """
    need_weights(address, "loading a model")
    if adapter is not None:
        need_adapter(adapter)
    renderer = load_renderer(address, family, trust_remote_code=trust_remote_code)
    model = load_weights(address, dtype, trust_remote_code=trust_remote_code)
    need_rows(model, renderer.tokenizer, address)
    if adapter is not None:
        model = merge_adapter(model, adapter, address)
    return LoadedModel(model.eval(), renderer)


def load_weights(address: str, dtype: str, *, trust_remote_code: bool = False) -> Any:
    """Load the causal language model at an address: an adapter of its own merged, a GGUF file as an ordinary model.

    Args:
        address: Hub id, local folder, GGUF file, folder of an adapter, or "smolthink".
        dtype: "float32" or "bfloat16".
        trust_remote_code: Whether to run the model's own Python code.

    Raises:
        ModelError: there is no such model; its files cannot be read, or do not hold all of its weights as finite
            numbers; it needs code of its own and is not trusted; or it is a served model.
    """
    import torch
    from safetensors import SafetensorError

    def failed(error: Exception) -> ModelError:
        if not isinstance(error, SafetensorError):
            return _load_error(address, error)
        return ModelError(
            f"the weights of {address} cannot be read: {first_line(error)}.",
            "A download may have been cut: delete the file and fetch it again.",
        )

    need_weights(address, "loading a model")
    options = pretrained(address)
    need_readable_configs(options)
    model = load_whole(
        reading(lambda: _auto_class(options, trust_remote_code=trust_remote_code), failed),
        address,
        failed,
        new_head=False,
        trust_remote_code=trust_remote_code,
        dtype=getattr(torch, dtype),
        **options,
    )
    forget_quantizer(model)
    adapter = adapter_of(address)
    if adapter is not None:
        model = merge_adapter(model, adapter, address)
    if weights_are_sharded():  # no process has them whole
        return model
    if torch.cuda.is_available():
        model = model.to("cuda")
    if adapter is None:  # else it was checked when its adapter was merged
        need_finite_model(model, f"the model {address}")
    return model


def _auto_class(options: dict[str, str], *, trust_remote_code: bool) -> Any:
    """Return transformers' class that loads a model: that of causal language models, or of those that also read images.

    Args:
        options: Arguments of `from_pretrained`.
        trust_remote_code: Whether to run the model's own Python code.
    """
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
    )

    if "gguf_file" in options:
        return AutoModelForCausalLM
    kind = type(AutoConfig.from_pretrained(**options, trust_remote_code=trust_remote_code))
    reads_images = kind not in MODEL_FOR_CAUSAL_LM_MAPPING and kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    return AutoModelForImageTextToText if reads_images else AutoModelForCausalLM


_shared: dict[tuple[str, Path | None, str | None, str, bool], LoadedModel] = {}


def shared_model(
    address: str, adapter: Path | None, family: str | None, dtype: str, trust_remote_code: bool = False
) -> LoadedModel:
    """Return `load_model`'s result, and keep the last one: CoT on and off ask the same weights."""
    key = (address, adapter, family, dtype, trust_remote_code)
    if key not in _shared:
        release_model()
        _shared[key] = load_model(
            address, adapter=adapter, family=family, dtype=dtype, trust_remote_code=trust_remote_code
        )
    return _shared[key]


@contextmanager
def sharing(
    loaded: LoadedModel, address: str, adapter: Path | None, family: str | None, dtype: str, trust_remote_code: bool
) -> Iterator[None]:
    """Give a model of this process to all that asks `shared_model` for these settings, for a while.

    Args:
        loaded: The model, changed in memory.
        address: As `shared_model`, as are the others.
        adapter: See there.
        family: See there.
        dtype: See there.
        trust_remote_code: See there.
    """
    release_model()
    _shared[address, adapter, family, dtype, trust_remote_code] = loaded
    try:
        yield
    finally:
        release_model()


def release_model() -> None:
    """Release the shared model, so that its memory is free before another model is loaded."""
    _shared.clear()
    free_memory()


def _reason(source: str, error: Exception) -> str:
    """Return what is wrong with a model's files."""
    if "gguf_file" in pretrained(source):
        return f"its GGUF file cannot be read, perhaps because its download was cut ({first_line(error)})"
    return reason(error)


def _load_error(address: str, error: Exception) -> ModelError:
    """Return the error for a model that cannot be loaded, with what the user can do."""
    is_missing = address.startswith(("/", ".", "~")) and not Path(address).expanduser().exists()
    problem = "there is no such file or folder" if is_missing else _reason(address, error)
    return ModelError(
        f"cannot load model {address!r}: {problem}.",
        _TRUST
        if needs_own_code(error)
        else "Give a hub id, a local folder with config, tokenizer and weights or a GGUF file, smolthink, or "
        "http://host:port#name.",
    )
