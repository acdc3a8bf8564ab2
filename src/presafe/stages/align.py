"""Stage 3: train every aligned system of the recipe, each seed, into `alignment/<system>/`.

sft             next-token loss only (λ = 0): the same rows, order and steps
presafe         L_SFT + λ · L_align with the classifier's p', and λ_start · L_start where the recipe asks for it
random_labels   the same with p' replaced by fair coins: the control
"""

from __future__ import annotations

import gc

from presafe.alignment.fit import HISTORY, fit
from presafe.alignment.rows import LEFT_OUT, alignment_rows, random_signals
from presafe.models.loading import load_renderer, load_weights, release_model
from presafe.processes import claim_device, part
from presafe.progress import console
from presafe.records import Signal, read_jsonl
from presafe.run_folder import RunFolder
from presafe.stages.respond import responses_of
from presafe.stages.systems import aligned_systems, alignment_queries, system_folder


def align(run: RunFolder) -> None:
    """Train what is not trained yet, with the other processes where a launcher started some."""
    claim_device()
    recipe, settings = run.recipe, run.recipe.align
    renderer = load_renderer(recipe.model.address, recipe.model.family, recipe.model.tokenizer)
    prompts = alignment_queries(recipe)
    own = {response.prompt_id: response for response in responses_of(run, "own")}
    signals = {each.prompt_id: each for each in read_jsonl(run.path / "signals" / "signals.jsonl", Signal)}
    lost = sum(response.verdict in LEFT_OUT for response in own.values())
    if lost:
        console.print(f"  left out {lost} of {len(own)} harmless queries: the own answer is cut or refuses")
    for system in aligned_systems(recipe):
        folder = system_folder(run, system)
        if (folder / HISTORY).exists():
            continue
        assert system.seed is not None
        used = random_signals(signals, system.seed) if system.name == "random_labels" else signals
        rows = alignment_rows(prompts, own, used, renderer, settings.refusal_target)
        release_model()
        fit(
            load_weights(recipe.model.address, recipe.model.dtype),
            renderer,
            rows,
            settings,
            lambda_align=0.0 if system.name == "sft" else settings.lambda_align,
            lambda_start=0.0 if system.name == "sft" else settings.lambda_start,
            seed=system.seed,
            folder=folder,
            label=folder.name,
            base_model=recipe.model.address,
        )
        gc.collect()
    part()
