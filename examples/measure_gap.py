"""Measure the gap of a model: what it refuses with its chain of thought on and off.

    python examples/measure_gap.py                       # SmolThink, a few prompts, under a minute on two CPU cores
    python examples/measure_gap.py MODEL --limit 100 --max-tokens 4096

Writes a folder with a report under runs/. The same command resumes it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import presafe
from presafe.report.formatting import format_interval


def main() -> None:
    """Measure a model in both modes, and print what it refuses."""
    parser = argparse.ArgumentParser(description="Measure what a model refuses with its CoT on and off.")
    parser.add_argument("model", nargs="?", default="smolthink", help="Hub id, local folder, or smolthink")
    parser.add_argument("--limit", type=int, default=6, help="prompts per suite")
    parser.add_argument("--max-tokens", type=int, default=64, help="budget of thought and answer")
    parser.add_argument("--out", type=Path, default=Path("runs/example-gap"))
    options = parser.parse_args()

    names = ("smolthink_harmful", "smolthink_benign")
    suites = {name: presafe.load_suite(name, None, seed=0)[: options.limit] for name in names}
    model = presafe.ModelSettings(address=options.model)
    data = presafe.measure(model, suites, options.out, presafe.MeasureSettings(max_tokens=options.max_tokens))

    for score in data.scores:
        if score.metric in ("refusal_rate", "over_refusal_rate") and score.value is not None:
            rate = format_interval(score.value, score.low, score.high)
            print(f"{score.suite:18} CoT {score.thinking:3} {rate} refused, n = {score.n}")
    print(f"report: {options.out / 'report.html'}")


if __name__ == "__main__":
    main()
