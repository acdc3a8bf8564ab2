"""Measure what monitoring costs in vLLM.

    PRESAFE_VLLM=.venv-vllm PYTHONPATH=plugins/vllm/support .venv/bin/python plugins/vllm/benchmark.py RUN
    PRESAFE_VLLM=.venv-vllm PYTHONPATH=plugins/vllm/support .venv/bin/python plugins/vllm/benchmark.py RUN --pairs 10

RUN has an aligned system `presafe` with a gate file; its merged weights are served.

By default, what part of a busy server's time the plug-in's own code takes, by a sampling profiler (py-spy; it is no
dependency: `pip install py-spy`). A stack is the plug-in's if the plug-in is the last of the packages below to be
called: a product of the head is its own, and the model's logits, which its class calls, are vLLM's. What it costs
elsewhere (longer messages, caches) is not seen. The record is benchmarks/results/monitoring.json.

With `--pairs`, paired runs of one server with the plug-in and one without: they see every cost, but single rounds
differ by a third where a machine is shared, so that they cannot see one hundredth. Each pair asks both; every second
pair asks the other one first. CPU seconds are those of all processes of a server.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from presafe.models.loading import load_renderer
from presafe.prompts.sets import built_in
from presafe.runs.manifest import build_manifest
from presafe.stats.intervals import student_interval, wilson
from presafe.workflows.export import export
from vllm_server import MIDDLEWARE, Server, start, stop, wait

NAME = "presafe"
RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "monitoring.json"
_PACKAGES = ("/presafe_vllm/", "/vllm/", "/uvicorn/", "/fastapi/", "/starlette/")
_PROCESSES = {
    "worker": "worker_busy_loop (",
    "engine": "run_engine_core (",
    "server": "/vllm/entrypoints/openai/api_server.py:",
}
"""What stands in the stacks of each process: of the model, of the queue of requests, and of the answers to clients."""


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
    body: dict[str, Any] = {"model": NAME, "max_tokens": num_tokens, "temperature": 0, "ignore_eos": True}
    start_s, start_cpu = time.perf_counter(), cpu_seconds(server)
    with ThreadPoolExecutor(len(prompts)) as pool:
        replies = list(pool.map(lambda ids: server.ask(prompt=ids, **body).json(), prompts))
    wall, cpu = time.perf_counter() - start_s, cpu_seconds(server) - start_cpu
    assert all(reply["usage"]["completion_tokens"] == num_tokens for reply in replies)
    return {"tokens_per_s": len(prompts) * num_tokens / wall, "cpu_s": cpu}


def prompts_of(number: int) -> list[list[int]]:
    """Return the token ids of that many harmless prompts, at the decision position."""
    renderer = load_renderer("smolthink")
    texts = [prompt.text for name in ("benign", "borderline") for prompt in built_in(name, "align")[:200]]
    return [renderer.render(text, "on").ids for text in texts[:number]]


def start_merged(folder: Path, run: Path, dtype: str, *, monitored: bool) -> Server:
    """Start a server of the merged weights of a run's system `presafe`; do not wait.

    Args:
        folder: Where the weights are written, if no server before this one did, and the server's files.
        run: The run; its system has a gate file.
        dtype: Type of the weights in the server.
        monitored: Whether the plug-in reads the decision there.
    """
    system = run / "alignment" / NAME
    if not (folder / "merged").exists():
        export(system, folder, merge=True, classifier=False, gguf=None)
    own = folder / ("with" if monitored else "without")
    own.mkdir()
    words = ["--served-model-name", NAME, "--dtype", dtype, "--no-enable-prefix-caching"]
    gate = {"PRESAFE_GATE": str(system.absolute() / "gate.json"), "PRESAFE_GATE_MODELS": f"{NAME}=monitor"}
    more = ["--middleware", MIDDLEWARE] if monitored else []
    return start(own, folder / "merged", words + more, **(gate if monitored else {}))


def main() -> None:
    """Print one JSON object; write it, too, if it is the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--pairs", type=int, help="paired runs with and without the plug-in, instead of the profile")
    parser.add_argument("--seconds", type=int, default=240, help="of the profile")
    parser.add_argument("--rate", type=int, default=20, help="stacks a second")
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--dtype", default="bfloat16")
    options = parser.parse_args()
    prompts = prompts_of(options.prompts)
    if not options.pairs and shutil.which("py-spy") is None:
        sys.exit("there is no py-spy: pip install py-spy")
    servers: dict[str, Server] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name in ("with", "without") if options.pairs else ("with",):
                servers[name] = start_merged(Path(folder), options.run, options.dtype, monitored=name == "with")
                wait(servers[name])
                measure(servers[name], prompts, options.tokens)  # warm
            if options.pairs:
                values = compare(servers, prompts, options)
            else:
                stacks = profile(servers["with"], prompts, options, Path(folder, "stacks"))
                values = {"shares": shares_of(stacks)}
        finally:
            for server in servers.values():
                stop(server)
    settings = {**vars(options), "run": options.run.name}
    record = {"settings": settings, **values, "manifest": build_manifest({"part": "monitoring"}, "")}
    text = json.dumps(record, indent=1) + "\n"
    print(text, end="")
    if not options.pairs:
        RESULT.write_text(text, encoding="utf-8")


def compare(servers: dict[str, Server], prompts: list[list[int]], options: argparse.Namespace) -> dict[str, Any]:
    """Return each pair of rounds, and their ratios with 95 % intervals over pairs.

    Args:
        servers: The server with the plug-in and the one without.
        prompts: Token ids of a round's prompts, all asked at once.
        options: The command line.
    """
    pairs = []
    for number in range(options.pairs):
        order = ("with", "without") if number % 2 else ("without", "with")
        pairs.append({name: measure(servers[name], prompts, options.tokens) for name in order})
    ratios = {
        value: student_interval([pair["with"][value] / pair["without"][value] for pair in pairs])._asdict()
        for value in ("tokens_per_s", "cpu_s")
    }
    return {"pairs": pairs, "ratios": ratios}


def profile(server: Server, prompts: list[list[int]], options: argparse.Namespace, file: Path) -> Counter[str]:
    """Return how often each stack was seen while the server answered round after round.

    Args:
        server: The server.
        prompts: Token ids of a round's prompts, all asked at once.
        options: The command line.
        file: Where py-spy writes.
    """
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            measure(server, prompts, options.tokens)

    asking = threading.Thread(target=ask)
    asking.start()
    words = [
        "record",
        "--pid",
        str(server.process.pid),
        "--subprocesses",
        "--nonblocking",
        "--full-filenames",
        "--format",
        "raw",
        "--output",
        str(file),
    ]
    try:
        subprocess.run(
            ["py-spy", *words, "--duration", str(options.seconds), "--rate", str(options.rate)],
            check=True,
            stdout=sys.stderr,
        )
    finally:
        is_over.set()
        asking.join()
    stacks: Counter[str] = Counter()
    for line in file.read_text(encoding="utf-8").splitlines():
        stack, _, count = line.rpartition(" ")
        stacks[stack] += int(count)
    return stacks


def is_own(stack: str) -> bool:
    """Return whether a stack is the plug-in's: it is the last of the packages that was called.

    Args:
        stack: Frames from the outermost on, as py-spy writes them: "function (path/package/module.py:line);…".
    """
    called = [frame for frame in stack.split(";") if any(name in frame for name in _PACKAGES)]
    return bool(called) and _PACKAGES[0] in called[-1]


def shares_of(stacks: Counter[str]) -> dict[str, dict[str, float | None]]:
    """Return the plug-in's share of each process's busy stacks, with its 95 % interval.

    Args:
        stacks: How often each stack was seen.

    Raises:
        SystemExit: a process has no stack, or no stack was the plug-in's: then nothing was measured.
    """
    shares: dict[str, dict[str, float | None]] = {}
    for name, frame in _PROCESSES.items():
        counts = Counter({stack: count for stack, count in stacks.items() if frame in stack})
        own = sum(count for stack, count in counts.items() if is_own(stack))
        if not counts:
            sys.exit(f"no stack of {stacks.total()} has {frame!r}: this vLLM names its processes' work otherwise.")
        shares[name] = {"own": own, **wilson(own, counts.total())._asdict()}
    if not any(share["own"] for share in shares.values()):
        sys.exit(f"no stack of {stacks.total()} is the plug-in's: nothing was measured.")
    return shares


if __name__ == "__main__":
    main()
