"""Labelled answers before judges: their verdicts, as one Inspect eval a judge.

Nothing is sampled but the judges' replies. Their logs are the record: a judge whose log is finished is not asked again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from inspect_ai import Task, eval_set
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import EvalLog, read_eval_log
from inspect_ai.model import ChatCompletionChoice, ChatMessageAssistant, ContentReasoning, ContentText, ModelOutput
from inspect_ai.solver import Generate, Solver, TaskState, solver
from rich.text import Text

from presafe.errors import RunError
from presafe.judges.agreement import Labelled
from presafe.judges.scorers import judge
from presafe.judges.spec import Bench
from presafe.records import Verdict
from presafe.runs.folder import create_folder, locked, resume_folder
from presafe.runs.manifest import sha256_of
from presafe.runs.ownership import LABELS, check_ownership
from presafe.runtime.progress import console


def hear(benches: Sequence[Bench], items: Sequence[Labelled], folder: Path) -> dict[str, list[Verdict]]:
    """What judges say of labelled answers; of a panel, also what each member says, from the same calls.

    Args:
        benches: The judges.
        items: Labelled answers.
        folder: Where the logs lie, one folder a judge; it belongs to these items.

    Returns:
        Verdicts by the name of judge or member, in the order of the items.

    Raises:
        JudgeError: as `open_judge`.
        RunError: the folder holds something else, or belongs to other items; or a judge did not finish, and what is
            done is kept.
    """
    sha256 = sha256_of([item.model_dump() for item in items])
    found: dict[str, list[Verdict]] = {}
    check_ownership(folder, LABELS)
    with locked(folder):
        settings = folder / LABELS
        (resume_folder if settings.exists() else create_folder)(folder, settings, {"labels_sha256": sha256}, sha256)
        for bench in benches:
            logs = folder / hashlib.sha256(bench.name.encode()).hexdigest()[:12]
            log = _finished(logs) or _ask(bench, items, logs)
            said = {str(sample.id): next(iter((sample.scores or {}).values())) for sample in log.samples or []}
            metadata = [said[item.id].metadata or {} for item in items]
            if bench.rule:
                found |= {seat.name: [each["members"][seat.name] for each in metadata] for seat in bench.seats}
            found[bench.name] = [each["verdict"] for each in metadata]
    return found


@solver
def recorded() -> Solver:
    """The answer that was labelled, its thought apart, as a model would have given it."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        item = Labelled.model_validate(state.metadata)
        content = [ContentReasoning(reasoning=item.thought)] if item.thought else []
        message = ChatMessageAssistant(content=[*content, ContentText(text=item.answer)])
        choice = ChatCompletionChoice(message=message, stop_reason="max_tokens" if item.truncated else "stop")
        state.output = ModelOutput(choices=[choice])
        return state

    return solve


def _finished(logs: Path) -> EvalLog | None:
    """The finished log of a folder, if there is one."""
    for path in sorted(logs.glob("*.eval"), reverse=True):
        log = read_eval_log(str(path), header_only=True)
        if log.status == "success":
            return read_eval_log(str(path))
    return None


def _ask(bench: Bench, items: Sequence[Labelled], logs: Path) -> EvalLog:
    console.print(Text(f"  asking {bench.name} about {len(items)} answers"), soft_wrap=True)
    samples = [Sample(id=item.id, input=item.request, metadata=item.model_dump()) for item in items]
    task = Task(name="labelled", dataset=MemoryDataset(samples), solver=recorded(), scorer=judge(bench.name))
    logs.mkdir(parents=True, exist_ok=True)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        success, made = eval_set(
            [task],
            log_dir=str(logs),
            model="none/none",
            display="none",
            log_level="error",
            retry_attempts=0,
            retry_immediate=False,
            fail_on_error=True,
            log_buffer=1,
            log_realtime=False,
        )
    log = _finished(logs)
    if not success or log is None:
        reasons = [each.error.message for each in made if each.error] or ["it was interrupted"]
        raise RunError(
            f"{bench.name} did not finish: {reasons[0]}", "Run the same command again: what is done is kept."
        )
    return log
