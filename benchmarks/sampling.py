"""Sampling uneven answers: PreSafe against `model.generate` and Inspect's own `hf` provider.

Greedy, from SmolThink, with as many rows in a batch on each side. The prompts are of mixed lengths, and the answers of
very different lengths: a refusal has some ten tokens, a thought up to the budget. `generate` takes them in the order
of arrival, left-padded, as its documentation shows. Inspect's provider knows no prefilled thought, so it is compared
on prompts with CoT on.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from inspect_ai.model import ChatMessageUser, GenerateConfig, Model, ModelOutput, get_model
from sides import OURS, Sizes, against, in_turns, say, timed
from work import mixed_texts, smolthink

from presafe.models.batching import LocalEngine
from presafe.models.exchange import Request
from presafe.models.family import Sampling
from presafe.models.loading import LoadedModel
from presafe.models.provider import PreSafeAPI
from presafe.records import Thinking

MODES: tuple[Thinking, Thinking] = ("on", "off")


def measure(sizes: Sizes) -> list[dict[str, Any]]:
    """Return the rows of the record."""
    loaded = smolthink(sizes)
    budget, rows = sizes.pick(192, 6), sizes.pick(16, 4)
    return [_against_generate(loaded, sizes, budget, rows), _against_inspect(loaded, sizes, budget, rows)]


def _against_generate(loaded: LoadedModel, sizes: Sizes, budget: int, rows: int) -> dict[str, Any]:
    texts = mixed_texts(sizes.pick(16, 4))
    say(f"sampling {len(texts)} prompts with CoT on and off, {budget} new tokens at most, {rows} rows")
    requests = [
        Request(loaded.renderer.render(text, thinking).ids, budget, Sampling(), seed=0)
        for text in texts
        for thinking in MODES
    ]
    wrote: dict[str, list[list[int]]] = {}

    def ours() -> None:
        wrote[OURS] = _by_presafe(loaded, requests, rows)

    def theirs() -> None:
        wrote["generate"] = _by_generate(loaded, requests, rows)

    values = in_turns({OURS: timed(ours), "generate": timed(theirs)}, sizes.repeats, warm_up=False)
    row = against("sampling, CoT on and off", "seconds", values["seconds"], {"generate": 0.5})
    lengths = [len(ids) for ids in wrote[OURS]]
    return row | {"same_answers": _same(wrote[OURS], wrote["generate"]), "floor": _floor(lengths, rows)}


def _by_presafe(loaded: LoadedModel, requests: Sequence[Request], rows: int) -> list[list[int]]:
    """Return the token ids that our engine writes, read back from its texts."""

    async def together() -> list[list[int]]:
        engine = LocalEngine(lambda: loaded, rows, batch_tokens=65_536)
        done = await asyncio.gather(*map(engine.complete, requests))
        return [loaded.renderer.completion_ids(completion.text) for completion in done]

    return asyncio.run(together())


def _by_generate(loaded: LoadedModel, requests: Sequence[Request], rows: int) -> list[list[int]]:
    """Return what `model.generate` writes; what comes after a row's end is cut."""
    stops, pad = loaded.renderer.stop_ids(), loaded.renderer.tokenizer.pad_token_id
    wrote = []
    for start in range(0, len(requests), rows):
        batch = requests[start : start + rows]
        width = max(len(request.ids) for request in batch)
        ids = torch.tensor([[pad] * (width - len(request.ids)) + request.ids for request in batch])
        mask = torch.tensor([[0] * (width - len(request.ids)) + [1] * len(request.ids) for request in batch])
        with torch.inference_mode():
            out = loaded.model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=batch[0].max_tokens,
                do_sample=False,
                eos_token_id=stops,
                pad_token_id=pad,
            )[:, width:]
        for row in out.tolist():
            ends = [index + 1 for index, token in enumerate(row) if token in stops]
            text = loaded.renderer.tokenizer.decode(row[: ends[0]] if ends else row)
            wrote.append(loaded.renderer.completion_ids(text))
    return wrote


def _against_inspect(loaded: LoadedModel, sizes: Sizes, budget: int, rows: int) -> dict[str, Any]:
    texts = mixed_texts(sizes.pick(32, 4))
    say(f"sampling {len(texts)} prompts with CoT on through Inspect, {budget} new tokens at most, {rows} rows")
    config = GenerateConfig(max_tokens=budget, max_connections=len(texts))
    with tempfile.TemporaryDirectory() as folder:
        loaded.model.save_pretrained(folder)
        loaded.renderer.tokenizer.save_pretrained(folder)
        mine = get_model(f"presafe/{folder}", memoize=False, thinking="on", batch_size=rows)
        theirs = get_model(
            "hf/smolthink",
            memoize=False,
            config=config,
            model_path=folder,
            tokenizer_path=folder,
            device="cpu",
            batch_size=rows,
            do_sample=False,
        )
        api = mine.api
        assert isinstance(api, PreSafeAPI)
        api.engine.ready()
        wrote: dict[str, list[ModelOutput]] = {}

        def ask(side: str, model: Model) -> None:
            wrote[side] = asyncio.run(_answers(model, texts, config))

        sides = {OURS: timed(lambda: ask(OURS, mine)), "hf provider": timed(lambda: ask("hf provider", theirs))}
        values = in_turns(sides, sizes.repeats, warm_up=False)
    row = against("sampling through Inspect, CoT on", "seconds", values["seconds"], {"hf provider": 0.5})
    words = {side: list(map(_words, outputs)) for side, outputs in wrote.items()}
    lengths = [output.usage.output_tokens for output in wrote[OURS] if output.usage]
    return row | {"same_answers": _same(words[OURS], words["hf provider"]), "floor": _floor(lengths, rows)}


async def _answers(model: Model, texts: Sequence[str], config: GenerateConfig) -> list[ModelOutput]:
    return await asyncio.gather(*(model.generate([ChatMessageUser(content=text)], config=config) for text in texts))


def _floor(lengths: Sequence[int], rows: int) -> float:
    """Return the smallest possible ratio of forward passes: rows that are never empty / batches in order of arrival.

    Args:
        lengths: Tokens of each answer, in the order of the prompts.
        rows: Answers that are decoded together.
    """
    batches = [max(lengths[start : start + rows]) for start in range(0, len(lengths), rows)]
    return max(sum(lengths) / rows, max(lengths)) / sum(batches)


def _words(output: ModelOutput) -> list[str]:
    """Return the words of an answer, thought included, whatever the provider makes a thought of."""
    content: Any = output.choices[0].message.content
    parts = (
        [content]
        if isinstance(content, str)
        else [getattr(part, "reasoning", getattr(part, "text", "")) for part in content]
    )
    for mark in ("<think>", "</think>", "<|im_end|>"):
        parts = [part.replace(mark, " ") for part in parts]
    return " ".join(parts).split()


def _same(mine: Sequence[Any], theirs: Sequence[Any]) -> dict[str, int]:
    """Return how many answers are the same; rounding may decide between two nearly equal tokens."""
    return {"same": sum(one == other for one, other in zip(mine, theirs, strict=True)), "of": len(mine)}
