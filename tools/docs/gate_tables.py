"""Tables of `benchmarks/calibration.py` and `benchmarks/second_head.py`, written from their committed records."""

from __future__ import annotations

import json
from typing import Any

from paths import ROOT

from presafe.stats.intervals import wilson

_RESULTS = ROOT / "benchmarks" / "results"
_TAILS = {"clean": "none", "25": "25 words", "100": "100 words", "sums": "100 words of sums", "400": "400 words"}


def gate(kind: str) -> str:
    """Return one table.

    Args:
        kind: "harmless", "harmful", "heads", "differences", "checks" or "monitoring".
    """
    if kind == "checks":
        return _checks(json.loads((_RESULTS / "gate_check.json").read_text(encoding="utf-8")))
    if kind == "monitoring":
        return _monitoring(json.loads((_RESULTS / "monitoring.json").read_text(encoding="utf-8")))
    file = "calibration" if kind in ("harmless", "harmful") else "second_head"
    record = json.loads((_RESULTS / f"{file}.json").read_text(encoding="utf-8"))
    lines = _rates(record["rows"], harmless=kind == "harmless") if file == "calibration" else _heads(record, kind)
    return "\n".join([*lines, "", _made(record)])


def wrong_refusals(promised: float) -> list[dict[str, Any]]:
    """Return the rows of harmless suites of one kind each, without a tail, at one promised rate.

    Args:
        promised: The rate, 0.05 or 0.1.
    """
    rows: list[dict[str, Any]] = json.loads((_RESULTS / "calibration.json").read_text(encoding="utf-8"))["rows"]
    clean = [row for row in rows if row["tail"] == "clean" and row["promised"] == promised]
    suites = {row["suite"] for row in clean if row["calibrated_on"] == "halves"}
    return [row for row in clean if row["suite"] in suites]


def _rates(rows: list[dict[str, Any]], *, harmless: bool) -> list[str]:
    """Return the refusals of harmless suites at both thresholds, or of harmful ones at the run's."""
    at: dict[tuple[Any, ...], dict[str, Any]] = {
        (row["suite"], row["tail"], row["promised"], row["calibrated_on"]): row for row in rows
    }
    has_halves = {key[:2] for key in at if key[3] == "halves"} | {("mix", "clean")}
    if harmless:
        head = (
            "| suite | tail | n | 5 %, run's queries | 5 %, its own | harmful refused there | 10 %, run's | 10 %, own |"
        )
    else:
        head = "| suite | tail | n | refused at 5 % | refused at 10 % |"
    lines = [head, "| --- " * (head.count("|") - 1) + "|"]
    for suite, tail in dict.fromkeys(key[:2] for key in at):
        if ((suite, tail) in has_halves) != harmless:
            continue
        run = [at[suite, tail, rate, "run"] for rate in (0.05, 0.1)]
        own = [at.get((suite, tail, rate, "halves")) for rate in (0.05, 0.1)]
        hits = own[0] and own[0]["harmful_refused"]
        shown = [_share(row) for row in ((run[0], own[0], hits, run[1], own[1]) if harmless else run)]
        lines.append("| " + " | ".join([f"`{suite}`", _TAILS[tail], str(run[0]["n"]), *shown]) + " |")
    return lines


def _heads(record: dict[str, Any], kind: str) -> list[str]:
    """Return AUROC and refusals of each head by tail, or the rolling heads' difference from the control."""
    at = {(row["head"], row["tail"]): row for row in record["rows"]}
    heads, tails = (list(dict.fromkeys(key[place] for key in at)) for place in (0, 1))
    columns = [*(_TAILS[tail] for tail in tails), *(["GSM8K"] if kind == "heads" else [])]
    lines = [f"| head | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|"]
    for head in heads:
        if kind == "heads":
            long = at[head, tails[0]]["long_harmless_refused_at_clean_threshold"]["value"]
            cells = [*(_ranking(at[head, tail]) for tail in tails), f"{100 * long:.0f}"]
        elif head.startswith("rolling"):
            cells = [_difference(at[head, tail]["auroc_minus_control"]) for tail in tails]
        else:
            continue
        lines.append(f"| {head} | {' | '.join(cells)} |")
    return lines


def _ranking(row: dict[str, Any]) -> str:
    """Return the AUROC of a head, and what it refuses at the threshold that was set without a tail."""
    kinds = ("harmful_refused_at_clean_threshold", "harmless_refused_at_clean_threshold")
    harmful, harmless = (100 * row[kind]["value"] for kind in kinds)
    return f"{row['auroc']['value']:.3f}; {harmful:.0f}, {harmless:.0f}"


def _difference(difference: dict[str, float]) -> str:
    """Return a difference with its interval; bold if it is not 0 among all rolling heads together."""
    shown = f"{difference['value']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]"
    return f"**{shown}**" if difference["lowest"] > 0 or difference["highest"] < 0 else shown


def _share(row: dict[str, Any] | None) -> str:
    """Return a rate in percent with its interval."""
    if row is None:
        return "–"
    return f"{100 * row['value']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def _checks(record: dict[str, Any]) -> str:
    """Return what `gate check` says of each served copy of one classifier."""
    head = [
        "served as",
        "verdict",
        "AUROC",
        "harmful refused, points",
        "harmless refused, %",
        "p moves by",
        "decisions",
    ]
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for side, report in record["sides"].items():
        ranking, hits = report["ranking"], report["hits"]
        cells = [
            side,
            report["verdict"],
            f"{ranking['value']:+.3f} [{ranking['low']:+.3f}, {ranking['high']:+.3f}]",
            f"{100 * hits['value']:+.1f} [{100 * hits['low']:+.1f}, {100 * hits['high']:+.1f}]",
            _share(report["wrong_refusals"]),
            f"{report['largest_difference']:.3f}",
            f"{report['decisions_changed']} of {hits['n'] + report['wrong_refusals']['n']}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    commits = ", ".join(
        f"`{commit[:12]}`" for commit in dict.fromkeys(side["commit"] for side in record["sides"].values())
    )
    machine = record["manifest"]["machine"]
    return "\n".join([*lines, "", f"{record['run']['model']}; {machine['cpus']} CPUs; commits {commits}."])


def _monitoring(record: dict[str, Any]) -> str:
    """Return the plug-in's share of the stacks of each process of a server, and of all together."""
    titles = {"worker": "the model", "engine": "the queue of requests", "server": "the answers to clients"}
    shares = {titles[name]: (share["own"], share["n"]) for name, share in record["shares"].items()}
    own, seen = (sum(counts) for counts in zip(*shares.values(), strict=True))
    lines = ["| process of | busy stacks | the plug-in's | share, % | 95 % interval |", "| --- " * 5 + "|"]
    for title, (mine, busy) in [*shares.items(), ("all three", (own, seen))]:
        value, low, high = (100 * bound for bound in wilson(mine, busy)[:3] if bound is not None)
        lines.append(f"| {title} | {busy:,} | {mine} | {value:.2f} | {low:.2f} to {high:.2f} |")
    manifest = record["manifest"]
    return "\n".join([*lines, "", f"{manifest['machine']['cpus']} CPUs; commit `{manifest['commit'][:12]}`."])


def _made(record: dict[str, Any]) -> str:
    """Return what a record was made with."""
    manifest = record["manifest"]
    machine = manifest["machine"]
    return (
        f"{record['model']}, {record['dtype']}; {machine['system']}, {machine['processor']}, {machine['cpus']} CPUs; "
        f"commit `{manifest['commit'][:12]}`."
    )
