"""Two or more sides that do the same work in turns, and their ratios."""

from __future__ import annotations

import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

OURS = "PreSafe"


class Sizes(NamedTuple):
    """How much is measured: everything, or as little as shows that the command works."""

    quick: bool
    repeats: int
    long: bool = False
    """Whether 10,000 prompts are sampled through Inspect, too."""

    def pick(self, full: int, quick: int) -> int:
        """Return the size for this form of the benchmark."""
        return quick if self.quick else full


def vllm_environment() -> str:
    """Return the environment with vLLM that PRESAFE_VLLM names.

    Raises:
        SystemExit: with code 2, it names none.
    """
    environment = os.environ.get("PRESAFE_VLLM", "")
    if not environment:
        print("PRESAFE_VLLM names no environment with vLLM.", file=sys.stderr)
        raise SystemExit(2)
    return environment


def say(text: str) -> None:
    """Print a line of progress."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def peak_memory() -> float:
    """Return the peak memory of this process in MiB.

    Linux keeps the `ru_maxrss` of the process that started this one, however large; VmHWM is of this program alone.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes


def in_turns(
    sides: Mapping[str, Callable[[], Mapping[str, float]]], repeats: int, *, warm_up: bool = True
) -> dict[str, dict[str, list[float]]]:
    """Run all sides in turns, so that what else the machine does reaches all of them.

    Args:
        sides: What each side does; it returns its values by name, such as `{"seconds": 2.5}`.
        repeats: Number of turns.
        warm_up: Whether each side runs once before, unmeasured.

    Returns:
        The values by their name and side, one per turn.
    """
    if warm_up:
        for run in sides.values():
            run()
    values: dict[str, dict[str, list[float]]] = {}
    for turn in range(repeats):
        for side, run in sides.items():
            measured = run()
            for name, value in measured.items():
                values.setdefault(name, {}).setdefault(side, []).append(value)
            shown = ", ".join(f"{name} {value:.3g}" for name, value in measured.items())
            say(f"  turn {turn + 1} of {repeats}, {side}: {shown}")
    return values


def timed(work: Callable[[], object]) -> Callable[[], dict[str, float]]:
    """Return a side that does this work and gives its seconds."""

    def run() -> dict[str, float]:
        start = time.perf_counter()
        work()
        return {"seconds": time.perf_counter() - start}

    return run


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the smallest, the median and the largest value."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def against(what: str, unit: str, values: Mapping[str, Sequence[float]], goals: Mapping[str, float]) -> dict[str, Any]:
    """Return one row of the record for each other side: the ratio ours / other of each turn.

    Args:
        what: The work, in words.
        unit: What is measured: "seconds" or "MiB".
        values: By side, one per turn.
        goals: Largest median ratio that meets the goal, by other side.
    """
    others = {}
    for side, theirs in values.items():
        if side != OURS:
            ratios = [mine / other for mine, other in zip(values[OURS], theirs, strict=True)]
            goal = goals.get(side)
            others[side] = {
                "ratio": spread(ratios),
                "goal": goal,
                "met": None if goal is None else statistics.median(ratios) <= goal,
            }
    return {"what": what, "unit": unit, "values": {side: list(turn) for side, turn in values.items()}, "others": others}
