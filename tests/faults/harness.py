"""The two forms of the harness: what is tried in which order, for how long, and what is printed of it."""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

from faults.cases import Case, Kind, Outcome, corpus_cases, encode_case, keep_case
from faults.kinds import FUZZED, KINDS
from faults.selftest import planted_faults
from faults.server import import_all, run_cases

_COUNTS = {"servers": 400, "corruptions": 200, "kills": 80} | {kind.name: 10_000 for kind in FUZZED}
"""Inputs of the long form, at least; a case of `kills` has two to four of them."""
_SHARES = {
    "declarations": 0.14,
    "prompts": 0.08,
    "replies": 0.08,
    "folders": 0.14,
    "models": 0.16,
    "servers": 0.12,
    "corruptions": 0.18,
    "kills": 0.10,
}
"""Of the time; what one kind leaves is added to the next."""
_SHORT_S = 75.0
_SHRINK_S = 8.0
"""Seconds in which a failing input is made smaller."""
_BATCH = 200


@dataclass
class Tally:
    """What came of one kind."""

    tried: int = 0
    accepted: int = 0
    refused: int = 0
    known: int = 0
    failed: int = 0
    mended: list[str] = field(default_factory=list)
    """Entries of the corpus that are marked as failing, and hold."""
    failures: dict[str, dict[str, object]] = field(default_factory=dict)
    """The smallest input seen of each signature."""
    counts: dict[str, int] = field(default_factory=dict)
    """How often each signature was seen, known ones included."""
    seconds: float = 0.0

    def add(self, case: Case, outcome: Outcome, known: set[str]) -> bool:
        """Count an outcome.

        Returns:
            Whether it is a failure that is neither known nor seen before.
        """
        self.tried += 1
        if outcome.verdict != "failed":
            setattr(self, outcome.verdict, getattr(self, outcome.verdict) + 1)
            if case.xfail:
                self.mended.append(case.name)
            return False
        self.counts[outcome.signature] = self.counts.get(outcome.signature, 0) + 1
        if outcome.signature in known:
            self.known += 1
            return False
        self.failed += 1
        return outcome.signature not in self.failures


def commit_seed() -> int:
    """Return the first 8 hexadecimal digits of the commit as a number; 0 outside of a checkout."""
    here = Path(__file__).parent
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return int(done.stdout[:8], 16) if done.returncode == 0 else 0


def made_cases(kind: Kind, seed: int, numbers: Sequence[int]) -> list[Case]:
    """Return the inputs of these numbers; each depends on the seed and its number only."""
    return [kind.make(random.Random(f"{seed}:{kind.name}:{number}")) for number in numbers]


def try_kind(kind: Kind, workspace: Path, seed: int, count: int, deadline: float, keep: Path) -> Tally:
    """Run a kind's corpus, and then new inputs until there are enough or the time is over."""
    begun, tally = time.monotonic(), Tally()
    corpus = list(corpus_cases(kind.name))
    known = {case.signature for case in corpus if case.xfail}
    for case, outcome in zip(corpus, run_cases(kind, corpus, workspace), strict=True):
        is_other = bool(case.xfail) and outcome.verdict == "failed" and outcome.signature != case.signature
        if tally.add(case, outcome, known) or is_other:
            _note(kind, case, outcome, tally, workspace, keep, shrink=False)
    made = 0
    while made < count and time.monotonic() < deadline:
        cases = made_cases(kind, seed, range(made, min(count, made + _BATCH)))
        made += len(cases)
        for case, outcome in zip(cases, run_cases(kind, cases, workspace, deadline), strict=False):
            if tally.add(case, outcome, known):
                _note(kind, case, outcome, tally, workspace, keep)
    tally.seconds = round(time.monotonic() - begun, 1)
    return tally


def _note(
    kind: Kind, case: Case, outcome: Outcome, tally: Tally, workspace: Path, keep: Path, *, shrink: bool = True
) -> None:
    if shrink:
        case, outcome = shrunk(kind, case, outcome, workspace)
    file = keep_case(case, outcome, keep)
    entry = encode_case(case) | {"detail": outcome.detail, "file": str(file)}
    tally.failures[outcome.signature] = entry
    print(f"  FAILED {kind.name}: {outcome.signature}\n    {outcome.detail[:400]}\n    {file}", flush=True)


def shrunk(kind: Kind, case: Case, outcome: Outcome, workspace: Path) -> tuple[Case, Outcome]:
    """Return a smaller input that fails in the same way: pieces of it are left out while it does."""
    end = time.monotonic() + _SHRINK_S
    if kind not in FUZZED or kind.name == "models" or outcome.signature in ("hang", "memory"):
        return case, outcome
    size = max(1, len(case.data) // 2)
    while time.monotonic() < end:
        smaller = [
            case._replace(data=case.data[:place] + case.data[place + size :])
            for place in range(0, len(case.data), size)
        ]
        with closing(run_cases(kind, smaller, workspace, end)) as outcomes:
            tried = zip(smaller, outcomes, strict=False)
            better = next((pair for pair in tried if pair[1].signature == outcome.signature), None)
        if better:
            case, outcome = better
        elif size == 1:
            break
        else:
            size = max(1, size // 2)
    return case, outcome


def table(tallies: dict[str, Tally]) -> Iterator[str]:
    """Yield the lines of a table: tried, held (accepted or refused rightly), known to fail, failed."""
    yield f"{'kind':14}{'tried':>8}{'accepted':>10}{'refused':>9}{'held':>8}{'known':>7}{'FAILED':>8}{'seconds':>9}"
    for name, tally in tallies.items():
        held = tally.accepted + tally.refused
        yield (
            f"{name:14}{tally.tried:8}{tally.accepted:10}{tally.refused:9}{held:8}{tally.known:7}{tally.failed:8}"
            f"{tally.seconds:9.1f}"
        )
    for name, tally in tallies.items():
        for signature, number in sorted(tally.counts.items(), key=lambda entry: -entry[1]):
            yield f"  {name}: {'FAILED' if signature in tally.failures else 'known'} {number} ×: {signature}"
        for entry in tally.mended:
            yield f"  {name}: {entry} holds now: take its `xfail` away"


def main(words: list[str]) -> int:
    """Run one form of the harness; returns 1 where something failed."""
    parser = argparse.ArgumentParser(prog="python -m faults")
    parser.add_argument("--minutes", type=float, default=40.0, help="time of the long form, at most")
    parser.add_argument("--short", action="store_true", help=f"self-test and {_SHORT_S:.0f} s together")
    parser.add_argument("--self-test", action="store_true", help="planted faults only")
    parser.add_argument("--seed", type=lambda text: int(text, 0), default=None, help="default: the commit")
    parser.add_argument("--kinds", default=",".join(KINDS), help="names, with commas between")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report and of failing inputs")
    options = parser.parse_args(words)
    begun = time.monotonic()
    seed = commit_seed() if options.seed is None else options.seed
    print(f"seed {seed:#010x}", flush=True)
    _environment()
    import_all()
    options.out.mkdir(parents=True, exist_ok=True)
    kinds = [KINDS[name] for name in options.kinds.split(",")]
    tallies: dict[str, Tally] = {}
    caught: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        workspace = Path(name)
        for kind in kinds:
            kind.prepare(workspace)
        print(f"prepared in {time.monotonic() - begun:.0f} s", flush=True)
        if options.short or options.self_test:
            for plant, signature in planted_faults(kinds, workspace, seed):
                caught[plant] = signature
                print(f"  planted: {plant}: {signature or 'NOT CAUGHT'}", flush=True)
        if not options.self_test:
            end = begun + (_SHORT_S if options.short else 60 * options.minutes)
            for place, kind in enumerate(kinds):
                left = sum(_SHARES[later.name] for later in kinds[place:])
                now = time.monotonic()
                deadline = now + max(1.0, end - now) * _SHARES[kind.name] / left
                tallies[kind.name] = try_kind(
                    kind, workspace, seed, _COUNTS[kind.name], deadline, options.out / "corpus"
                )
    lines = list(table(tallies))
    print("\n".join(lines))
    print(f"{time.monotonic() - begun:.0f} s; seed {seed:#010x}")
    report = {"seed": seed, "planted": caught, "kinds": {name: asdict(tally) for name, tally in tallies.items()}}
    (options.out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    is_missed = any(not signature for signature in caught.values())
    return int(is_missed or any(tally.failed for tally in tallies.values()))


def _environment() -> None:
    os.environ.update(
        HF_HUB_OFFLINE="1",
        TQDM_DISABLE="1",
        OMP_NUM_THREADS="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        TOKENIZERS_PARALLELISM="false",
        TRANSFORMERS_VERBOSITY="error",
        NO_COLOR="1",
        COLUMNS="200",
    )
    support = Path(__file__).parents[1] / "support"
    if str(support) not in sys.path:
        sys.path.append(str(support))
