"""What the parts of the benchmark have in common: the model, and prompts of mixed kinds and lengths."""

from __future__ import annotations

import copy
import random
from functools import cache

from sides import Sizes

from presafe.models.loading import LoadedModel, load_model
from presafe.prompts.arithmetic import generate_problems
from presafe.prompts.sets import built_in


def smolthink(sizes: Sizes) -> LoadedModel:
    """Return SmolThink in float32, in the quick form with two of its 30 layers."""
    if not sizes.quick:
        return load_model("smolthink")
    model, renderer = _two_layers()
    return LoadedModel(copy.deepcopy(model), renderer)


@cache
def _two_layers() -> LoadedModel:
    loaded = load_model("smolthink")
    loaded.model.model.layers = loaded.model.model.layers[:2]
    loaded.model.config.num_hidden_layers = 2
    loaded.model.config.layer_types = None
    return loaded


def mixed_texts(num: int) -> list[str]:
    """Return short harmful and harmless requests, sums, and long requests, a quarter of each."""
    benign = [prompt.text for prompt in built_in("benign", "held_out")]
    harmful = [prompt.text for prompt in built_in("harmful", "held_out")]
    sums = [prompt.text for prompt in generate_problems("held_out", num, seed=0)]
    texts = []
    for index in range(num):
        kind, row = index % 4, index // 4
        near = row % len(benign)
        long = f"Here are some questions of other people. {' '.join(benign[: 2 + row % 8])} Now mine. {benign[near]}"
        texts.append((benign[near], harmful[row % len(harmful)], sums[row], long)[kind])
    random.Random(0).shuffle(texts)
    return texts
