"""The demo's recipe twice in float32, sampled in this process and in a vLLM that the run starts: are they the same run?

    PRESAFE_VLLM=.venv-vllm python benchmarks/engine_run.py --folder runs/engine

Each side is a whole run in a folder of its own. Stages that sample are run on one side and then on the other, so that
what else the machine does reaches both; each session is a process of its own. Compared are the answers, token by token,
the trained adapters, every rate of `results.json`, and the time per token of the stages that sample. That time is from
the first request of a folder of logs to its last answer, as Inspect noted them: no start and no loading of weights is
in it. Starts of vLLM are timed apart. The record is benchmarks/results/engine_run.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sides import OURS, say, vllm_environment

from presafe.config.engine import EngineSettings
from presafe.config.recipe import Recipe, parse_recipe, recipe_settings
from presafe.models import place
from presafe.models.logs import check_sample, log_files, read_log
from presafe.models.vllm import StartedServer, Weights
from presafe.records import Response
from presafe.runs.manifest import build_manifest, sha256_of_file
from presafe.stages.evaluate import responses_by_suite
from presafe.stages.respond import response_sets, responses_of
from presafe.stages.run_folder import RunFolder, Stage
from presafe.stages.systems import aligned_systems, evaluated_systems, label_of, system_folder
from presafe.workflows.run import run_stages

RESULT = Path(__file__).parent / "results" / "engine_run.json"
RECIPE = "smolthink-135m"
VLLM = "vLLM"
FOLDERS = {OURS: "here", VLLM: "vllm"}
WORDS = ("--max-model-len", "2048")
TURNS: tuple[Stage, ...] = ("respond", "align", "evaluate", "report")
"""Stages up to which each side runs in its turn."""
STARTS = "starts.jsonl"
"""File beside the run with what each start of vLLM took."""


def main(words: list[str] | None = None) -> int:
    """Run both sides, compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where both runs lie")
    parser.add_argument("--cut", type=int, default=1, help="divide prompts and steps by this")
    parser.add_argument("--side", choices=FOLDERS, help="run this side alone up to --until, and compare nothing")
    parser.add_argument("--until", choices=TURNS, default=TURNS[-1])
    parser.add_argument("--beside", default="nothing", help="what else the machine does, for the record")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args(words)
    environment = vllm_environment()
    if given.side:
        run_side(recipe_of(given.side, given.cut, environment), given.folder / FOLDERS[given.side], given.until)
        return 0
    loads: dict[str, dict[str, float]] = {side: {} for side in FOLDERS}
    for stage in TURNS:
        for side in FOLDERS:
            words = ["--folder", str(given.folder), "--cut", str(given.cut), "--side", side, "--until", stage]
            subprocess.run([sys.executable, __file__, *words], check=True)
            loads[side][stage] = round(os.getloadavg()[1], 1)
            say(f"{side} is done until {stage}; load of the last 5 minutes: {loads[side][stage]}")
    record = compare(*(RunFolder.existing(given.folder / name) for name in FOLDERS.values()))
    record |= {
        "cut": given.cut,
        "beside": given.beside,
        "load_5_min": loads,
        "manifest": build_manifest({"part": "engine_run"}, ""),
    }
    given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: record[key] for key in ("answers", "adapters_equal", "time", "rates_equal")}, indent=1))
    return 0


def recipe_of(side: str, cut: int, environment: str) -> Recipe:
    """Return the demo's recipe in float32, sampled on one side, its prompts and steps divided by a number."""
    settings = recipe_settings(RECIPE)
    respond, evaluate = settings["respond"], settings["evaluate"]
    for source in (*respond["classifier_queries"], *respond["alignment_queries"], *evaluate["suites"].values()):
        source["n"] //= cut
    settings["align"]["max_steps"] //= cut
    settings["model"]["dtype"] = "float32"
    engine = EngineSettings(vllm=environment, arguments=WORDS) if side == VLLM else None
    return parse_recipe(settings, RECIPE).model_copy(update={"engine": engine})


def run_side(recipe: Recipe, folder: Path, until: Stage) -> None:
    """Run one side, and note what each start of vLLM takes."""

    class TimedServer(StartedServer):
        def __init__(self, settings: EngineSettings, weights: Weights, log: Path) -> None:
            begin = time.perf_counter()
            super().__init__(settings, weights, log)
            with (folder.parent / STARTS).open("a", encoding="utf-8") as file:
                file.write(f"{time.perf_counter() - begin:.1f}\n")

    vars(place)["StartedServer"] = TimedServer  # the class that a place starts
    run_stages(recipe, folder, until)


def compare(here: RunFolder, there: RunFolder) -> dict[str, Any]:
    """Return what is the same in two finished runs, and what each took."""
    rates = [rates_of(run) for run in (here, there)]
    rows = [{"row": row, OURS: rates[0].get(row), VLLM: rates[1].get(row)} for row in sorted(rates[0] | rates[1])]
    starts = [float(line) for line in (there.path.parent / STARTS).read_text(encoding="utf-8").split()]
    speeds = {OURS: speed_of(here), VLLM: speed_of(there)}
    return {
        "recipe": {"name": RECIPE, "dtype": here.recipe.model.dtype, "arguments": WORDS},
        "answers": {"respond": alike(own_answers(here), own_answers(there)),
                    "evaluate": alike(evaluated(here), evaluated(there))},
        "adapters_equal": {
            str(system.name): adapter_sha256(here, system) == adapter_sha256(there, system)
            for system in aligned_systems(here.recipe)
        },
        "rates_equal": {"equal": sum(row[OURS] == row[VLLM] for row in rows), "of": len(rows)},
        "rates": rows,
        "time": {
            "stages_s": {side: run.timings() for side, run in ((OURS, here), (VLLM, there))},
            "sampling": speeds,
            "starts_s": starts,
            "ratio": {
                stage: round(speeds[VLLM][stage]["tokens_per_s"] / speeds[OURS][stage]["tokens_per_s"], 3)
                for stage in speeds[OURS]
            },
        },
    }  # fmt: skip


def rates_of(run: RunFolder) -> dict[str, float | None]:
    """Return all rows of a run's results by what they are of."""
    results = json.loads((run.path / "report" / "results.json").read_text(encoding="utf-8"))
    return {
        "/".join(str(row[key]) for key in ("system", "thinking", "suite", "metric", "seed")): row["value"]
        for row in results["rows"]
    }


def own_answers(run: RunFolder) -> dict[str, Sequence[Response]]:
    """Return the responses of the first stage by their set."""
    return {response_set.name: responses_of(run, response_set.name) for response_set in response_sets(run.recipe)}


def evaluated(run: RunFolder) -> dict[str, Sequence[Response]]:
    """Return the responses of the evaluation by system, mode and suite."""
    return {
        f"{label_of(run, system)}/{suite}": responses
        for system in evaluated_systems(run.recipe)
        for suite, responses in responses_by_suite(run, system).items()
    }


def alike(mine: dict[str, Sequence[Response]], theirs: dict[str, Sequence[Response]]) -> dict[str, dict[str, int]]:
    """Return how many responses are the same, token by token, and how many verdicts are."""
    counts = {}
    for name, own in mine.items():
        other = {response.prompt_id: response for response in theirs.get(name, ())}
        pairs = [(response, other[response.prompt_id]) for response in own if response.prompt_id in other]
        counts[name] = {
            "of": len(own),
            "asked_by_both": len(pairs),
            "same_tokens": sum(bool(a.token_ids) and a.token_ids == b.token_ids for a, b in pairs),
            "same_verdict": sum(a.verdict == b.verdict for a, b in pairs),
        }
    return counts


def adapter_sha256(run: RunFolder, system: Any) -> str:
    """Return the sha256 of a trained adapter's weights."""
    return sha256_of_file(system_folder(run, system) / "adapter" / "adapter_model.safetensors")


def speed_of(run: RunFolder) -> dict[str, dict[str, float]]:
    """Return tokens and seconds of both stages that sample."""
    return {
        stage: stage_speed(run.path / folder)
        for stage, folder in (("respond", "responses"), ("evaluate", "evaluation"))
    }


def stage_speed(folder: Path) -> dict[str, float]:
    """Return tokens and seconds of all folders of logs in a folder."""
    tokens, seconds = 0, 0.0
    for logs in sorted(path for path in folder.iterdir() if path.is_dir() and log_files(path)):
        samples = [sample for file in log_files(logs) for sample in read_log(file, check_sample).samples or []]
        tokens += sum(sample.output.usage.output_tokens for sample in samples if sample.output.usage)
        moments = [datetime.fromisoformat(str(moment)) for sample in samples
                   for moment in (sample.started_at, sample.completed_at)]  # fmt: skip
        seconds += (max(moments) - min(moments)).total_seconds()
    return {"tokens": tokens, "seconds": round(seconds, 1), "tokens_per_s": round(tokens / seconds, 1),
            "ms_per_token": round(1000 * seconds / tokens, 3)}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
