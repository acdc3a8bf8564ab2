"""Check the small files beside a model's weights: JSON objects of plausible size, and the default chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from presafe.errors import ModelError
from presafe.models.checks import read_object

_CONFIGS = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
_NUM_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")


def need_readable_configs(options: dict[str, str]) -> None:
    """Check the small files of a local folder before a library reads them.

    Args:
        options: Arguments of `from_pretrained`.

    Raises:
        ModelError: a file is not a JSON object; or the config has more layers than the files have weights (a library
            would build them all before it looks for their weights).
    """
    folder = Path(options["pretrained_model_name_or_path"])
    if "gguf_file" in options or not folder.is_dir():
        return
    contents = {name: read_object(folder / name) for name in _CONFIGS if (folder / name).exists()}
    num_weights = _num_weights(folder)
    for config in _configs_within(contents.get("config.json", {})):
        for key in _NUM_LAYERS:
            number = config.get(key)
            if isinstance(number, int) and num_weights is not None and number > num_weights:
                raise ModelError(
                    f"{folder / 'config.json'} has {key} = {number}, and its files hold {num_weights} weights.",
                    "Take the publisher's file again.",
                )


def default_template(template: Any, address: str) -> str | None:
    """Return the chat template to use: the only one, or the default of several named ones.

    Args:
        template: The template, several by name, or None.
        address: The model's address, for errors.

    Raises:
        ModelError: there are several and none is the default, or the template is not a text.
    """
    if isinstance(template, dict):
        if "default" not in template:
            raise ModelError(
                f"{address} has {len(template)} named chat templates ({', '.join(map(str, template))}), and none is "
                "named default.",
                "Name one of them default in chat_template of its tokenizer_config.json.",
            )
        template = template["default"]
    if template is not None and not isinstance(template, str):
        raise ModelError(f"the chat template of {address} is not a text.", "Take the publisher's file again.")
    return template


def _configs_within(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a config and the configs inside it, such as that of the language model in a vision model."""
    return [config, *(value for value in config.values() if isinstance(value, dict))]


def _num_weights(folder: Path) -> int | None:
    """Return how many weights a folder's safetensors files name, or None if they cannot be counted."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = read_object(index).get("weight_map")
        return len(names) if isinstance(names, dict) else None
    file = folder / "model.safetensors"
    if not file.is_file():
        return None
    with file.open("rb") as opened:
        num_bytes = int.from_bytes(opened.read(8), "little")
        if num_bytes > file.stat().st_size:
            return None  # the file was cut; the library reports that
        try:
            return len(json.loads(opened.read(num_bytes)).keys() - {"__metadata__"})
        except (ValueError, RecursionError, AttributeError):
            return None
