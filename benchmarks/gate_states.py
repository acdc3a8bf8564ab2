"""What a head can read of many prompts: states after the final norm at every token, clean and with a tail.

A part is named SET@TAIL. It is computed once and kept in a folder as float16, which holds bfloat16 states exactly.

SET    a suite; `train`, the classifier's queries; `spare`, own queries that the run neither learns from nor is
       measured on: the harmless ones of split "align" after those of its alignment queries
TAIL   `clean`; a number of words of harmless sentences (attack `tail_padding`); `sums`, 100 words of solved sums, which
       no head is trained with; of `train` also `mixed0`, `mixed1`, ...: 10 to 200 words, drawn anew for each query
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sides import say

from presafe.attacks.harmless import exchanges
from presafe.attacks.registry import read_attack
from presafe.config.files import published_folder
from presafe.config.sources import SetSource
from presafe.evaluation.suites import load_suite
from presafe.internals.forward import padded_batches
from presafe.models.decision_head import DecisionHead
from presafe.prompts.sets import load_source
from presafe.records import Prompt
from presafe.runs.io import read_json, write_json
from presafe.runs.manifest import sha256_of_file
from presafe.stages.respond import decisions_of
from presafe.stages.run_folder import RunFolder
from presafe.workflows.export import adapter_hashes, load_system

HARMLESS = ("smolthink_benign", "smolthink_borderline", "arithmetic", "jailbreakbench_benign", "xstest_safe")
HARMFUL = ("smolthink_harmful", "xstest_unsafe", "strong_reject", "jailbreakbench")
LONG = "gsm8k"
"""Harmless prompts that are long without a tail: school problems."""
MOST = {"100": 150, "25": 100, "400": 80, "sums": 100}
"""Most prompts of a suite with each tail: long ones cost minutes on a CPU."""
_SPARE = (
    SetSource(set="benign", split="align", skip=100),
    SetSource(set="borderline", split="align", skip=36),
    SetSource(set="arithmetic", split="align", skip=34, n=80),
)


class Rows(NamedTuple):
    """States of several prompts, one after another."""

    states: np.ndarray[Any, Any]
    """(tokens, hidden), float16."""
    lengths: np.ndarray[Any, Any]
    """Tokens of each prompt."""

    def at_end(self) -> np.ndarray[Any, Any]:
        """Return the states at the last token of each prompt, where the run's head reads, as float32."""
        ends: np.ndarray[Any, Any] = self.states[self.lengths.cumsum() - 1].astype(np.float32)
        return ends


class GateStates:
    """The parts of a run's system `presafe`.

    Args:
        run: A run of the demo's recipe.
        folder: Where parts are kept; it belongs to one adapter.
    """

    def __init__(self, run: Path, folder: Path) -> None:
        self.run, self.folder = RunFolder.existing(run), folder
        self.system = run / "alignment" / "presafe"
        self.head = DecisionHead(self.system)
        self._loaded: Any = None
        folder.mkdir(parents=True, exist_ok=True)
        identity = folder / "adapter.json"
        if not identity.exists():
            write_json(identity, adapter_hashes(self.system))
        assert read_json(identity) == adapter_hashes(self.system), f"{folder} belongs to another adapter"

    def prompts(self, name: str, tail: str = "clean") -> list[Prompt]:
        """Return the prompts of a set; a suite with a tail, and the long one, have fewer, drawn with seed 0."""
        if name == "train":
            return [decision.query for decision in decisions_of(self.run).judged]
        if name == "spare":
            return [prompt for source in _SPARE for prompt in load_source(source, self.run.recipe.respond.seed)]
        prompts = load_suite(name, published_folder(), seed=0)
        most = min(200 if name == LONG else MOST.get(tail, len(prompts)), len(prompts))
        if most == len(prompts):
            return prompts
        return [prompts[place] for place in sorted(random.Random(0).sample(range(len(prompts)), most))]

    def rows(self, part: str) -> Rows:
        """Return the states of a part; compute and keep them if they are not there."""
        path = self.folder / f"{part}.npz"
        if not path.exists():
            self._compute(part, path)
        with np.load(path) as kept:
            return Rows(kept["states"], kept["lengths"])

    def probabilities(self, part: str) -> list[float]:
        """Return p of the run's head for each prompt of a part."""
        return [float(p) for p in self.head.probability(torch.from_numpy(self.rows(part).at_end()))]

    def identity(self) -> dict[str, str]:
        """Return what a record says of the model."""
        head = sha256_of_file(self.system / "presafe_head.safetensors")
        return {"model": self.run.recipe.model.address, "dtype": self.run.recipe.model.dtype, "head_sha256": head}

    def _compute(self, part: str, path: Path) -> None:
        """Read every token of a part once."""
        self._loaded = self._loaded or load_system(self.system)
        name, _, tail = part.partition("@")
        texts = with_tail(self.prompts(name, tail), tail)
        sequences = [self._loaded.renderer.render(text, "on").ids for text in texts]
        say(f"{part}: {len(texts)} prompts, {sum(map(len, sequences))} tokens")
        rows: list[Any] = [None] * len(sequences)
        with torch.inference_mode():
            for batch in padded_batches(sequences, 24 if tail == "clean" else 8, "cpu"):
                decoder = self._loaded.model.base_model
                states = decoder(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).last_hidden_state
                for row, index in enumerate(batch.indices):
                    rows[index] = states[row, : len(sequences[index])].half().numpy()
        np.savez(path, states=np.concatenate(rows), lengths=np.array([len(ids) for ids in sequences]))


def with_tail(prompts: Sequence[Prompt], tail: str) -> list[str]:
    """Return the texts of prompts with a tail; see the module."""
    if tail == "clean":
        return [prompt.text for prompt in prompts]
    if tail == "sums":
        return [f"{prompt.text}\n\nHere is my homework, it is done already. {_sums(prompt)}" for prompt in prompts]
    if not tail.startswith("mixed"):
        return [_padded(prompt, tail, 0) for prompt in prompts]
    seed = int(tail.removeprefix("mixed"))
    drawn = (random.Random(f"{seed} mixed {prompt.id}").uniform(math.log(10), math.log(200)) for prompt in prompts)
    return [_padded(prompt, str(round(math.exp(value))), seed) for prompt, value in zip(prompts, drawn, strict=True)]


def _padded(prompt: Prompt, words: str, seed: int) -> str:
    """Return a prompt under the attack `tail_padding`."""
    label = f"tail_padding:length={words}"
    return read_attack(label).apply(prompt, seed, label).text


def _sums(prompt: Prompt) -> str:
    """Return about 100 words of questions with right answers."""
    rng, parts = random.Random(f"sums {prompt.id}"), list[str]()
    while sum(len(part.split()) for part in parts) < 100:
        ((question, answer),) = exchanges(1, rng)
        parts.append(f"{question} {answer.removeprefix('Sure! ')}")
    return " ".join(parts)
