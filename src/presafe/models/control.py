"""Ask a server about itself, and have it load and unload adapters by name, as vLLM does.

An adapter's name holds the sha256 of its files, so that the adapter of a name is always the same one.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import httpx

from presafe.errors import ModelError
from presafe.models.address import Served
from presafe.models.answers import read_offers
from presafe.models.exchange import UnreachableError
from presafe.models.http import Patience, Refused, TryAgain, fetch, message, open_client
from presafe.runs.manifest import sha256_of_file
from presafe.runtime.loops import run_outside_loop

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
"""Files that say what an adapter does; its scale is in the first."""
_BYTES = 2**22
"""Largest size of an answer. Ours."""
_SERVE = (
    "Start vLLM with --enable-lora, --max-lora-rank of at least the adapter's rank, and "
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 in its environment, where it can read that folder; or let presafe start vLLM "
    "(`vllm` in [engine]), which is served merged weights."
)


def request_once(served: Served, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
    """Send one request, which is not tried again, and return the answer, whatever its status.

    Args:
        served: The server.
        path: Path below its root, which is the API's without `/v1`.
        body: JSON to post; None sends a GET request.

    Raises:
        UnreachableError: no whole answer in time.
        ModelError: the answer is compressed or too long.
    """

    async def send() -> httpx.Response:
        async with client_of(served, 1) as client:
            return await request(client, served, path, body)

    return run_outside_loop(lambda: asyncio.run(send()))


def client_of(served: Served, connections: int) -> httpx.AsyncClient:
    """Return a client of a server's root, which is the API's without `/v1`.

    Args:
        served: The server.
        connections: Largest number of requests in flight.
    """
    return open_client(served.url.removesuffix("/v1"), connections)


async def request(
    client: httpx.AsyncClient, served: Served, path: str, body: dict[str, Any] | None = None
) -> httpx.Response:
    """Send one request with a client of the server (`client_of`); see `request_once`."""
    try:
        return await fetch(client, path, body, seconds=Patience.from_environment().timeout_s, max_bytes=_BYTES)
    except TryAgain as error:
        raise UnreachableError(f"no answer from {served.url}: {error}.", "Check that the server is up.") from error
    except Refused as error:
        raise ModelError(f"{served.url}: {error}.", "Serve the model with vLLM.") from error


def adapter_name(folder: Path) -> str:
    """Return the name by which an adapter is served: it holds the sha256 of its files.

    Args:
        folder: Folder of the adapter.
    """
    hashes = "".join(sha256_of_file(folder / name) for name in ADAPTER_FILES)
    return f"presafe-{hashlib.sha256(hashes.encode()).hexdigest()[:16]}"


def load_adapter(served: Served, folder: Path) -> Served:
    """Have a server load an adapter, unless it has it, and return the server under the adapter's name.

    Args:
        served: The server, and its name for the base.
        folder: Folder of the adapter; the server reads it.

    Raises:
        UnreachableError: no answer.
        ModelError: the server does not load it, or does not list it afterwards.
    """
    adapted = served._replace(name=adapter_name(folder))
    if _offers(adapted):
        return adapted
    body = {"lora_name": adapted.name, "lora_path": str(folder.resolve())}
    response = request_once(served, "v1/load_lora_adapter", body)
    if not response.is_success:
        problem = f"it answered {response.status_code}{message(response)}"
        raise ModelError(f"{served.url} does not load the adapter in {folder.resolve()}: {problem}.", _SERVE)
    if not _offers(adapted):
        raise ModelError(f"{served.url} has loaded {adapted.name}, and does not list it.", _SERVE)
    return adapted


def unload_adapter(adapted: Served) -> None:
    """Have a server unload an adapter; a server that does not is left as it is.

    Args:
        adapted: The server under the adapter's name.
    """
    try:
        request_once(adapted, "v1/unload_lora_adapter", {"lora_name": adapted.name})
    except ModelError:
        return  # it has ended, or it ends soon: the next run loads what it needs


def _offers(served: Served) -> bool:
    """Return whether a server lists a name."""
    return served.name in [offer.name for offer in read_offers(request_once(served, "v1/models"))]
