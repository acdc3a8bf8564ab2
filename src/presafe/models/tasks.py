"""Suites as Inspect tasks: a user turn, the model's answer, its judges. Each of several answers has its own seed."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence

from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import Scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver
from rich.text import Text

from presafe.models.logs import ATTACKED
from presafe.records import Prompt
from presafe.runtime.progress import console


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of a prompt's n-th answer; the first has the seed itself, so more answers do not change it.

    Args:
        seed: Seed of the eval.
        epoch: Number of the answer, from 1.
    """
    if epoch == 1:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed} epoch {epoch}".encode()).digest()[:4]) >> 1


@solver
def answer(seed: int) -> Solver:
    """Return the solver that asks the model once per answer, each answer with its own seed (`epoch_seed`).

    With one seed for all, all answers would be the same, because the provider hashes the seed with the prompt.

    Args:
        seed: Seed of the eval.
    """

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        state = await (generate(state, seed=epoch_seed(seed, state.epoch)) if state.epoch > 1 else generate(state))
        tell_if_unanswered(state)
        return state

    return solve


def tell_if_unanswered(state: TaskState) -> None:
    """Print a line about a prompt that a server refused.

    Args:
        state: Of the sample, with its output.
    """
    if reason := (state.output.metadata or {}).get("unanswered"):
        console.print(Text(f"  {state.sample_id} has no answer and will not be asked again in this folder: {reason}"))


def make_task(
    name: str,
    prompts: Sequence[Prompt],
    scorers: Sequence[Scorer],
    *,
    seed: int = 0,
    sandbox: str | tuple[str, str] | None = None,
    solver: Solver | None = None,
) -> Task:
    """Return one suite as an Inspect task: a user turn, the model's answer, its judges.

    Args:
        name: Name of the suite.
        prompts: Its prompts.
        scorers: Judge of the answer and, if any, judge of the thought.
        seed: Seed of sampling.
        sandbox: Inspect sandbox in which the judge runs programs, for suites of programs.
        solver: Asks the model; None asks once per answer.
    """
    # A container has its own interpreter; on this machine, take ours, which is recent enough.
    python = sys.executable if sandbox == "local" else "python3"
    samples = [
        Sample(
            id=prompt.id,
            input=prompt.text,
            target=prompt.target or prompt.expect,
            metadata={"expect": prompt.expect, "category": prompt.category, "version": prompt.version}
            | ({"python": python} if prompt.expect == "code" else {})
            | ({ATTACKED: prompt.attacked.model_dump(mode="json")} if prompt.attacked else {}),
        )
        for prompt in prompts
    ]
    dataset = MemoryDataset(samples, name=name)
    return Task(name=name, dataset=dataset, solver=solver or answer(seed), scorer=list(scorers), sandbox=sandbox)
