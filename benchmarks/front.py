r"""Measure what `presafe serve` adds to a request: the same prompts asked at the server itself and through a front.

    python benchmarks/front.py "http://127.0.0.1:8000#presafe" --gate RUN/alignment/presafe/gate.json \
        --classifier "http://127.0.0.1:8001#classifier"

The server runs already; the front is started here, as a monitor. Each prompt is asked once to warm the server's cache,
then once directly and once through the front, for one token; every second prompt asks the front first. One request is
in flight at a time, so the difference is latency, not throughput. With CoT on the classifier is asked; a prompt with
CoT off is unread and only forwarded, which is what the front alone costs. The record is
benchmarks/results/front.json: one part with the head in the front's process, one with `--classifier`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from presafe.models.address import Served, raw_server
from presafe.models.loading import load_renderer
from presafe.prompts.sets import built_in
from presafe.runs.io import read_json, write_json
from presafe.runs.manifest import build_manifest
from presafe.stats.bootstrap import statistic_interval
from presafe.workflows.export import run_of

RESULT = Path(__file__).parent / "results" / "front.json"


def main() -> None:
    """Print and write milliseconds of both sides, and of what the front adds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--gate", type=Path, required=True)
    parser.add_argument("--classifier")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    model = run_of(options.gate.parent).recipe.model
    renderer = load_renderer(model.address, model.family, model.tokenizer)
    texts = [prompt.text for name in ("benign", "borderline") for prompt in built_in(name, "align")]
    chosen = [texts[number % len(texts)] for number in range(options.requests)]
    words = [
        sys.executable,
        "-m",
        "presafe.cli.main",
        "serve",
        options.model,
        "--gate",
        str(options.gate),
        "--port",
        "0",
    ]
    words += ["--classifier", options.classifier] if options.classifier else []
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                sys.exit("the front did not start")
            sides = {"direct": raw_server(options.model), "front": raw_server(line.split()[0])}
            rows = {
                "decided": measure(sides, [renderer.render(text, "on").ids for text in chosen]),
                "forwarded": measure(sides, [renderer.render(text, "off").ids for text in chosen]),
            }
        finally:
            process.terminate()
    part = {"requests": options.requests, "load": os.getloadavg()[0], "manifest": build_manifest({"part": "front"}, "")}
    part |= {name: summary(own) for name, own in rows.items()}
    print(json.dumps(part, indent=2))
    record = read_json(options.out) if options.out.exists() else {}
    write_json(options.out, record | {"classifier" if options.classifier else "process": part})


def measure(sides: dict[str, Served], prompts: Sequence[list[int]]) -> list[dict[str, float]]:
    """Return the milliseconds of each prompt, by side.

    Args:
        sides: The server ("direct"), and the front before it.
        prompts: Token ids of the prompts.
    """
    rows = []
    with httpx.Client(timeout=60) as client:
        for number, ids in enumerate(prompts):
            ask(client, sides["direct"], ids)
            order = sorted(sides, reverse=bool(number % 2))
            rows.append({side: ask(client, sides[side], ids) for side in order})
    return rows


def ask(client: httpx.Client, served: Served, ids: list[int]) -> float:
    """Return the milliseconds of one request."""
    body = {"model": served.name, "prompt": ids, "max_tokens": 1, "temperature": 0}
    start = time.perf_counter()
    client.post(f"{served.url}/completions", json=body).raise_for_status()
    return 1000 * (time.perf_counter() - start)


def summary(rows: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Return medians with 95 % intervals over requests, and 95th percentiles.

    Args:
        rows: Milliseconds of each prompt.
    """
    columns = {side: [row[side] for row in rows] for side in ("direct", "front")}
    columns["added"] = [row["front"] - row["direct"] for row in rows]
    return {
        f"{name}_ms": {
            "median": statistic_interval(statistics.median, values, draws=2000)._asdict(),
            "percentile_95": statistics.quantiles(values, n=20)[-1],
        }
        for name, values in columns.items()
    }


if __name__ == "__main__":
    main()
