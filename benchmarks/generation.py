"""Throughput of presafe's decoding against plain `model.generate`, on the same prompts and weights, as a ratio.

ours     all requests at once to the engine behind the Inspect provider: near lengths together, finished rows released
plain    `model.generate` on batches of the same number of rows, in the order of arrival, left-padded

Both decode greedily to the same budget, from SmolThink-135M, in turns, so that what else the machine does hits both.
The prompts are the project's own: short harmful and harmless requests, sums, and long ones that a text is put before;
half with CoT on, half off.

    python benchmarks/generation.py --out benchmarks/results/generation.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from presafe.runs.manifest import build_manifest
from presafe.models.batching import LocalEngine
from presafe.models.exchange import Request
from presafe.models.family import Sampling
from presafe.models.loading import LoadedModel, load_model
from presafe.prompts.arithmetic import generate_problems
from presafe.prompts.sets import built_in


def requests_of(loaded: LoadedModel, num: int, max_tokens: int) -> list[Request]:
    """Prompts of mixed kinds and lengths, in a mixed order."""
    benign = [prompt.text for prompt in built_in("benign", "held_out")]
    harmful = [prompt.text for prompt in built_in("harmful", "held_out")]
    sums = [prompt.text for prompt in generate_problems("held_out", num, seed=0)]
    texts = []
    for index in range(num):
        kind, row = index % 4, index // 4
        long = (
            "Here are some questions of other people. " + " ".join(benign[: 2 + row % 8]) + " Now mine. " + benign[row]
        )
        texts.append((benign[row], harmful[row], sums[row], long)[kind])
    random.Random(0).shuffle(texts)
    return [
        Request(loaded.renderer.render(text, "on" if index % 2 else "off").ids, max_tokens, Sampling(), seed=index)
        for index, text in enumerate(texts)
    ]


def ours(loaded: LoadedModel, requests: list[Request], rows: int) -> int:
    """Tokens written by our engine."""

    async def together() -> int:
        engine = LocalEngine(lambda: loaded, rows, batch_tokens=65_536)
        return sum(done.num_tokens for done in await asyncio.gather(*map(engine.complete, requests)))

    return asyncio.run(together())


def plain(loaded: LoadedModel, requests: list[Request], rows: int) -> int:
    """Tokens written by `model.generate`; what it writes after a row's end is not counted."""
    stops, pad, written = loaded.renderer.stop_ids(), loaded.renderer.tokenizer.pad_token_id, 0
    for start in range(0, len(requests), rows):
        batch = requests[start : start + rows]
        width = max(len(request.ids) for request in batch)
        with loaded.model.device:
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
            written += ends[0] if ends else len(row)
    return written


def measured(loaded: LoadedModel, requests: list[Request], rows: int, rounds: int) -> dict[str, Any]:
    """Both ways in turns, after a round to warm up; rates in written tokens a second."""
    ways = {"ours": ours, "plain": plain}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    tokens = {}
    for way in ways.values():
        way(loaded, requests[:4], rows)
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            tokens[name] = way(loaded, requests, rows)
            rates[name].append(tokens[name] / (time.perf_counter() - start))
    ratios = [mine / other for mine, other in zip(rates["ours"], rates["plain"], strict=True)]
    return {
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "tokens_per_s": {name: round(statistics.median(found), 1) for name, found in rates.items()},
        "tokens": tokens,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=64, help="prompts")
    parser.add_argument("--rows", type=int, default=16, help="rows of a batch")
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="also write the record here")
    words = parser.parse_args()
    loaded = load_model("smolthink")
    requests = requests_of(loaded, words.num, words.max_tokens)
    settings = {"num": words.num, "rows": words.rows, "max_tokens": words.max_tokens, "rounds": words.rounds}
    lengths = sorted(len(request.ids) for request in requests)
    record = {
        **measured(loaded, requests, words.rows, words.rounds),
        "prompt_tokens": {"least": lengths[0], "median": lengths[len(lengths) // 2], "most": lengths[-1]},
        "settings": settings,
        "threads": torch.get_num_threads(),
        "made_by": build_manifest(settings, ""),
    }
    text = json.dumps(record, indent=2)
    print(text)
    if words.out:
        words.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
