"""Measure one model outside a recipe: any suites, CoT on and off, with or without an adapter.

Where both modes are measured, they are compared prompt by prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from presafe.config.recipe import ModelSettings, SamplingSettings
from presafe.errors import JudgeError, PromptError
from presafe.evaluation.answers import collect_answers, collect_outcomes, score_answers
from presafe.evaluation.differences import SystemOutcomes, mode_pairs, paired_differences
from presafe.judges.code import find_sandbox
from presafe.judges.scorers import check_judges, scorers_for
from presafe.models.adapters import need_adapter
from presafe.models.sampling import Sampler, sample_responses
from presafe.records import Prompt, Score, Thinking
from presafe.report.data import ReportData
from presafe.report.page import write_report
from presafe.runs.folder import begin, go_on, locked, timed, timings_of
from presafe.runs.manifest import Origins, sha256_of_file, sha256_of_prompts
from presafe.runs.ownership import MEASUREMENT, check_ours


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
    samples: int = 1,
    sampling: SamplingSettings = SamplingSettings(),  # noqa: B008  frozen
    sandbox: str | None = None,
    judge: str | None = None,
    judge_thought: str | None = None,
    origins: Origins | None = None,
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
        samples: Answers a prompt.
        sampling: How tokens are drawn, where it is not as the model's family publishes.
        sandbox: Where the model's programs run: "docker", "local" or "local-unconfined"; None means docker. Only for
            suites that ask for programs.
        judge: Judge of refusals or harm (`judges/spec.py`); None takes the refusal strings. Problems are compared
            with their reference, and where it judges harm the strings still judge harmless prompts.
        judge_thought: Judge of the thoughts before answers to harmful prompts, CoT on; None takes strings.
        origins: Where the suites come from (`origin_of`), kept in the manifest.

    Raises:
        ModelError: no adapter in the folder.
        JudgeError: no such judge, one that cannot be asked, or one with nothing to judge: no suite, or no thought.
        PromptError: no suite, or an empty one.
        RunError: the folder holds something else, or a measurement with other settings or prompts; or no sandbox.
        PresafeError: as `sample_responses`.
    """
    if not suites or not all(suites.values()):
        raise PromptError("nothing to measure on: no suite, or one without prompts.")
    kinds = {name: prompts[0].expect for name, prompts in suites.items()}
    check_judges(judge, judge_thought, kinds.values())
    if judge_thought and "on" not in thinking:
        raise JudgeError(
            f"judge {judge_thought} would judge no thought: CoT is off.", "Measure CoT on, too, or drop it."
        )
    if adapter is not None:
        need_adapter(adapter)
    where = find_sandbox(sandbox) if "code" in kinds.values() else None
    system = "adapted" if adapter else "vanilla"
    settings = {
        "model": {**model.model_dump(), "adapter": fingerprint(adapter) if adapter else None},
        "suites": {name: len(prompts) for name, prompts in suites.items()},
        "thinking": list(thinking),
        "max_tokens": max_tokens,
        "seed": seed,
        "samples": samples,
        "sampling": sampling.model_dump(),
        "sandbox": None if where is None else sandbox or "docker",
        "judge": judge,
        "judge_thought": judge_thought,
    }
    asked = sha256_of_prompts(suites.values())
    check_ours(out, MEASUREMENT)
    with locked(out):
        manifest = _open(out, settings, asked, origins)
        scores: list[Score] = []
        modes: list[SystemOutcomes] = []
        for mode in thinking:
            with timed(out, f"CoT {mode}"):
                said = sample_responses(
                    f"{model.address} CoT {mode}",
                    suites,
                    {name: scorers_for(expect, judge, judge_thought) for name, expect in kinds.items()},
                    Sampler(
                        model,
                        mode,
                        adapter,
                        batch_size=batch_size,
                        batch_tokens=batch_tokens,
                        max_tokens=max_tokens,
                        seed=seed,
                        samples=samples,
                        sampling=sampling,
                    ),
                    out / "evaluation" / f"{system}-{mode}",
                    sandbox=where,
                )
            answers = collect_answers(suites, said, judge, judge_thought)
            modes.append(collect_outcomes(system, mode, [answers]))
            scores += score_answers(answers, system=system, thinking=mode, seed=None)
        data = ReportData(
            title=f"{model.address} with {adapter}" if adapter else model.address,
            recipe=settings,
            manifest=manifest,
            timings_s=timings_of(out),
            scores=tuple(scores),
            differences=tuple(paired_differences(mode_pairs(modes))),
        )
        write_report(data, out)
    return data


def _open(out: Path, settings: dict[str, Any], prompts_sha256: str, origins: Origins | None) -> dict[str, Any]:
    """The manifest of a measurement that starts in a folder, or goes on there."""
    said = any((out / "evaluation").glob("*/*.eval"))  # if nothing was, an adapter may have been broken: begin again
    if said:
        return go_on(out, out / MEASUREMENT, settings, prompts_sha256)
    return begin(out, out / MEASUREMENT, settings, prompts_sha256, origins)


def fingerprint(adapter: Path) -> dict[str, str | None]:
    """Where an adapter lies and what is in it: trained again into the same folder, it is another."""
    weights = adapter / "adapter_model.safetensors"
    return {"folder": str(adapter), "sha256": sha256_of_file(weights) if weights.is_file() else None}
