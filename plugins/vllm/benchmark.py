"""Measure what monitoring costs: paired runs of one server with the plug-in and one without, on the same prompts.

    PRESAFE_VLLM=.venv-vllm PYTHONPATH=plugins/vllm/support .venv/bin/python plugins/vllm/benchmark.py RUN --pairs 10

RUN has an aligned system `presafe` with a gate file. Both servers hold its merged weights. Each pair asks both;
every second pair asks the other one first. CPU seconds are those of all processes of a server.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from presafe.models.loading import load_renderer
from presafe.prompts.sets import built_in
from presafe.stats.intervals import student_interval
from presafe.workflows.export import export
from vllm_server import MIDDLEWARE, Server, start, stop, wait

_NAME = "presafe"


def cpu_seconds(server: Server) -> float:
    """Return the CPU seconds that the processes of a server have taken."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == server.process.pid:  # its session
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(server: Server, prompts: list[list[int]], num_tokens: int) -> dict[str, float]:
    """Return tokens per second and CPU seconds of one round."""
    body: dict[str, Any] = {"model": _NAME, "max_tokens": num_tokens, "temperature": 0, "ignore_eos": True}
    start_s, start_cpu = time.perf_counter(), cpu_seconds(server)
    with ThreadPoolExecutor(len(prompts)) as pool:
        replies = list(pool.map(lambda ids: server.ask(prompt=ids, **body).json(), prompts))
    wall, cpu = time.perf_counter() - start_s, cpu_seconds(server) - start_cpu
    assert all(reply["usage"]["completion_tokens"] == num_tokens for reply in replies)
    return {"tokens_per_s": len(prompts) * num_tokens / wall, "cpu_s": cpu}


def main() -> None:
    """Print one JSON object: each pair, and the ratios with 95 % intervals over pairs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--dtype", default="bfloat16")
    options = parser.parse_args()
    renderer = load_renderer("smolthink")
    texts = [prompt.text for name in ("benign", "borderline") for prompt in built_in(name, "align")[:200]]
    prompts = [renderer.render(text, "on").ids for text in texts[: options.prompts]]
    system = options.run / "alignment" / "presafe"
    with tempfile.TemporaryDirectory() as folder:
        export(system, Path(folder), merge=True, classifier=False, gguf=None)
        servers: dict[str, Server] = {}
        words = ["--served-model-name", _NAME, "--dtype", options.dtype, "--no-enable-prefix-caching"]
        gate = {"PRESAFE_GATE": str(system.absolute() / "gate.json"), "PRESAFE_GATE_MODELS": f"{_NAME}=monitor"}
        try:
            for name in ("with", "without"):
                own = Path(folder, name)
                own.mkdir()
                more = ["--middleware", MIDDLEWARE] if name == "with" else []
                servers[name] = start(own, Path(folder, "merged"), words + more, **(gate if name == "with" else {}))
                wait(servers[name])
                measure(servers[name], prompts, options.tokens)  # warm
            pairs = []
            for number in range(options.pairs):
                order = ("with", "without") if number % 2 else ("without", "with")
                pairs.append({name: measure(servers[name], prompts, options.tokens) for name in order})
        finally:
            for server in servers.values():
                stop(server)
    ratios = {
        value: student_interval([pair["with"][value] / pair["without"][value] for pair in pairs])._asdict()
        for value in ("tokens_per_s", "cpu_s")
    }
    print(
        json.dumps({"settings": {**vars(options), "run": str(options.run)}, "pairs": pairs, "ratios": ratios}, indent=2)
    )


if __name__ == "__main__":
    main()
