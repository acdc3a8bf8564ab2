"""Every suite as an Inspect task: `inspect eval presafe/strong_reject --model presafe/smolthink -M thinking=off`.

The tasks are those that `presafe evaluate` runs; here they start from Inspect's own command line, with any model that
Inspect supports. CoT on and off exist only for our provider. If the token budget cuts another provider's output, the
answer is unjudged, wherever the cut is: give it enough tokens.

Tasks that `register/` lists are written out, because the register of inspect_evals names a file and a function in it;
so `inspect eval src/presafe/evaluation/tasks.py@advbench` runs in a checkout.
"""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import TypedDict, Unpack

from inspect_ai import Task, task

from presafe.errors import PromptError
from presafe.evaluation.suites import load_suite, suite_names, suites_of
from presafe.judges.code import find_sandbox
from presafe.judges.parts import part_scorers
from presafe.judges.scorers import check_judges, scorers_for
from presafe.models.tasks import make_task
from presafe.prompts.drawing import draw
from presafe.records import Prompt


class TaskSettings(TypedDict, total=False):
    """What `-T NAME=VALUE` sets, as `suite_task` takes it."""

    data_dir: str | None
    limit: int | None
    seed: int
    judge: str | None
    judge_thought: str | None
    sandbox: str | None


def suite_task(
    name: str,
    *,
    data_dir: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    judge: str | None = None,
    judge_thought: str | None = None,
    sandbox: str | None = None,
) -> Task:
    """Build the task of one suite, or of a benchmark with a harmful and a harmless part, such as `xstest`.

    Args:
        name: Name of a suite or a benchmark.
        data_dir: Folder of the published files; not needed for the project's own suites.
        limit: Prompts of each part, at least 1, drawn over its categories by `seed`, as a recipe draws them;
            None takes all. Inspect's own `--limit` takes the first ones.
        seed: Seed of that draw, of generated arithmetic, of the order of options, and of a prompt's answers after the
            first.
        judge: Judge of refusals or harm, as `presafe list judges` names them.
        judge_thought: Judge of the thoughts before answers to harmful prompts.
        sandbox: Where a suite runs programs: docker (default), local, or local-unconfined.

    Raises:
        PromptError: as `load_suite`, or the limit is no whole number from 1.
        JudgeError: as `check_judges`.
    """
    if limit is not None and (type(limit) is not int or limit < 1):
        raise PromptError(f"`limit` must be a whole number of prompts, at least 1; got {limit!r}.")
    folder = Path(data_dir) if data_dir else None
    parts = {suite: draw(load_suite(suite, folder, seed), limit, "stratified", seed) for suite in suites_of(name)}
    expects = [prompts[0].expect for prompts in parts.values()]
    check_judges(judge, judge_thought, expects)
    if len(parts) > 1:
        return make_task(name, _alternating(parts), part_scorers(judge, judge_thought), seed=seed)
    (expect,) = expects
    sandbox_type = find_sandbox(sandbox) if expect == "code" else None
    return make_task(name, parts[name], scorers_for(expect, judge, judge_thought), seed=seed, sandbox=sandbox_type)


def _alternating(parts: dict[str, list[Prompt]]) -> list[Prompt]:
    """Return the prompts of all parts in turn, so that `--limit` meets each; their ids begin with their part."""
    named = [
        [prompt.model_copy(update={"id": f"{suite}/{prompt.id}"}) for prompt in prompts]
        for suite, prompts in parts.items()
    ]
    return [prompt for turn in zip_longest(*named) for prompt in turn if prompt is not None]


@task
def xstest(**settings: Unpack[TaskSettings]) -> Task:
    """Build the task of both parts of XSTest, 250 harmless and 200 harmful prompts (arXiv 2308.01263)."""
    return suite_task("xstest", **settings)


@task
def jailbreakbench(**settings: Unpack[TaskSettings]) -> Task:
    """Build the task of JailbreakBench's 100 harmful behaviors (arXiv 2404.01318)."""
    return suite_task("jailbreakbench", **settings)


@task
def jailbreakbench_benign(**settings: Unpack[TaskSettings]) -> Task:
    """Build the task of JailbreakBench's 100 harmless behaviors (arXiv 2404.01318)."""
    return suite_task("jailbreakbench_benign", **settings)


@task
def harmbench(**settings: Unpack[TaskSettings]) -> Task:
    """Build the task of HarmBench's 200 standard behaviors (arXiv 2402.04249)."""
    return suite_task("harmbench", **settings)


@task
def harmbench_contextual(**settings: Unpack[TaskSettings]) -> Task:
    """Build the task of HarmBench's 100 contextual behaviors (arXiv 2402.04249)."""
    return suite_task("harmbench_contextual", **settings)


@task
def wildjailbreak(**settings: Unpack[TaskSettings]) -> Task:
    """Build the task of WildJailbreak's 2,000 adversarial harmful prompts for evaluation (arXiv 2406.18510)."""
    return suite_task("wildjailbreak", **settings)


@task
def wildjailbreak_benign(**settings: Unpack[TaskSettings]) -> Task:
    """Build the task of WildJailbreak's 210 adversarial harmless prompts for evaluation (arXiv 2406.18510)."""
    return suite_task("wildjailbreak_benign", **settings)


@task
def or_bench_hard(**settings: Unpack[TaskSettings]) -> Task:
    """Build the task of OR-Bench's 1,319 hard harmless prompts (arXiv 2405.20947)."""
    return suite_task("or_bench_hard", **settings)


@task
def advbench(**settings: Unpack[TaskSettings]) -> Task:
    """Build the task of AdvBench's 520 harmful behaviors (arXiv 2307.15043)."""
    return suite_task("advbench", **settings)


def _define(suite: str) -> None:
    """Register one suite as an Inspect task."""

    @task(name=suite)
    def of_suite(**settings: Unpack[TaskSettings]) -> Task:
        return suite_task(suite, **settings)


for _suite in suite_names():
    if _suite not in globals():
        _define(_suite)
