"""Start-up: what a user waits for before anything is computed, beside a Python that does nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from sides import Sizes, in_turns, say, spread

GOALS = {"import presafe": 0.1, "presafe --help": 0.5, "presafe list methods": 0.5}
COMMANDS = {
    "presafe --help": ["-m", "presafe.cli.main", "--help"],
    "presafe list methods": ["-m", "presafe.cli.main", "list", "methods"],
    "python -c pass": ["-c", "pass"],
}
_IMPORT = "import time; start = time.perf_counter(); import presafe; print(time.perf_counter() - start)"


def measure(sizes: Sizes) -> list[dict[str, Any]]:
    """Return seconds by command: of the import alone, and of whole processes."""
    say("start-up")
    sides: dict[str, Callable[[], dict[str, float]]] = {"import presafe": _seconds_of_import}
    for name, arguments in COMMANDS.items():
        sides[name] = lambda arguments=arguments: _seconds_of_process(arguments)  # type: ignore[misc]
    values = in_turns(sides, sizes.repeats)["seconds"]
    rows = []
    for what, seconds in values.items():
        goal = GOALS.get(what)
        of = spread(seconds)
        rows.append({"what": what, "values": seconds, "seconds": of, "goal": goal})
        rows[-1]["met"] = None if goal is None else of["median"] <= goal
    return rows


def _seconds_of_import() -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", _IMPORT], check=True, capture_output=True, text=True)
    return {"seconds": float(done.stdout)}


def _seconds_of_process(arguments: list[str]) -> dict[str, float]:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return {"seconds": time.perf_counter() - start}
