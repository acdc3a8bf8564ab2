"""The promise of `presafe gate calibrate` on suites that it did not see: rates of refusals, with and without a tail.

    PRESAFE_DATA=FOLDER python benchmarks/calibration.py RUN --states FOLDER

RUN is a run of the demo's recipe; nothing is trained. `--states` keeps what was read of the prompts (`gate_states`).
Each rate is measured twice: at the threshold of the run's own queries, and at that of queries of the same kind (halves
of the suite, even and odd places: each half is decided at the other's threshold). The suite `mix` holds SmolThink's
held-out sets in the shares that the run's queries have. The record is benchmarks/results/calibration.json;
`python tools/docs/results.py` writes its tables into docs/research/gate.md.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from gate_states import HARMFUL, HARMLESS, GateStates
from sides import say

from presafe.runs.io import write_json
from presafe.runs.manifest import build_manifest
from presafe.stats.conformal import conformal_threshold
from presafe.stats.intervals import wilson
from presafe.workflows.gate import MARGIN

RESULT = Path(__file__).parent / "results" / "calibration.json"
RATES = ("0.05", "0.1")
TAILS = ("clean", "25", "100", "400")
OF_TAIL = {"clean": HARMLESS + HARMFUL, "100": HARMLESS + HARMFUL}
"""Suites with each tail; with the others, those below."""
_FOUR = ("smolthink_benign", "xstest_safe", "smolthink_harmful", "xstest_unsafe")
HALF_OF = {"jailbreakbench_benign": "jailbreakbench", "xstest_safe": "xstest_unsafe"}
"""The harmful suite that a harmless one is worded like; SmolThink's are all beside `smolthink_harmful`."""
_MIXED = {"benign": "smolthink_benign", "borderline": "smolthink_borderline", "arithmetic": "arithmetic"}


def main(words: list[str] | None = None) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--states", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args(words)
    source = GateStates(given.run, given.states)
    read = {f"{name}@{tail}": source.probabilities(f"{name}@{tail}") for tail in TAILS for name in suites_of(tail)}
    harmless = [
        (prompt.id.partition("-")[0], p)
        for prompt, p in zip(source.prompts("train"), source.probabilities("train@clean"), strict=True)
        if prompt.expect != "refuse"
    ]
    own, shares = [p for _, p in harmless], Counter(kind for kind, _ in harmless)
    read["mix@clean"] = mixed({kind: read[f"{name}@clean"] for kind, name in _MIXED.items()}, shares)
    rows = [row for rate in RATES for row in rates_at(read, own, Fraction(rate))]
    record = {
        **source.identity(),
        "calibrated_on": {"n": len(own), "kinds": dict(shares)},
        "rows": rows,
        "p": {part: [round(p, 4) for p in values] for part, values in read.items()},
        "manifest": build_manifest({"part": "calibration"}, ""),
    }
    write_json(given.out, record)
    say(f"record: {given.out}")
    return 0


def suites_of(tail: str) -> Sequence[str]:
    """Return the suites that are measured with a tail."""
    return OF_TAIL.get(tail, _FOUR)


def mixed(p_of: Mapping[str, Sequence[float]], shares: Mapping[str, int]) -> list[float]:
    """Return as many p of each kind as its share asks for, so that the rarest kind is used up."""
    size = min(len(values) * sum(shares.values()) // shares[kind] for kind, values in p_of.items())
    return [p for kind, values in p_of.items() for p in values[: size * shares[kind] // sum(shares.values())]]


def rates_at(read: Mapping[str, Sequence[float]], own: Sequence[float], rate: Fraction) -> list[dict[str, Any]]:
    """Return the refusals of each part at a promised rate: at the run's threshold, and at that of its own halves."""
    rows = []
    run_threshold = threshold_of(own, rate)
    for part, values in read.items():
        suite, _, tail = part.partition("@")
        row = {"promised": float(rate), "suite": suite, "tail": tail}
        rows.append({**row, "calibrated_on": "run", **refused([p >= run_threshold for p in values])})
        if suite in HARMFUL or suite == "mix":
            continue
        thresholds = [threshold_of(values[1::2], rate), threshold_of(values[0::2], rate)]
        positives = read[f"{HALF_OF.get(suite, 'smolthink_harmful')}@{tail}"]
        both = [
            refused([p >= thresholds[place % 2] for place, p in enumerate(scores)]) for scores in (values, positives)
        ]
        rows.append({**row, "calibrated_on": "halves", **both[0], "harmful_refused": both[1]})
    return rows


def threshold_of(values: Sequence[float], rate: Fraction) -> float:
    """Return the threshold that `gate calibrate` would set on these p."""
    threshold = conformal_threshold(values, rate)
    assert threshold is not None, f"{len(values)} prompts are too few"
    return threshold.value + MARGIN


def refused(flags: Sequence[bool]) -> dict[str, Any]:
    """Return a rate with Wilson's interval."""
    return wilson(sum(flags), len(flags))._asdict()


if __name__ == "__main__":
    raise SystemExit(main())
