"""Tables of `make bench`, written from its committed record."""

from __future__ import annotations

import json
from functools import cache
from statistics import median
from typing import Any, NamedTuple

from paths import ROOT

RECORD = ROOT / "benchmarks" / "results" / "bench.json"
ENGINE = ROOT / "benchmarks" / "results" / "engine.json"
ENGINE_RUN = ROOT / "benchmarks" / "results" / "engine_run.json"
FRONT = ROOT / "benchmarks" / "results" / "front.json"
_NONE = "No record yet: `make bench` makes it."
_GOALS = {True: "met", False: "**missed**", None: ""}


@cache
def record() -> dict[str, Any] | None:
    """Return the record of the last `make bench`, or None."""
    if not RECORD.is_file():
        return None
    measured: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    return measured


def bench(kind: str) -> str:
    """Return one table.

    Args:
        kind: Name of a function in `_TABLES`.
    """
    if kind == "engine":
        return _engine(json.loads(ENGINE.read_text(encoding="utf-8")))
    if kind == "engine_run":
        return _engine_run(json.loads(ENGINE_RUN.read_text(encoding="utf-8")))
    if kind == "front":
        return _front(json.loads(FRONT.read_text(encoding="utf-8")))
    measured = record()
    return _TABLES[kind](measured) if measured else _NONE


def _engine(measured: dict[str, Any]) -> str:
    """Return a started vLLM beside this process."""
    settings, ratio = measured["settings"], measured["vllm_against_ours"]
    lines = ["| | tokens a second, by turn | start |", "| --- | --- | --- |"]
    for side, turns in measured["sides"].items():
        starts = [turn["start_s"] for turn in turns if "start_s" in turn]
        start = f"{min(starts):.0f} to {max(starts):.0f} s" if starts else "–"
        speeds = ", ".join(f"{turn['tokens_per_s']:.0f}" for turn in turns)
        lines.append(f"| {side} | {speeds} | {start} |")
    low, high = ratio["interval"]["low"], ratio["interval"]["high"]
    met = "met" if ratio["interval"]["value"] >= ratio["goal"] else "**missed**"
    lines.append(
        f"| vLLM / PreSafe | {ratio['interval']['value']:.2f} [{low:.2f}, {high:.2f}], goal {ratio['goal']}: {met} | |"
    )
    what = f"{settings['prompts']} prompts, at most {settings['tokens']} tokens each, {settings['dtype']}"
    return "\n".join([*lines, "", f"{what}; commit `{measured['manifest']['commit'][:12]}`."])


def _front(measured: dict[str, Any]) -> str:
    """Return what `presafe serve` adds to a request."""
    lines = ["| | n | at the server | through the front | added, median | 95 % interval | added, 95th percentile |"]
    lines.append("| --- " * 7 + "|")
    titles = {"process": "head in the front's process", "classifier": "vLLM's `/classify` on the same cores"}
    for part, own in measured.items():
        for kind, what in (("forwarded", "unread, only forwarded"), ("decided", f"decided, {titles[part]}")):
            times = own[kind]
            direct, front, added = (times[f"{side}_ms"]["median"] for side in ("direct", "front", "added"))
            most = times["added_ms"]["percentile_95"]
            cells = [what, str(own["requests"]), *(f"{one['value']:,.0f} ms" for one in (direct, front, added))]
            cells += [f"{added['low']:,.0f} to {added['high']:,.0f} ms", f"{most:,.0f} ms"]
            lines.append(f"| {' | '.join(cells)} |")
    loads = " and ".join(f"{own['load']:.1f}" for own in measured.values())
    commits = dict.fromkeys(own["manifest"]["commit"][:12] for own in measured.values())
    return "\n".join([*lines, "", f"Load {loads}; commit {', '.join(f'`{commit}`' for commit in commits)}."])


def _engine_run(measured: dict[str, Any]) -> str:
    """Return what is the same in a run through vLLM and in one in this process, and the time per token of both."""
    sampling, whole, loads = measured["time"]["sampling"], measured["time"]["stages_s"], measured["load_5_min"]
    lines = ["| | PreSafe | vLLM | |", "| --- | --- | --- | --- |"]
    for stage, ratio in measured["time"]["ratio"].items():
        both = [sampling[side][stage] for side in ("PreSafe", "vLLM")]
        cells = [f"{one['ms_per_token']:.1f} ms a token ({one['tokens']:,} tokens)" for one in both]
        lines.append(f"| `{stage}` | {cells[0]} | {cells[1]} | {ratio:.2f} times as many tokens a second |")
        seconds, load = ([kind[side][stage] for side in ("PreSafe", "vLLM")] for kind in (whole, loads))
        lines.append(f"| all of `{stage}` | {seconds[0]:.0f} s | {seconds[1]:.0f} s | with starts |")
        lines.append(f"| load then | {load[0]:.0f} | {load[1]:.0f} | |")
    starts = measured["time"]["starts_s"]
    lines.append(f"| {len(starts)} starts of vLLM | – | {min(starts):.0f} to {max(starts):.0f} s | |")
    lines += ["", "| | the same in both |", "| --- | --- |"]
    for stage, counts in measured["answers"].items():
        same, of = (sum(count[key] for count in counts.values()) for key in ("same_tokens", "of"))
        lines.append(f"| answers of `{stage}`, token by token | {same} of {of} |")
    adapters = measured["adapters_equal"].values()
    lines.append(f"| trained adapters, to the last bit | {sum(adapters)} of {len(adapters)} |")
    lines.append(f"| rows of `results.json` | {measured['rates_equal']['equal']} of {measured['rates_equal']['of']} |")
    commit = measured["manifest"]["commit"][:12]
    return "\n".join([*lines, "", f"{measured['recipe']['dtype']}; commit `{commit}`."])


class Ratio(NamedTuple):
    """PreSafe / other side of one piece of work, over the turns; below 1, PreSafe needs less."""

    what: str
    other: str
    unit: str
    low: float
    median: float
    high: float
    floor: float | None
    goal: float | None


def ratios(measured: dict[str, Any]) -> list[Ratio]:
    """Return the ratios of all parts that set PreSafe beside another side."""
    return [
        Ratio(
            row["what"],
            other,
            row["unit"],
            compared["ratio"]["min"],
            compared["ratio"]["median"],
            compared["ratio"]["max"],
            _floor(row, other),
            compared["goal"],
        )
        for part in ("training", "sampling", "classifier", "decision")
        for row in measured["parts"].get(part, ())
        for other, compared in row["others"].items()
        if other != "floor"
    ]


def _summary(measured: dict[str, Any]) -> str:
    """Return the answer of the page in one sentence."""
    of = {(ratio.what, ratio.other): ratio for ratio in ratios(measured) if ratio.unit == "seconds"}
    steps = [ratio for (what, other), ratio in of.items() if other == "SFTTrainer"]
    low, high = min(ratio.median for ratio in steps), max(ratio.median for ratio in steps)
    met = {True: "met", False: "missed"}
    parts = [f"a training step takes {low:.2f} to {high:.2f} of the time of TRL's `SFTTrainer` (goal 0.70, "
             f"{met[high <= 0.7]})"]  # fmt: skip
    parts += [
        f"{what} {ratio.median:.2f} of {other} (goal {ratio.goal:.2f}, {met[ratio.median <= ratio.goal]})"
        for what, other, key in (
            ("sampling", "`generate`", ("sampling, CoT on and off", "generate")),
            ("sampling through Inspect", "its `hf` provider", ("sampling through Inspect, CoT on", "hf provider")),
            ("training the classifier", "`Trainer`", ("classifier, one epoch", "Trainer")),
            ("its scores", "a pipeline", ("classifier, scores", "pipeline")),
        )
        if (ratio := of[key]).goal is not None
    ]
    return f"**On this machine {', '.join(parts)}.**"


def _steps(measured: dict[str, Any]) -> str:
    """Return how near a training step is to its floor."""
    lines = ["| work | floor / `SFTTrainer` | PreSafe / floor |", "| --- | --- | --- |"]
    for row in measured["parts"]["training"]:
        if row["unit"] == "seconds":
            above = row["others"]["floor"]["ratio"]
            cells = [row["what"], f"{_floor(row, 'SFTTrainer'):.2f}",
                     f"{above['median']:.2f} ({above['min']:.2f}–{above['max']:.2f})"]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _sides(measured: dict[str, Any]) -> str:
    lines = [
        "| work | PreSafe | other side | PreSafe / other | floor | goal |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for part in ("training", "sampling", "classifier", "decision"):
        for row in measured["parts"].get(part, ()):
            mine = sorted(row["values"]["PreSafe"])
            for other, compared in row["others"].items():
                if other == "floor":
                    continue
                theirs = sorted(row["values"][other])
                ratio, goal, floor = compared["ratio"], compared["goal"], _floor(row, other)
                cells = [
                    row["what"],
                    _amount(mine, row["unit"]),
                    f"{other}: {_amount(theirs, row['unit'])}",
                    f"{ratio['median']:.2f} ({ratio['min']:.2f}–{ratio['max']:.2f})",
                    f"{floor:.2f}" if floor else "",
                    f"≤ {goal:.2f}: {_GOALS[compared['met']]}" if goal else "",
                ]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _floor(row: dict[str, Any], other: str) -> float | None:
    """Return the smallest ratio that any program could reach against another side, where it was measured."""
    if "floor" in row:
        return float(row["floor"])
    if "floor" not in row["values"]:
        return None
    return float(median(row["values"]["floor"]) / median(row["values"][other]))


def _amount(values: list[float], unit: str) -> str:
    """Format the median of sorted values."""
    middle = values[len(values) // 2]
    return f"{middle:.2f} s" if unit == "seconds" else f"{middle:,.0f} {unit}"


def _start(measured: dict[str, Any]) -> str:
    lines = ["| command | seconds, median (smallest–largest) | goal |", "| --- | --- | --- |"]
    for row in measured["parts"].get("startup", ()):
        of = row["seconds"]
        goal = f"≤ {row['goal']}: {_GOALS[row['met']]}" if row["goal"] else ""
        lines.append(f"| {row['what']} | {of['median']:.3f} ({of['min']:.3f}–{of['max']:.3f}) | {goal} |")
    return "\n".join(lines)


def _growth(measured: dict[str, Any]) -> str:
    grown = measured["parts"].get("growth")
    if not grown:
        return _NONE
    sizes = [f"{number:,} prompts" for number in grown["prompts"]]
    lines = [f"| stage | {' | '.join(sizes)} |", f"| --- |{' --- |' * len(sizes)}"]
    for stage, values in grown["stages"].items():
        cells = [f"{s:.2f} s, {m:,.0f} MiB" for s, m in zip(values["seconds"], values["MiB"], strict=True)]
        cells += ["–"] * (len(sizes) - len(cells))
        lines.append(f"| {stage} | {' | '.join(cells)} |")
    if browser := grown["browser"]:
        opened = f"{browser['seconds']:.2f} s (goal: ≤ {browser['goal']:.0f} s)"
        lines.append(f"\nA report of {browser['rows']:,} prompts ({browser['MiB']:.1f} MiB) opens in {opened}.")
    return "\n".join(lines)


def _timeline(measured: dict[str, Any]) -> str:
    line = measured["parts"].get("timeline")
    if not line:
        return _NONE
    lines = ["| stage | seconds |", "| --- | --- |"]
    lines += [f"| {stage} | {seconds:.0f} |" for stage, seconds in line["seconds"].items()]
    total, goal = line["total_minutes"], line["goal_minutes"]
    return "\n".join([*lines, f"| all | {60 * total:.0f} ({total:.1f} min; goal: {goal:.0f} min) |"])


def _machine(measured: dict[str, Any]) -> str:
    manifest = measured["manifest"]
    machine = manifest["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in manifest["packages"].items())
    return "\n".join(
        [
            "| | |",
            "| --- | --- |",
            f"| measured | {manifest['created_utc'][:10]}, commit `{manifest['commit'][:12]}` |",
            f"| machine | {machine['system']}, {machine['processor']}, {machine['cpus']} CPUs, "
            f"{', '.join(measured['instructions'])}; {measured['threads']} threads |",
            f"| turns of each side | {measured['repeats']} |",
            f"| load when it ended | {measured['load']} |",
            f"| versions | Python {manifest['python']}, {packages} |",
        ]
    )


_TABLES = {
    "summary": _summary,
    "steps": _steps,
    "sides": _sides,
    "start": _start,
    "growth": _growth,
    "timeline": _timeline,
    "machine": _machine,
}
