"""Measure one model outside a recipe: any suites, CoT on and off, with or without an adapter."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from presafe.errors import RunError
from presafe.evaluation.metrics import suite_scores
from presafe.judges.scorers import judge_name, scorer_for
from presafe.manifest import build_manifest
from presafe.models.sampling import Sampler, sample_responses
from presafe.records import Prompt, Score, Thinking, write_text
from presafe.report.data import ReportData
from presafe.report.page import write_report
from presafe.run_folder import locked


def measure(
    address: str,
    suites: Mapping[str, Sequence[Prompt]],
    out: Path,
    *,
    adapter: Path | None = None,
    thinking: Sequence[Thinking] = ("on", "off"),
    family: str | None = None,
    dtype: str = "float32",
    max_tokens: int = 160,
    batch_size: int = 64,
    seed: int = 0,
) -> ReportData:
    """Sample, judge and report one model; writes `report.html` and `results.json`. Resumes.

    Args:
        address: Hub id, local folder, or "smolthink".
        suites: Prompts by suite name; the prompts of a suite share what is expected of the model.
        out: Folder of logs and report. It belongs to one call's settings.
        adapter: Folder of a PEFT adapter.
        thinking: Modes to measure.
        family: Chat family; None detects it.
        dtype: "float32" or "bfloat16".
        max_tokens: Token budget of thought and answer.
        batch_size: Rows sampled together.
        seed: Seed of sampling.

    Raises:
        RunError: the folder holds a measurement with other settings.
        PresafeError: as `sample_responses`.
    """
    settings = {
        "model": {"address": address, "adapter": str(adapter) if adapter else None, "family": family, "dtype": dtype},
        "suites": {name: len(prompts) for name, prompts in suites.items()},
        "prompts": [prompt.text for prompts in suites.values() for prompt in prompts],
        "thinking": list(thinking),
        "max_tokens": max_tokens,
        "seed": seed,
    }
    manifest = build_manifest(settings)
    del settings["prompts"]  # hashed above, and not for the page
    manifest_path = out / "manifest.json"
    with locked(out):
        if manifest_path.exists():
            before = json.loads(manifest_path.read_text(encoding="utf-8"))
            if before["recipe_sha256"] != manifest["recipe_sha256"]:
                raise RunError(f"{out} holds a measurement with other settings.", "Choose another folder with --out.")
            manifest = before
        else:
            write_text(manifest_path, json.dumps(manifest, indent=2) + "\n")
        scores: list[Score] = []
        timings = {}
        system = "adapted" if adapter else "vanilla"
        for mode in thinking:
            start = time.monotonic()
            said = sample_responses(
                f"{address} CoT {mode}",
                suites,
                {name: scorer_for(prompts[0].expect) for name, prompts in suites.items()},
                Sampler(address, mode, adapter, family, dtype, batch_size, max_tokens, seed),
                out / "evaluation" / f"{system}-{mode}",
            )
            timings[f"CoT {mode}"] = round(time.monotonic() - start, 1)
            for name, prompts in suites.items():
                expect = prompts[0].expect
                scores += suite_scores(
                    said[name],
                    expect,
                    system=system,
                    thinking=mode,
                    suite=name,
                    seed=None,
                    judge=judge_name(expect),
                )
        data = ReportData(
            title=f"{address} with {adapter}" if adapter else address,
            recipe=settings,
            manifest=manifest,
            timings_s=timings,
            scores=tuple(scores),
            classifier=None,
            histories={},
            positions=(),
            examples=(),
        )
        write_report(data, out)
    return data
