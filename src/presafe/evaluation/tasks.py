"""Every suite as an Inspect task: `inspect eval presafe/strong_reject --model presafe/smolthink -M thinking=off`.

The tasks are those that `presafe evaluate` runs; here they start from Inspect's own command line, with any model that
Inspect supports. CoT on and off exist only for our provider. If the token budget cuts another provider's output, the
answer is unjudged, wherever the cut is: give it enough tokens.
"""

from __future__ import annotations

from pathlib import Path

import inspect_ai
from inspect_ai import Task

from presafe.evaluation.suites import load_suite, suite_names
from presafe.judges.code import find_sandbox
from presafe.judges.scorers import check_judges, scorers_for
from presafe.models.sampling import make_task


def _define(suite: str) -> None:
    """Register one suite as an Inspect task."""

    @inspect_ai.task(name=suite)
    def task(
        data_dir: str | None = None,
        seed: int = 0,
        judge: str | None = None,
        judge_thought: str | None = None,
        sandbox: str | None = None,
    ) -> Task:
        """Build the task of one suite.

        Args:
            data_dir: Folder of the published files; not needed for the project's own suites.
            seed: Seed of generated arithmetic, of the order of options, and of a prompt's answers after the first.
            judge: Judge of refusals or harm, as `presafe list judges` names them.
            judge_thought: Judge of the thoughts before answers to harmful prompts.
            sandbox: Where a suite runs programs: docker (default), local, or local-unconfined.
        """
        prompts = load_suite(suite, Path(data_dir) if data_dir else None, seed)
        expect = prompts[0].expect
        check_judges(judge, judge_thought, [expect])
        sandbox_type = find_sandbox(sandbox) if expect == "code" else None
        return make_task(suite, prompts, scorers_for(expect, judge, judge_thought), seed=seed, sandbox=sandbox_type)


for _suite in suite_names():
    _define(_suite)
