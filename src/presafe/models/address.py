"""Read the address of a model: what MODEL may be, and where its files are.

smolthink                the small reasoning model this project ships: SmolLM2-135M-Instruct plus our adapter
http://host:port#name    a model behind an OpenAI-compatible server; it has no weights here. If the path ends in
                         /chat/completions, the server is asked in messages, and renders the prompt itself
folder                   a local Hugging Face folder, or one that holds a GGUF file
folder/file.gguf         one GGUF file of several
anything else            a hub id, from the cache or the hub
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from presafe.attacks.registry import read_attack, read_defense
from presafe.config.engine import is_served
from presafe.errors import ModelError
from presafe.models.weights import smollm2_folder

SMOLTHINK = "smolthink"
_CHAT = "/chat/completions"


class Served(NamedTuple):
    """A model behind a server: where requests go, and what the server calls it."""

    url: str
    """Root of the API, which ends in `/v1`."""
    name: str
    chat: bool = False
    """Whether the address is that of a chat endpoint (`chat`)."""


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
        address: The model's address.

    Raises:
        ModelError: a folder holds several GGUF files and no other weights.
        DownloadError: as `smollm2_folder`.
    """
    if address == SMOLTHINK:
        return {"pretrained_model_name_or_path": str(smollm2_folder())}
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
