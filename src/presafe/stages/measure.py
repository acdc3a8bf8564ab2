"""Measure one model outside a recipe: any suites, CoT on and off, with or without an adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from presafe.errors import PromptError, RunError
from presafe.evaluation.metrics import suite_scores
from presafe.judges.scorers import check_judge, judge_name, scorer_for
from presafe.manifest import sha256_of_file, sha256_of_prompts
from presafe.models.sampling import Sampler, sample_responses
from presafe.recipe import ModelSettings
from presafe.records import Prompt, Score, Thinking
from presafe.report.data import ReportData
from presafe.report.page import write_report
from presafe.run_folder import MEASUREMENT, begin, go_on, locked, timed, timings_of


def measure(
    model: ModelSettings,
    suites: Mapping[str, Sequence[Prompt]],
    out: Path,
    *,
    adapter: Path | None = None,
    thinking: Sequence[Thinking] = ("on", "off"),
    max_tokens: int = 160,
    batch_size: int = 64,
    batch_tokens: int = 65_536,
    seed: int = 0,
    judge: str | None = None,
) -> ReportData:
    """Sample, judge and report one model; writes `report.html` and `results.json`. Resumes.

    Args:
        model: Its address, and its family and dtype where they are not the defaults.
        suites: Prompts by suite name; the prompts of a suite share what is expected of the model.
        out: Folder of logs and report. It belongs to one call's settings.
        adapter: Folder of a PEFT adapter.
        thinking: Modes to measure.
        max_tokens: Token budget of thought and answer.
        batch_size: Rows sampled together, at most; of a served model, requests in flight.
        batch_tokens: Rows × (longest prompt + token budget) of what is sampled together, at most.
        seed: Seed of sampling.
        judge: Judge of refusals or harm (`judges/naming.py`); None takes the refusal strings. Problems are compared
            with their reference, and where it judges harm the strings still judge harmless prompts.

    Raises:
        JudgeError: no such judge, one that cannot be asked, or one that none of the suites is for.
        PromptError: no suite, or an empty one.
        RunError: the folder holds a run, or a measurement with other settings or prompts.
        PresafeError: as `sample_responses`.
    """
    if not suites or not all(suites.values()):
        raise PromptError("nothing to measure on: no suite, or one without prompts.")
    check_judge(judge, [prompts[0].expect for prompts in suites.values()])
    system = "adapted" if adapter else "vanilla"
    settings = {
        "model": {**model.model_dump(), "adapter": _fingerprint(adapter) if adapter else None},
        "suites": {name: len(prompts) for name, prompts in suites.items()},
        "thinking": list(thinking),
        "max_tokens": max_tokens,
        "seed": seed,
        **({"judge": judge} if judge else {}),
    }
    asked = sha256_of_prompts(suites.values())
    with locked(out):
        manifest = _open(out, settings, asked)
        scores: list[Score] = []
        for mode in thinking:
            with timed(out, f"CoT {mode}"):
                said = sample_responses(
                    f"{model.address} CoT {mode}",
                    suites,
                    {name: scorer_for(prompts[0].expect, judge) for name, prompts in suites.items()},
                    Sampler(model, mode, adapter, batch_size, batch_tokens, max_tokens, seed),
                    out / "evaluation" / f"{system}-{mode}",
                )
            for name, prompts in suites.items():
                expect = prompts[0].expect
                scores += suite_scores(
                    said[name],
                    expect,
                    system=system,
                    thinking=mode,
                    suite=name,
                    seed=None,
                    judge=judge_name(expect, judge),
                )
        data = ReportData(
            title=f"{model.address} with {adapter}" if adapter else model.address,
            recipe=settings,
            manifest=manifest,
            timings_s=timings_of(out),
            scores=tuple(scores),
            differences=(),
            classifier=None,
            histories={},
            positions=(),
            examples=(),
        )
        write_report(data, out)
    return data


def _open(out: Path, settings: dict[str, Any], prompts_sha256: str) -> dict[str, Any]:
    """The manifest of a measurement that starts in a folder, or goes on there."""
    if (out / "recipe.json").exists():
        raise RunError(f"{out} holds a run, not a measurement.", "Choose another folder with --out.")
    said = any((out / "evaluation").glob("*/*.eval"))  # if nothing was, an adapter may have been broken: begin again
    return (go_on if said else begin)(out, out / MEASUREMENT, settings, prompts_sha256)


def _fingerprint(adapter: Path) -> dict[str, str | None]:
    """Where an adapter lies and what is in it: trained again into the same folder, it is another."""
    weights = adapter / "adapter_model.safetensors"
    return {"folder": str(adapter), "sha256": sha256_of_file(weights) if weights.is_file() else None}
