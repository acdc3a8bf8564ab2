"""BPE dropout: a text in other, smaller tokens of the same tokenizer.

A tokenizer of byte pairs merges the pair of lowest rank until none is left. Here, in each round, each place where a
merge is possible is left out with a chance p; merging ends when all places of a round are left out. With p = 0 the ids
are the tokenizer's own, with p = 1 they are its smallest symbols.

Source: Provilkov et al., arXiv 1910.13267, algorithm 1.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

from presafe.errors import ModelError
from presafe.models.rendering import Encode


def dropped_merges(tokenizer: Any, dropout: float, seed: int) -> Encode:
    """Return a function that tokenizes a text with BPE dropout; the same text and seed give the same ids.

    Args:
        tokenizer: A Hugging Face tokenizer of byte pairs.
        dropout: Chance that a merge is left out, in [0, 1].
        seed: Seed of the draws.

    Raises:
        ModelError: the tokenizer is none of byte pairs, or not one of the library tokenizers.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or type(backend.model).__name__ != "BPE":
        raise ModelError(
            "the tokenizer does not merge byte pairs, so that none can be left out.", "Measure without retokenization."
        )
    vocabulary, ranks = _tables(backend.to_str())

    def encode(text: str) -> list[int]:
        if backend.normalizer is not None:
            text = backend.normalizer.normalize_str(text)
        pieces = [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text)] if text else []
        rng = random.Random(f"{seed} {text}")
        return [vocabulary[symbol] for piece in pieces for symbol in merged(piece, ranks, dropout, rng)]

    return encode


@lru_cache(maxsize=2)
def _tables(description: str) -> tuple[dict[str, int], dict[tuple[str, str], int]]:
    """Return a tokenizer's vocabulary, and the rank of each pair of symbols."""
    model = json.loads(description)["model"]
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    return model["vocab"], {(left, right): rank for rank, (left, right) in enumerate(pairs)}


def merged(piece: str, ranks: Mapping[tuple[str, str], int], dropout: float, rng: random.Random) -> list[str]:
    """Return the symbols that a piece of text is merged into.

    Args:
        piece: The text, in the tokenizer's smallest symbols.
        ranks: Rank of each pair of symbols that can be merged; the lowest is merged first.
        dropout: Chance that a place is left out of a round, in [0, 1].
        rng: Random numbers.
    """
    symbols = list(piece)
    while True:
        places = [
            (ranks[pair], place)
            for place, pair in enumerate(pairwise(symbols))
            if pair in ranks and (not dropout or rng.random() >= dropout)
        ]
        if not places:
            return symbols
        _, place = min(places)
        symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
