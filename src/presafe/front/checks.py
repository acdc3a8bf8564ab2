"""Compare, before the first request, what stands behind a front with what the gate file was calibrated on.

server        it lists the name, and counts as many tokens in a text, in token ids and in a chat as this front renders
files         head and adapter have the gate file's hashes
classifier    it gives the p that the gate file keeps of its queries, whichever weights it holds
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from presafe.errors import ModelError
from presafe.front.classifier import Classifier
from presafe.front.prompts import PromptReader
from presafe.gating.exchange import CHAT, COMPLETIONS, Asked
from presafe.models.address import Served
from presafe.models.answers import listed, num_read, read_offers
from presafe.models.chat import date_tokens
from presafe.models.control import client_of, request
from presafe.models.http import TryAgain, message
from presafe.models.rendering import Renderer
from presafe.runs.io import read_json
from presafe.stages.run_folder import RunFolder
from presafe.workflows.gate import queries_behind
from presafe.workflows.gate_check import reference_of

_MOST_APART = 0.1
"""Largest difference of p. Half precision moves p by up to .02, another model by much more. Ours."""
_NUM_QUERIES = 8
"""Queries compared at each end of the ranking. Ours."""
_HELLO = "Hello."


async def open_routes(served: Served, renderer: Renderer, reader: PromptReader) -> dict[str, str | None]:
    """Return why each route of a server is closed; None for those that are open.

    Args:
        served: The server, and its name for the model.
        renderer: The tokenizer and family of the gate file's model.
        reader: Renders requests.

    Raises:
        UnreachableError: no answer.
        ModelError: it does not list the name, answers on no route, or renders prompts otherwise.
    """
    ids = renderer.render(_HELLO, "on").ids
    turn = [{"role": "user", "content": _HELLO}]
    greetings: list[tuple[str, dict[str, Any], int]] = [
        (COMPLETIONS, {"prompt": ids}, len(ids)),
        (COMPLETIONS, {"prompt": _HELLO}, len(renderer.tokenizer.encode(_HELLO))),
    ]
    problems: dict[str, str | None] = {COMPLETIONS: None, CHAT: None}
    (chat,) = reader.rendered(Asked(CHAT, {"messages": turn}, ""))
    if isinstance(chat, str):
        problems[CHAT] = chat
    else:
        greetings.append((CHAT, {"messages": turn}, len(chat)))
    async with client_of(served, 1) as client:
        offers = [offer.name for offer in read_offers(await request(client, served, "v1/models"))]
        if served.name not in offers:
            raise ModelError(
                f"{served.url} does not serve {served.name!r}. It serves: {listed(offers) or 'nothing'}.",
                "Name one of them after #.",
            )
        for path, body, expected in greetings:
            body = {"model": served.name, "max_tokens": 1, "temperature": 0, **body}
            response = await request(client, served, path.removeprefix("/"), body)
            if not response.is_success:
                problems[path] = f"it answers {response.status_code}{message(response)}"
                continue
            _need_count(response, expected, date_tokens(renderer) if path == CHAT else 0, served)
    if all(problems.values()):
        raise ModelError(f"{served.url} answers on no route ({problems[COMPLETIONS]}; {problems[CHAT]}).")
    return problems


def _need_count(response: Any, expected: int, slack: int, served: Served) -> None:
    """Check that a server counts the tokens that this front renders.

    Raises:
        ModelError: it does not.
    """
    try:
        count = num_read(response)
    except TryAgain as error:
        raise ModelError(f"{served.url}: {error}.") from error
    if count is None:
        raise ModelError(f"{served.url} does not count a prompt's tokens (usage), so what it reads cannot be checked.")
    if abs(count - expected) > slack:
        raise ModelError(
            f"{served.url} makes {count} tokens of a greeting, and the run's tokenizer {expected}.",
            "Serve the model of the run, with its own tokenizer and chat template.",
        )


async def need_classifier(classifier: Classifier, run: RunFolder, file: Path, renderer: Renderer) -> None:
    """Check that a classifier gives the p that a gate file keeps, of its lowest and its highest queries.

    Args:
        classifier: The classifier.
        run: The run of the gate file.
        file: The gate file.
        renderer: The tokenizer and family of the run's model.

    Raises:
        RunError: the gate file keeps no p, or was calibrated on other queries.
        PromptError: the user's queries behind it cannot be read any more.
        ModelError: the classifier gives another p, or none.
    """
    gate = read_json(file)
    texts = [query.text for query in queries_behind(run, gate)]
    ranked = sorted(zip(reference_of(file, gate, texts), texts, strict=True))
    chosen = dict.fromkeys([*ranked[:_NUM_QUERIES], *ranked[-_NUM_QUERIES:]])
    given = await asyncio.gather(*(classifier.probability(renderer.render(text, "on").ids) for _, text in chosen))
    apart, kept, live = max((abs(p - kept), kept, p) for p, (kept, _) in zip(given, chosen, strict=True))
    if apart > _MOST_APART:
        raise ModelError(
            f"the classifier gives p = {live:.3f} where {file} keeps {kept:.3f}.",
            "Serve the classifier of this system, or compare both with `presafe gate check` and calibrate again.",
        )
