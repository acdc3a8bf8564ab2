"""Measure PreSafe against what a user would do instead, and write one record.

    make bench                                everything: at most 12 minutes on two cores
    python benchmarks/bench.py --only sampling
    python benchmarks/bench.py --quick        as little as shows that every part works; no record, numbers mean nothing

docs/research/speed.md explains each number.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sides import Sizes, say

from presafe.runs.manifest import build_manifest

RESULTS = Path(__file__).parent / "results"
PARTS = ("startup", "decision", "classifier", "sampling", "training", "growth", "timeline")
"""Modules with a function `measure`, in the order in which they run."""


def measure(parts: Sequence[str], sizes: Sizes) -> dict[str, Any]:
    """Return the record of some parts."""
    import torch

    start, record, seconds = time.perf_counter(), {}, {}
    for part in parts:
        before = time.perf_counter()
        say(f"part {part}")
        record[part] = importlib.import_module(part).measure(sizes)
        seconds[part] = round(time.perf_counter() - before, 1)
    say(f"done in {time.perf_counter() - start:.0f} s")
    return {
        "repeats": sizes.repeats,
        "threads": torch.get_num_threads(),
        "instructions": _instructions(),
        "load": round(os.getloadavg()[0], 2),
        "parts": record,
        "seconds": seconds,
        "manifest": build_manifest({"parts": list(parts), "repeats": sizes.repeats}, ""),
    }


def _instructions() -> list[str]:
    """Return what of this CPU's instructions matters for matrix products."""
    import torch

    names = {"avx512_bf16": "_is_avx512_bf16_supported", "amx": "_is_amx_tile_supported"}
    return [torch.backends.cpu.get_cpu_capability()] + [
        name for name, function in names.items() if getattr(torch.cpu, function, lambda: False)()
    ]


def main(words: list[str] | None = None) -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=PARTS, help="this part; may be repeated")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each side")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one turn, no record")
    parser.add_argument("--long", action="store_true", help="growth also samples 10,000 prompts: some minutes more")
    parser.add_argument("--out", type=Path, default=RESULTS / "bench.json")
    given = parser.parse_args(words)
    sizes = Sizes(given.quick, 1 if given.quick else given.repeats, given.long)
    record = measure(given.only or PARTS, sizes)
    text = json.dumps(record, indent=1) + "\n"
    print(text, end="")
    if not given.quick:
        if given.only and given.out.exists():
            # The other parts keep their numbers; the manifest says when the newest part was measured.
            old = json.loads(given.out.read_text(encoding="utf-8"))
            for key in ("parts", "seconds"):
                record[key] = old[key] | record[key]
            text = json.dumps(record, indent=1) + "\n"
        given.out.write_text(text, encoding="utf-8")
        say(f"record: {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
