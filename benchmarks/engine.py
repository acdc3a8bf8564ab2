"""Sampling in this process against a vLLM that a run starts itself, on the same prompts, the same model and machine.

    PRESAFE_VLLM=.venv-vllm python benchmarks/engine.py

Both are driven as a run drives them: the engine of this process, and that of `[engine] vllm`. vLLM is started for each
turn, and ended before the other side begins: an idle one still takes CPU time. Its start is not timed, but shown. The
goal is 1.3 times as many tokens a second as here. The record is benchmarks/results/engine.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from sides import OURS, say, spread, vllm_environment
from work import mixed_texts

from presafe.config.engine import EngineSettings
from presafe.config.recipe import ModelSettings
from presafe.models.batching import LocalEngine
from presafe.models.exchange import Completion, Request
from presafe.models.family import Sampling
from presafe.models.loading import load_model, load_renderer, release_model
from presafe.models.place import Place
from presafe.runs.manifest import build_manifest
from presafe.stats.intervals import student_interval

RESULT = Path(__file__).parent / "results" / "engine.json"
GOAL = 1.3


def main(words: list[str] | None = None) -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args(words)
    environment = vllm_environment()
    model = ModelSettings(address="smolthink", dtype=given.dtype)
    renderer = load_renderer("smolthink")
    requests = [
        Request(renderer.render(text, "on").ids, given.tokens, Sampling(), seed=0)
        for text in mixed_texts(given.prompts)
    ]
    sides: dict[str, list[dict[str, float]]] = {"vLLM": [], OURS: []}
    for turn in range(given.turns):
        sides["vLLM"].append(by_vllm(model, requests, given.rows, environment))
        sides[OURS].append(in_process(model, requests, given.rows))
        for side, turns in sides.items():
            say(f"  turn {turn + 1} of {given.turns}, {side}: {turns[-1]}")
    ratios = [
        theirs["tokens_per_s"] / mine["tokens_per_s"] for theirs, mine in zip(sides["vLLM"], sides[OURS], strict=True)
    ]
    record = {
        "settings": {key: value for key, value in vars(given).items() if key != "out"},
        "sides": sides,
        "vllm_against_ours": spread(ratios) | {"interval": student_interval(ratios)._asdict(), "goal": GOAL},
        "manifest": build_manifest({"part": "engine"}, ""),
    }
    text = json.dumps(record, indent=1) + "\n"
    print(text, end="")
    given.out.write_text(text, encoding="utf-8")
    return 0


def in_process(model: ModelSettings, requests: Sequence[Request], rows: int) -> dict[str, float]:
    """Return tokens a second of this process; the model is loaded and has answered once before."""
    loaded = load_model(model.address, dtype=model.dtype)

    async def ask(asked: Sequence[Request]) -> list[Completion]:
        engine = LocalEngine(lambda: loaded, rows, batch_tokens=65_536)
        return list(await asyncio.gather(*map(engine.complete, asked)))

    asyncio.run(ask(requests[:2]))
    start = time.perf_counter()
    answers = asyncio.run(ask(requests))
    seconds = time.perf_counter() - start
    release_model()
    return _speed(answers, seconds)


def by_vllm(model: ModelSettings, requests: Sequence[Request], rows: int, environment: str) -> dict[str, float]:
    """Return tokens a second of a vLLM that is started for it, and the seconds until its first answers."""
    words = ("--max-model-len", "2048", "--no-enable-prefix-caching")
    settings = EngineSettings(vllm=environment, arguments=words)
    with tempfile.TemporaryDirectory() as folder, Place(settings, model, Path(folder), has_weights=False) as place:
        engine = place.engine_for(model, None, rows)
        assert engine is not None

        async def ask() -> tuple[float, list[Completion], float]:
            begun = time.perf_counter()
            await asyncio.gather(*map(engine.complete, requests[:2]))
            start = time.perf_counter()
            answers = list(await asyncio.gather(*map(engine.complete, requests)))
            seconds = time.perf_counter() - start
            await engine.close()
            return start - begun, answers, seconds

        before = time.perf_counter()
        engine.ready()
        ready = time.perf_counter() - before
        first, answers, seconds = asyncio.run(ask())
    return _speed(answers, seconds) | {"start_s": round(ready + first, 1)}


def _speed(answers: Sequence[Completion], seconds: float) -> dict[str, float]:
    num_tokens = sum(answer.num_tokens for answer in answers)
    return {"tokens": num_tokens, "seconds": round(seconds, 2), "tokens_per_s": round(num_tokens / seconds, 1)}


if __name__ == "__main__":
    sys.exit(main())
