"""Logs whose bytes changed on a disk or in a copy: a changed answer is never read."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.log import read_eval_log
from inspect_ai.solver import Generate, Solver, TaskState, solver

from presafe.models.logs import DamagedLogError, log_buffer, read_log

ANSWER = "A spoon is a tool with a small bowl and a handle."


@solver
def fixed_answer() -> Solver:
    """Answer every prompt alike."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        state.output.completion = ANSWER
        return state

    return solve


def flipped_copies(log: Path, copy: Path) -> Iterator[Path]:
    """Yield the log with the lowest bit of one byte of its sample changed, for each byte."""
    data = log.read_bytes()
    with zipfile.ZipFile(log) as archive:
        entry = next(entry for entry in archive.infolist() if entry.filename.startswith("samples/"))
    start = entry.header_offset + 30 + len(entry.filename)
    for place in range(start, start + entry.compress_size):
        copy.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        yield copy


def test_a_flipped_bit_in_an_answer_is_damage(tmp_path: Path) -> None:
    # Failed first: Inspect's reader does not compare checksums, so "A spnon is a tool ..." was read as the answer.
    task = Task(dataset=[Sample(id="1", input="What is a spoon?")], solver=fixed_answer(), name="spoon")
    eval(task, model="mockllm/model", log_dir=str(tmp_path), display="none")
    (log,) = tmp_path.glob("*.eval")
    assert read_log(log, lambda sample: None).status == "success"
    num_changed = 0
    for copy in flipped_copies(log, tmp_path / "copy.eval"):
        try:
            (sample,) = read_eval_log(str(copy)).samples or []
        except Exception:  # Inspect sees most flipped bits itself
            continue
        if sample.output.completion != ANSWER:
            num_changed += 1
            with pytest.raises(DamagedLogError, match=r"is damaged.*checksum"):
                read_log(copy, lambda sample: None)
    assert num_changed > 0


def test_a_log_that_lost_a_sample_is_damage(tmp_path: Path) -> None:
    # Failed first: names in the zip's directory have no checksum, and one changed bit there hid a sample.
    samples = [Sample(id=str(place), input="What is a spoon?") for place in (2, 3)]
    eval(
        Task(dataset=samples, solver=fixed_answer(), name="spoon"),
        model="mockllm/model",
        log_dir=str(tmp_path),
        display="none",
    )
    (log,) = tmp_path.glob("*.eval")
    before, name, after = log.read_bytes().rpartition(b"samples/2_epoch_1.json")
    log.write_bytes(before + name.replace(b"2", b"3") + after)
    assert len(read_eval_log(str(log)).samples or []) == 1
    with pytest.raises(DamagedLogError, match="it holds 1 of 2 samples"):
        read_log(log, lambda sample: None)


def test_a_log_is_not_written_for_each_of_many_samples() -> None:
    # Failed first: each write also writes the list of all samples, so 10,000 took ten minutes of writing.
    assert [log_buffer(number) for number in (1, 100, 511, 512, 10_000)] == [1, 1, 1, 2, 39]
