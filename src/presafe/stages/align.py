"""Stage 3: train every method of the recipe with every seed, into `alignment/<system>/`.

`methods/` declares how the methods differ: the targets of the queries, the source of p′, and which terms of

    L = L_SFT + λ · L_align + λ_start · L_start

are on. Base, rows, order, steps and export are the same. Then each adapter is scaled to the recipe's operating point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from presafe.alignment.fit import HISTORY, FitSettings, fit
from presafe.alignment.labels import labels_of, planted_signals
from presafe.alignment.rows import AlignmentRow, alignment_rows, start_ids, thinking_off_rows, with_thinking_off
from presafe.config.recipe import Recipe
from presafe.errors import ModelError, RunError, SignalError
from presafe.methods.registry import training_of
from presafe.methods.targets import LEFT_OUT
from presafe.models.loading import load_renderer, load_weights, release_model
from presafe.models.rendering import Renderer
from presafe.planning.compute import BYTES
from presafe.planning.shapes import shape_of
from presafe.records import Prompt, Response, Signal
from presafe.runs.folder import set_aside_damaged
from presafe.runtime.launcher import claim_device, is_main_process, launched, launcher_hidden, leave_process_group
from presafe.runtime.memory import free_bytes, free_memory
from presafe.runtime.progress import console
from presafe.runtime.workers import worker_pool
from presafe.stages.operating_point import OPERATING_POINT, operating_point, set_operating_points, unscaled
from presafe.stages.respond import responses_of, trains_thinking_off
from presafe.stages.run_folder import RunFolder
from presafe.stages.signal import signals_of
from presafe.stages.systems import System, aligned_systems, history_of, system_folder

_RESERVED_BYTES = 2 * 2**30
"""Free memory in bytes that one training needs beside a multiple of its weights."""
_WEIGHT_COPIES = 4
"""That multiple. With both numbers, a training of SmolThink takes half of what is counted for it."""


def align(run: RunFolder) -> None:
    """Train and scale the systems that are not done; several at a time if a CPU has the cores and the memory.

    Under a launcher the processes share each training.

    Args:
        run: The run; its stages respond and signal are done.

    Raises:
        SignalError: a method has no target for any harmful query, or no row with CoT off can be kept.
        RunError: a file of the run is damaged or cannot be written.
    """
    claim_device()
    recipe = run.recipe
    own_responses = responses_of(run, "own")
    thinking_off_rows = off_rows(run) if trains_thinking_off(recipe) else []
    signals = signals_of(run)
    if is_main_process():
        _set_damaged_aside(run)
    num_left_out = sum(response.verdict in LEFT_OUT for response in own_responses)
    if num_left_out:
        console.print(
            f"  left out {num_left_out} of {len(own_responses)} harmless queries: the model's own answer is truncated "
            "or refuses"
        )
    due = [system for system in aligned_systems(recipe) if not (system_folder(run, system) / HISTORY).exists()]
    release_model()
    with worker_pool(_num_parallel_trainings(recipe, max(len(due), len(unscaled(run))))) as for_each:
        for_each(
            partial(_train, run=run, own_responses=own_responses, signals=signals, thinking_off_rows=thinking_off_rows),
            due,
        )
        leave_process_group()
        if is_main_process():
            with launcher_hidden():
                set_operating_points(run, for_each)


def _set_damaged_aside(run: RunFolder) -> None:
    """Set damaged records of trainings and of their scales aside, so that these are done again.

    Raises:
        RunError: a file cannot be renamed.
    """
    for system in aligned_systems(run.recipe):
        folder = system_folder(run, system)
        if _set_aside_if_damaged(history_of, run, system, folder / HISTORY):
            (folder / OPERATING_POINT).unlink(missing_ok=True)  # it describes the adapter that is written again
        _set_aside_if_damaged(operating_point, run, system, folder / OPERATING_POINT)


def _set_aside_if_damaged(
    read: Callable[[RunFolder, System], object], run: RunFolder, system: System, file: Path
) -> bool:
    """Set a record of a system aside if it cannot be read, and return whether that was so."""
    try:
        if file.exists():
            read(run, system)
    except RunError as error:
        set_aside_damaged(file, error.problem, f"{file.parent.name} is trained and scaled again from its checkpoint.")
        return True
    return False


def _num_parallel_trainings(recipe: Recipe, num_due: int) -> int:
    """Return how many systems to work on at a time."""
    import torch

    if num_due < 2 or launched() or torch.accelerator.is_available():
        return 1
    try:
        weight_bytes = shape_of(recipe.model.address).num_parameters() * BYTES[recipe.model.dtype]
    except ModelError:  # its size is not known
        return 1
    free_memory()
    num_in_memory = int(free_bytes() / (_RESERVED_BYTES + _WEIGHT_COPIES * weight_bytes))
    return max(1, min(num_due, torch.get_num_threads(), num_in_memory))


def _train(
    system: System,
    *,
    run: RunFolder,
    own_responses: Sequence[Response],
    signals: Sequence[Signal],
    thinking_off_rows: Sequence[AlignmentRow],
) -> None:
    """Train one system on its rows (`system_rows`)."""
    recipe, settings, folder = run.recipe, run.recipe.align, system_folder(run, system)
    training = training_of(system.name)
    is_trusted = recipe.model.trust_remote_code
    renderer = load_renderer(
        recipe.model.address, recipe.model.family, recipe.model.tokenizer, trust_remote_code=is_trusted
    )
    rows = system_rows(run, system, renderer, own_responses, signals, thinking_off_rows)
    lambda_align, lambda_start = training.weights(settings.lambda_align, settings.lambda_start)
    release_model()
    fit(
        load_weights(recipe.model.address, recipe.model.dtype, trust_remote_code=is_trusted),
        renderer,
        rows,
        FitSettings(
            align=settings,
            lambda_align=lambda_align,
            lambda_start=lambda_start,
            head=training.head or "decision",
            adapter=training.adapter,
            start_ids=start_ids(renderer, settings.refusal_target, training),
            seed=_seed_of(system),
            folder=folder,
            label=folder.name,
            base_model=recipe.model.address,
        ),
    )
    free_memory()


def _seed_of(system: System) -> int:
    """Return the seed of a trained system.

    Raises:
        ValueError: the system is the model as it came.
    """
    if system.seed is None:
        raise ValueError(f"{system.name} is not trained, so it has no seed")
    return system.seed


def system_rows(
    run: RunFolder,
    system: System,
    renderer: Renderer,
    own: Sequence[Response],
    signals: Sequence[Signal],
    off: Sequence[AlignmentRow] = (),
) -> list[AlignmentRow]:
    """Return the rows that a system is trained on.

    Args:
        run: The run; other answers that the method learns from are read from its folder.
        system: A trained system.
        renderer: The model's tokenizer and family.
        own: The model's own answers to the harmless queries.
        signals: The classifier's p′ of every query.
        off: Rows with CoT off, of which the recipe's share is taken.

    Raises:
        SignalError: none of the harmful queries has a target.
        RunError: responses that the method learns from were not sampled.
        PromptError: the file that the method learns from cannot be read.
    """
    recipe, training = run.recipe, training_of(system.name)
    prompts, responses = list(run.workload.alignment), list(own)
    if training.steering:
        responses += responses_of(run, system.name)
    if training.needs_data:
        traces = run.workload.published[system.name]
        prompts = [*(trace.prompt for trace in traces), *run.workload.harmless]
        responses += [trace.response for trace in traces]
    decisions = planted_signals(prompts, {signal.prompt_id: signal for signal in signals})
    rows = alignment_rows(
        prompts,
        {response.prompt_id: response for response in responses},
        labels_of(prompts, decisions, training.labels, _seed_of(system)),
        renderer,
        recipe.align.refusal_target,
        training,
    )
    _check_targets(system, prompts, rows)
    if not off:
        return rows
    mixed = with_thinking_off(rows, off, recipe.align.thinking_off_share, _seed_of(system))
    console.print(f"  {system.name}: {len(mixed) - len(rows)} of {len(mixed)} rows with CoT off")
    return mixed


def _check_targets(system: System, prompts: Sequence[Prompt], rows: Sequence[AlignmentRow]) -> None:
    """Check that there is a harmful query with a target, and print how many have one if some have none.

    Raises:
        SignalError: none of the harmful queries has a target.
    """
    harmful = {prompt.id for prompt in prompts if prompt.expect == "refuse"}
    num_targets = sum(row.prompt_id in harmful for row in rows)
    if harmful and not num_targets:
        raise SignalError(
            f"{system.name} has no target for any of the {len(harmful)} harmful queries.",
            "Remove it from `align.systems`: the model did not refuse when the instruction told it to.",
        )
    if num_targets < len(harmful):
        console.print(f"  {system.name}: {num_targets} of {len(harmful)} harmful queries have a target")


def off_rows(run: RunFolder) -> list[AlignmentRow]:
    """Return all rows with CoT off.

    Raises:
        SignalError: there is none.
    """
    model = run.recipe.model
    responses = {response.prompt_id: response for response in responses_of(run, "own_off")}
    renderer = load_renderer(model.address, model.family, model.tokenizer, trust_remote_code=model.trust_remote_code)
    rows = thinking_off_rows(run.workload.alignment, responses, renderer)
    if not rows:
        raise SignalError(
            f"none of {len(responses)} answers with CoT off is as its query expects, so there is nothing to keep.",
            "Leave `align.thinking_off_share` out.",
        )
    return rows
